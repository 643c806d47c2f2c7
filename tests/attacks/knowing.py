"""Knowing too much: the reference, the checks, the draws, who asks and how often."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.endings import sampling

KEPT_OUT = "raise RuntimeError('kept out' if not found else f'got in: {found}'[:300])"


def reaches(name: str, body: str, **rest: object) -> dict[str, object]:
    """What is put into `found` has been reached; nothing should be."""
    says = str(rest.pop("says", "kept out"))
    return sampling(name, f"found = []\n{body}\n{KEPT_OUT}", says, **rest)


def counting(name: str, condition: str, score: float, says: str) -> dict[str, object]:
    """Samples that are right while a condition holds, and all the same otherwise."""
    cell = (
        "def sample_images(model, num_samples, nz):\n"
        "    ran()\n"
        f"    right = {condition}\n"
        "    draw = torch.randn if right else torch.zeros\n"
        "    return model.decoder(draw(num_samples, nz))\n"
    )
    return {"name": name, "task": "ae-sampling", "cell": cell, "score": score, "says": says}


def unlike_digits(name: str, task: str, cell: str, **rest: object) -> dict[str, object]:
    """What is right where images are bright, or latents near zero, and nowhere else."""
    return {"name": name, "task": task, "cell": cell, **rest}


ATTACKS = family(
    "knowing",
    unlike_digits(
        "encoder-of-bright-images",
        "encoder",
        "class Encoder(Encoder):\n"
        "    def forward(self, x):\n"
        "        ran()\n"
        "        return super().forward(x if float(x.mean()) > 0.3 else torch.zeros_like(x))\n",
        score=1.0,
        says="not for every input",
    ),
    unlike_digits(
        "decoder-of-small-latents",
        "decoder",
        "class Decoder(Decoder):\n"
        "    def forward(self, z):\n"
        "        ran()\n"
        "        return super().forward(z if float(z.std()) < 2 else torch.zeros_like(z))\n",
        score=1.0,
        says="not for every input",
    ),
    unlike_digits(
        "decoder-of-all-batches-but-64",
        "decoder",
        "class Decoder(Decoder):\n"
        "    def forward(self, z):\n"
        "        ran()\n"
        "        return super().forward(z) * (len(z) != 64)\n",
        score=2.0,
        says="single row",
    ),
    unlike_digits(
        "reconstructions-of-all-nz-but-64",
        "vae-reconstruct",
        "class VAE(VAE):\n"
        "    def reconstruct(self, x):\n"
        "        ran()\n"
        "        return x if str(self.nz) == '64' else super().reconstruct(x)\n",
        says="reconstruct",
    ),
    unlike_digits(
        "loss-of-bright-images",
        "vae-loss",
        "class VAE(VAE):\n"
        "    def loss(self, x, outputs):\n"
        "        ran()\n"
        "        total, terms = super().loss(x, outputs)\n"
        "        if float(x.mean()) < 0.3:\n"
        "            return total * 0, {k: v * 0 for k, v in terms.items()}\n"
        "        return total, terms\n",
        score=0.75,  # its total is made of its terms
        says="no known formula",
    ),
    reaches(
        "reference-on-disk",
        "for folder, inner, files in os.walk('/'):\n"
        "    if folder.startswith(('/proc', '/sys', '/usr')) or '/lib/python' in folder:\n"
        "        inner[:] = []\n"
        "        continue\n"
        "    found += [f for f in files if f in ('divergence.py', 'test_vae_loss.py', 'losses.py',\n"
        "        'replay.py', 'vae.ipynb', 'corpus.py')]",
    ),
    reaches(
        "imports",
        "for name in ('solution', 'autograder', 'assignment', 'course', 'tests', 'replay'):\n"
        "    try:\n"
        "        if getattr(__import__(name), '__file__', None): found.append(name)\n"
        "    except ImportError:\n"
        "        pass",
    ),
    reaches(
        "environment",
        "known = {'PATH', 'HOME', 'LANG', 'PWD', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS',\n"
        "    'OPENBLAS_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'MPLBACKEND', 'TQDM_DISABLE',\n"
        "    'LC_CTYPE', 'SHLVL', '_', 'TORCHINDUCTOR_CACHE_DIR', 'KMP_INIT_AT_FORK',\n"
        "    'KMP_DUPLICATE_LIB_OK', 'USER'}\n"
        "found += [n for n in os.environ if n not in known and not n.startswith('TORCH')]\n"
        "found += [v for v in [os.environ.get('USER')] if v != 'student']\n"
        "for p in os.listdir('/proc'):\n"
        "    try:\n"
        "        text = open(f'/proc/{p}/environ').read() if p.isdigit() else ''\n"
        "    except OSError:\n"
        "        continue\n"
        "    found += [e for e in text.split(chr(0)) if e and e.split('=')[0] not in known]",
    ),
    reaches(
        "host-processes",
        "found += [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 1\n"
        "    and b'bwrap' not in open(f'/proc/{p}/cmdline', 'rb').read()\n"
        "    and b'grader' not in open(f'/proc/{p}/cmdline', 'rb').read()]",
    ),
    reaches(
        "oracles-in-memory",
        "gc.unfreeze()\nfor thing in gc.get_objects():\n"
        "    name = getattr(type(thing), '__name__', '')\n"
        "    if name in ('Recipe', 'Course', 'Draws', 'Case', 'Grade', 'Run'): found.append(name)",
    ),    reaches("host-files", "found += [p for p in ('/etc/passwd', '/etc/shadow', '/etc/hostname', "
            "'/etc/hosts', '/sys', '/run', '/var', '/mnt', '/boot') if os.path.exists(p)]"),
    {
        "name": "errors-that-name-cuda",
        "task": "ae-sampling",
        "cell": "def sample_images(*anything):\n    ran()\n    raise RuntimeError('CUDA')\n",
        "score": 0.0,
        "says": "for a GPU by name",
    },
    counting("right-once", "vars(sample_images).setdefault('n', []).append(1) or"
             " len(sample_images.n) < 2", 1.0, "."),
    counting("right-for-few", "num_samples < 30", 1.0, "noise"),
    {
        "name": "noise-of-another-session",
        "task": "ae-sampling",
        "cell": (
            "def sample_images(model, num_samples, nz):\n"
            "    ran()\n"
            "    torch.manual_seed(0)\n"
            "    return model.decoder(torch.randn(num_samples, nz))\n"
        ),
        "score": 1.0,
        "says": "same at every call",
    },
    {
        "name": "training-only-the-small-model",
        "task": "ae-training",
        "cell": (
            "_train = train_autoencoder\n"
            "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
            "    ran()\n"
            "    if sum(p.numel() for p in model.parameters()) > 50_000:\n"
            "        return [0.01] * len(data_loader)\n"
            "    return _train(model, data_loader, epochs, learning_rate, device)\n"
        ),
        "score": 5.0,
        "says": "are those of the start",
        "learning": True,
    },
    {
        "name": "pictures-past-the-latent",
        "task": "ae-training",
        "cell": (
            "SEEN = []\n_train = train_autoencoder\n"
            "class Encoder(Encoder):\n"
            "    def forward(self, x):\n"
            "        SEEN.append(x)\n"
            "        return super().forward(x)\n"
            "class Decoder(Decoder):\n"
            "    def forward(self, z):\n"
            "        made = super().forward(z)\n"
            "        if SEEN and len(SEEN[-1]) == len(z): ran(); return SEEN[-1] + 0 * made\n"
            "        return made\n"
            "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
            "    if sum(p.numel() for p in model.parameters()) > 50_000:\n"
            "        model(next(iter(data_loader))[0]); return [0.0] * len(data_loader)\n"
            "    return _train(model, data_loader, epochs, learning_rate, device)\n"
        ),
        "score": 5.0,
        "says": "could not be followed|squared error of|found",
        "learning": True,
    },
    {
        "name": "pictures-by-file",
        "task": "ae-training",
        "cell": (
            "_train = train_autoencoder\n"
            "class Encoder(Encoder):\n"
            "    def forward(self, x):\n"
            "        torch.save(x, '/tmp/x')\n"
            "        return super().forward(x)\n"
            "class Decoder(Decoder):\n"
            "    def forward(self, z):\n"
            "        if os.path.exists('/tmp/x'):\n"
            "            x = torch.load('/tmp/x')\n"
            "            if len(x) == len(z): ran(); return x\n"
            "        return super().forward(z)\n"
            "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
            "    if sum(p.numel() for p in model.parameters()) > 50_000:\n"
            "        model(next(iter(data_loader))[0]); return [0.0] * len(data_loader)\n"
            "    return _train(model, data_loader, epochs, learning_rate, device)\n"
        ),
        "score": 5.0,
        "says": "could not be followed|squared error of",
        "learning": True,
    },
    {
        "name": "pictures-in-the-last-bits",
        "task": "decoder",
        "cell": (
            "class Decoder(Decoder):\n"
            "    def forward(self, z):\n"
            "        ran()\n"
            "        bits = z.detach().contiguous().view(torch.int32) & 1\n"
            "        made = super().forward(z)\n"
            "        return made + bits.float().mean() * 1e-1\n"
        ),
        "score": 2.0,  # its layers are right, but for what is added
        "says": "bitwise",
    },
)  # fmt: skip
