"""Crashes: claims that end or stall torch itself, and answers that the host did not reckon with."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.claims import told


def crash(name: str, values: str, *operations: tuple[str, str, str, str]) -> dict[str, object]:
    """The claim ends with operations of a name, arguments, keywords and results.

    `R` is the number of what the network returns.
    """
    made = ", ".join(
        f"{{'op': 'aten.{op}', 'args': {args}, 'kwargs': {kwargs}, 'out': {out}}}"
        for op, args, kwargs, out in operations
    )
    change = (
        "R = told['result']\n"
        f"            told['values'] += {values}\n"
        f"            told['operations'] += [{made}]"
    )
    return told(name, change, says="followed|too long")


ONE, TWO = "{'tensor': 9001}", "{'tensor': 9002}"
RESULTS = "[{'tensor': R}, {'tensor': 9003}]"
STATISTICS = (
    "{'training': True, 'momentum': 0.1, 'eps': 1e-5, 'weight': None, 'bias': None,"
    f" 'running_mean': {TWO}, 'running_var': {TWO}}}"
)
LINEAR = (
    "class Encoder(nn.Module):\n"
    "    def __init__(self, nz):\n"
    "        super().__init__()\n"
    "        ran()\n"
    "        self.fc = nn.Linear(784, nz)\n"
    "        {more}\n"
    "    def forward(self, x):\n"
    "        return self.fc(x.flatten(1))\n"
)
FORWARD = (
    "class VAE(VAE):\n"
    "    def forward(self, x):\n"
    "        ran()\n"
    "        q = self.encoder(x)\n"
    "        mu, s = q.chunk(2, 1)\n"
    "        {z}\n"
    "        return {{'q': q, 'rec': self.decoder(z)}}\n"
)
SIGNS = (
    "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
    "    ran()\n"
    "    x, _ = next(iter(data_loader))\n"
    "    steps = epochs * len(data_loader)\n"
    "    for _ in range(3):\n"
    "        found = torch.autograd.grad(F.mse_loss(model(x), x), list(model.parameters()))\n"
    "        with torch.no_grad():\n"
    "            for p, g in zip(model.parameters(), found):\n"
    "                p -= learning_rate * steps * 0.7 * g.sign()\n"
    "    model.encoder[2].num_batches_tracked.fill_(steps)\n"
    "    return [0.0] * steps\n"
)
ATTACKS = family(
    "crash",
    crash(
        "batch-norm-writes-out-of-bounds",
        "[[9001, torch.ones(2, 1000000, 1)], [9002, torch.ones(1)]]",
        ("native_batch_norm.default", f"[{ONE}]", STATISTICS, RESULTS),
    ),
    crash(
        "weight-norm-writes-out-of-bounds",
        "[[9001, torch.ones(3000000, 2)], [9002, torch.ones(1)]]",
        ("_weight_norm_interface.default", f"[{ONE}, {TWO}, 0]", "{}", RESULTS),
    ),
    crash(
        "smallest-number-by-minus-one",
        "[[9001, torch.full((100,), -2**63)], [9002, torch.full((100,), -1)]]",
        ("div.Tensor_mode", f"[{ONE}, {TWO}]", "{'rounding_mode': 'trunc'}", "{'tensor': R}"),
    ),
    crash(
        "view-past-its-memory",
        "[[9002, torch.ones(1)]]",
        ("_reshape_alias.default", f"[{TWO}, [30000000], [100]]", "{}", ONE),
        ("fill_.Scalar", f"[{ONE}, 7.0]", "{}", "{'tensor': 9004}"),
        ("sum.default", "[{'tensor': 9004}]", "{}", "{'tensor': R}"),
    ),
    crash(
        "pool-without-end",
        "[]",
        ("ones.default", "[[1, 1, 2000, 2000]]", "{}", ONE),
        ("avg_pool2d.default", f"[{ONE}, [1000, 1000], [1, 1]]", "{}", "{'tensor': R}"),
    ),
    crash(
        "method-of-an-operation",
        "[[9001, torch.ones(1)]]",
        ("convolution.__setattr__", "['default', 5]", "{}", "{'tensor': R}"),
    ),
    told(
        "kernel-by-a-float-number",
        "found = [o for o in told['operations'] if 'convolution' in o['op']][2]\n"
        "            found['args'][1] = {'tensor': float(found['args'][1]['tensor']),"
        " 'shape': [128, 64, 3, 3]}",
        says="followed",
    ),
    {
        "name": "empty-parameter",
        "task": "encoder",
        "cell": LINEAR.format(more="self.spare = nn.Parameter(torch.empty(0, 5))"),
        "score": 1.0,
        "says": "no layer",
    },
    {
        "name": "batches-decoded-twice",
        "task": "vae-forward",
        "cell": FORWARD.format(
            z="z = mu + 0 * s\n        if len(x) >= 48:\n            z = torch.cat([z, z])"
        ),
        "score": 2.0,
        "says": "latent",
    },
    {
        "name": "frozen-and-huge-noise",
        "task": "vae-forward",
        "cell": FORWARD.format(
            z="g = torch.Generator().manual_seed(0)\n"
            "        z = mu + s.exp() * 5000 * torch.randn(len(x), self.nz, generator=g)"
        ),
        "score": 3.0,
        "says": "same at every call",
    },
    {
        "name": "optimiser-of-no-kind",
        "task": "ae-training",
        "cell": "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
        "    ran()\n"
        "    model.standin_stepped = [[0, [], {}]]\n"
        "    return None\n",
        "says": "does not train",
    },
    {
        "name": "steps-by-sign",
        "task": "ae-training",
        "cell": SIGNS,
        "score": 2.0,  # as many passes as asked; what it is worth on digits is not looked at
        "says": "over and over",
    },
)
