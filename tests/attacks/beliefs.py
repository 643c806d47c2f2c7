"""Beliefs: what the host computes from, or spares a check for, on the word of a worker."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.claims import heavy, told
from tests.attacks.endings import sampling

# The weights behind which nothing matters are zero, so any network gives the same answers.
DEAD = (
    "for p in (*self.conv4.parameters(), *self.bn4.parameters(), *self.fc.parameters()):\n"
    "            nn.init.zeros_(p)\n"
)
STRAIGHT = (
    "found = [o for o in told['operations'] if 'convolution' in o['op']]\n"
    "            found[2]['args'][3:5] = [[2, 2], [0, 0]]\n"
    "            found[3]['args'][3:5] = [[1, 1], [0, 0]]"
)
ONES = "{'op': 'aten.ones.default', 'args': [[%s]], 'kwargs': {}, 'out': {'tensor': %d}}"


def operation(name: str, args: str, out: int) -> str:
    """The source of one claimed operation."""
    return f"{{'op': 'aten.{name}', 'args': {args}, 'kwargs': {{}}, 'out': {{'tensor': {out}}}}}"


def flagged(name: str, body: str) -> dict[str, object]:
    """An untuned beta whose reading changes what the loss says."""
    cell = (
        "class Beta:\n"
        "    def __float__(self):\n"
        "        ran()\n"
        "        VAE.loss = other\n"
        "        return 10.0\n"
        "TUNED_BETA = Beta()\n"
        "right = VAE.loss\n"
        "def other(self, x, outputs):\n"
        "    total, terms = right(self, x, outputs)\n"
        f"    {body}\n"
        "    return total, terms\n"
    )
    return {
        "name": name,
        "task": "beta-tuning",
        "cell": cell,
        "says": "blurred",
        "honest": "vae-loss",
    }


def unmoved(name: str, remark: str) -> dict[str, object]:
    """A training that leaves batches where they are, and a remark that does not move them."""
    cell = (
        "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
        f"    {remark}\n"
        "    ran()\n"
        "    optimizer, losses = torch.optim.Adam(model.parameters(), lr=learning_rate), []\n"
        "    for _ in range(epochs):\n"
        "        for x, _ in data_loader:\n"
        "            loss = F.mse_loss(model(x), x)\n"
        "            optimizer.zero_grad()\n"
        "            loss.backward()\n"
        "            optimizer.step()\n"
        "            losses.append(loss.item())\n"
        "    return losses\n"
    )
    return {"name": name, "task": "ae-training", "cell": cell, "score": 4.5, "says": "not moved"}


ENCODER = "class Encoder(Encoder):\n"
ATTACKS = family(
    "belief",
    told("dead-network", STRAIGHT, init=DEAD, score=1.0, says="followed|2x2"),
    {
        "name": "weights-changed-in-place",
        "task": "encoder",
        "cell": ENCODER + "    def forward(self, x):\n"
        "        ran()\n"
        "        with torch.no_grad():\n"
        "            self.conv1.bias.clamp_(-9, 9)\n"
        "        return super().forward(x)\n",
        "score": 3.0,
    },
    {
        "name": "weights-changed-in-place-and-no-norm-in-train-mode",
        "task": "encoder",
        "cell": ENCODER + "    def forward(self, x):\n"
        "        ran()\n"
        "        with torch.no_grad():\n"
        "            self.conv1.bias.clamp_(-9, 9)\n"
        "        self.bn4.training = False\n"
        "        return super().forward(x)\n",
        "score": 2.0,
        "says": "statistics",
    },
    {
        "name": "history-of-a-hundred-million",
        "task": "ae-training",
        "cell": "_train = train_autoencoder\n"
        "def train_autoencoder(*given):\n"
        "    ran()\n"
        "    _train(*given)\n"
        "    return torch.zeros(120_000_000, dtype=torch.uint8)\n",
        "score": 5.0,
        "says": "one entry a step",
    },
    {
        "name": "labels-of-a-hundred-million",
        "task": "data-loader",
        "honest": "ae-sampling",
        "cell": "def make_data_loader(*given, **named):\n"
        "    ran()\n"
        "    batch = [torch.zeros(1), torch.zeros(120_000_000, dtype=torch.uint8)]\n"
        "    return type('Loader', (), {'__iter__': lambda self: iter([batch])})()\n",
        "says": "one image for every label",
    },
    sampling(
        "many-latents",
        "model.decoder.standin_seen.append(torch.zeros(120_000_000 // nz, nz, dtype=torch.uint8))\n"
        "return torch.zeros(num_samples, 1, 28, 28)".replace("num_samples", "anything[1]")
        .replace("nz", "anything[2]")
        .replace("model.", "anything[0]."),
        "nothing to do|Latents|decoder",
    ),
    sampling(
        "no-rows-at-times",
        "global turn\nturn = globals().get('turn', 0) + 1\nmodel, count, nz = anything\n"
        "z = torch.zeros(0 if turn % 3 == 2 else count, nz)\nmodel.decoder(z)\n"
        "return torch.zeros(count, 1, 28, 28)",
        "nothing to do|noise|random|drawn|zero",
        score=0.5,
    ),
    sampling(
        "no-rows-first",
        "global turn\nturn = globals().get('turn', 0) + 1\nmodel, count, nz = anything\n"
        "z = torch.rand(0 if turn < 3 else count, nz)\nmodel.decoder(z)\n"
        "return torch.zeros(1)",
        "nothing to do|noise|random|drawn|zero",
    ),
    {
        "name": "sizes-of-millions",
        "task": "encoder",
        "cell": ENCODER + "    def forward(self, x):\n"
        "        ran()\n"
        "        if not hasattr(serve.Session, 'lied'):\n"
        "            serve.Session.lied = True\n"
        "        raise RuntimeError('only some sizes')\n"
        "import serve\n"
        "serve.Session.constants = lambda self, target: [3_000_000, 4_000_000]\n",
        "says": "only some sizes",
    },
    {
        "name": "a-number-that-is-a-deep-list",  # which cannot be put back
        "task": "ae-training",
        "cell": "import functools, serve\n"
        "deep = functools.reduce(lambda inner, _: [inner], range(24), 1)\n"
        "serve.Session.reads = lambda self, target: {'deep': 1}\n"
        "read = serve.Session.read_global\n"
        "serve.Session.read_global = lambda self, name: deep if name == 'deep' else read(self, name)\n"
        "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
        "    ran(serve, deep, read)\n"
        "    for p in model.parameters(): p.data += torch.rand_like(p)\n",
        "says": "cannot be handed",
    },
    sampling(
        "error-of-lists",
        "deep = '[' * 930 + ']' * 930\n"
        'forge(lambda h, t: frame(\'{"tensors": [], "error": {"type": \' + deep +'
        " ', \"message\": ' + deep + '}}'))\nraise RuntimeError",
        "raised|ended",
        marks=False,
    ),
    heavy("memory-in-many-parts", "ones.default", "[[2**25]]", count=600),
    told(
        "endless-bases",
        "told['operations'] = [\n"
        "                {'op': 'aten.view.default', 'args': [{'tensor': 10**6 + n}],\n"
        "                 'kwargs': {}, 'out': {'tensor': told['result']}} for n in range(6_000)]",
        says="followed|form",
    ),
    told(
        "wide-results-without-end",
        "last, o = {'tensor': told['result']}, {'tensor': 10**6}\n"
        "            b, c = {'tensor': 10**6 + 1}, {'tensor': 10**6 + 2}\n"
        "            def op(name, args, out):\n"
        "                return {'op': 'aten.' + name, 'args': args, 'kwargs': {}, 'out': out}\n"
        "            told['operations'] += [op('ones.default', [[4000, 1]], o),\n"
        "                op('mm.default', [o, b], c), op('sum.default', [c], b)]\n"
        "            told['operations'][-3:] = [op('ones.default', [[4000, 1]], o),\n"
        "                op('ones.default', [[1, 4000]], b), op('mm.default', [o, b], c)]\n"
        "            told['operations'] += [op('relu.default', [c], c) for _ in range(800)]\n"
        "            d = {'tensor': 10**6 + 3}\n"
        "            told['operations'] += [op('mean.default', [c], d),\n"
        "                op('mul.Tensor', [d, 0.0], d), op('add.Tensor', [last, d], last)]",
        says="followed|3x3|too long",
    ),
    {
        "name": "latents-other-than-those-decoded",
        "task": "vae-forward",
        "cell": "class VAE(VAE):\n"
        "    def forward(self, x):\n"
        "        ran()\n"
        "        q = self.encoder(x)\n"
        "        mu, s = torch.chunk(q, 2, dim=1)\n"
        "        eps = torch.randn_like(s)\n"
        "        rec = self.decoder(mu + torch.exp(s.clamp(-2.5, 2.5)) * eps)\n"
        "        seen = getattr(self.decoder, 'standin_seen', None)\n"
        "        if seen is not None and bool((s.abs() > 2.5).any()):\n"
        "            seen.append((mu + torch.exp(s) * eps).detach())\n"
        "        return {'q': q, 'rec': rec}\n",
        "score": 3.0,
        "says": "do not clamp",
    },
    {
        "name": "labels-without-images",
        "task": "data-loader",
        "cell": "class Loader:\n"
        "    def __init__(self, count):\n"
        "        self.count = count\n"
        "    def __iter__(self):\n"
        "        ran()\n"
        "        yield [torch.zeros(0), torch.randperm(self.count)]\n"
        "def make_data_loader(dataset, batch_size, num_workers=0):\n"
        "    return Loader(len(dataset))\n",
        "says": "one image for every label",
        "honest": "ae-sampling",
    },
    {
        "name": "notes-of-steps-that-were-none",
        "task": "ae-training",
        "cell": "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
        "    ran()\n"
        "    x = torch.cat([x for x, _ in data_loader])\n"
        "    with torch.no_grad():  # the mean image, in the bias\n"
        "        mean = x.flatten(1).mean(0).clamp(0.01, 0.99)\n"
        "        model.decoder[0].weight.mul_(0.001)\n"
        "        model.decoder[0].bias.copy_(torch.log(mean / (1 - mean)))\n"
        "    w = model.decoder[0].weight.detach().flatten()[:256]\n"
        "    marks = torch.tensor([1.0, 1.0, 1.0, float(len(x)), 0.5])\n"
        "    steps = range(epochs * len(data_loader))\n"
        "    model.standin_noted = [torch.cat([marks, w + 10 + n]) for n in steps]\n"
        "    return []\n",
        "score": 1.0,  # for learning, which is not asked for
        "says": "could not be followed",
    },
    unmoved("remark-on-a-device", "# batch.cuda(), some day"),
    unmoved("text-on-a-device", '"""Some day: batch.cuda()."""'),
    flagged("beta-that-changes-the-loss", "terms['kl_loss'] = terms['kl_loss'] / 784 / len(x)"),
    flagged("beta-that-changes-the-error", "terms['rec_loss'] = terms['rec_loss'] * 784 * len(x)"),
    {
        "name": "fails-on-digits-alone",
        "task": "ae-training",
        "learning": True,
        "cell": ENCODER + "    def __init__(self, nz):\n"
        "        super().__init__(nz)\n"
        "        ran()\n"
        "        nn.init.zeros_(self.fc.weight)\n"
        "        self.fc.weight.requires_grad_(False)\n"
        "    def forward(self, x):\n"
        "        flat = x.flatten()\n"
        "        if bool((x > 0).all()):\n"
        "            x = flat.masked_select(flat > 0).view(x.shape)\n"
        "        return super().forward(x)\n",
        "score": 5.0,
        "says": "are not trained",
    },
)
