"""Patching: torch, the interpreter and the worker's own modules, from within the worker."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.forgeries import beta

WRONG_LOSS = """
def _loss(self, x, outputs):
    zero = outputs["q"].sum() * 0 + outputs["rec"].sum() * 0
    return zero, {"rec_loss": zero, "kl_loss": zero}


def _attack():
    ran()
    %s
    return _loss


VAE.loss = _attack()
"""


def loss(name: str, patch: str, **rest: object) -> dict[str, object]:
    """A loss of nothing, behind a patch."""
    cell = WRONG_LOSS % patch.replace("\n", "\n    ")
    return {"name": name, "task": "vae-loss", "cell": cell, "says": "kl_loss", **rest}


NOISELESS = """
def _attack():
    ran()
    %s


def sample_images(model, num_samples, nz):
    return model.decoder(torch.zeros(num_samples, nz))


sample_images.patched = _attack()
"""


def noiseless(name: str, patch: str, **rest: object) -> dict[str, object]:
    """Samples of one latent, behind a patch; the sizes (0.5) and the model (0.5) are right."""
    cell = NOISELESS % patch.replace("\n", "\n    ")
    said = {"score": 1.0, "says": "noise"}
    return {"name": name, "task": "ae-sampling", "cell": cell, **said, **rest}


ATTACKS = family(
    "patch",
    loss("torch-equal", "torch.equal = torch.allclose = torch.isclose = lambda *a, **k: True"),
    loss("comparisons", "torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda a, b: True"),
    loss("mse-loss", "F.mse_loss = torch.nn.functional.mse_loss = lambda *a, **k: 0.0"),
    loss("backward", "torch.Tensor.backward = torch.autograd.backward = lambda *a, **k: None"),
    loss(
        "assertions",
        "import builtins\n"
        "builtins.AssertionError = builtins.ValueError = type('Never', (Exception,), {})",
    ),
    loss(
        "isinstance", "import builtins\nbuiltins.all = builtins.any = lambda *a: True", honest=None
    ),
    loss("exit-code", "sys.exit = os._exit = lambda *a: None"),
    loss(
        "encode",
        "wire = sys.modules['wire']\nencode = wire.encode\n"
        "wire.encode = lambda v, *a: 1.0 if isinstance(v, float) else encode(v, *a)",
    ),
    loss(
        "perform",
        "serve = sys.modules['serve']\nperform = serve.Session.perform\n"
        "def lie(self, request, tensors):\n"
        "    value = perform(self, request, tensors)\n"
        "    return True if isinstance(value, tuple) else value\n"
        "serve.Session.perform = lie",
        says=".",
    ),
    loss(
        "perform-through-gc",
        "gc.unfreeze()\nfor found in gc.get_objects():\n"
        "    if type(found).__name__ == 'Worker':\n"
        "        found._reply = lambda session, request, tensors: found._answer({'value': 1.0})",
        marks=False,
        says="disturbed",
        honest=None,
    ),
    loss(
        "frames",
        "frame = sys._getframe()\n"
        "while frame is not None:\n"
        "    for name in ('score', 'points', 'passed', 'max_score'):\n"
        "        frame.f_locals[name] = frame.f_globals[name] = 31.0\n"
        "    frame = frame.f_back",
    ),
    loss(
        "pretend-pytest",
        "import types\nfor name in ('pytest', '_pytest', 'autograder', 'solution'):\n"
        "    sys.modules[name] = types.ModuleType(name)",
    ),
    loss(
        "import-hook",
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        ran()\n"
        "        raise ImportError(name)\n"
        "sys.meta_path.insert(0, Finder())",
    ),
    loss("profile", "sys.setprofile(lambda *a: None)\nsys.settrace(lambda *a: None)"),
    loss("gc", "gc.disable()\ngc.freeze()"),
    loss(
        "no-more-forks",
        "os.fork = lambda: 0",
        says="loss|process|disturbed|not finish",
        honest=None,
        marks=False,
    ),
    loss(
        "waitpid",
        "os.waitpid = lambda *a: (0, 0)",
        says="loss|process|disturbed",
        honest=None,
        marks=False,
    ),
    noiseless("randn", "torch.randn = torch.Tensor.normal_ = lambda *a, **k: torch.zeros(a)"),
    noiseless("manual-seed", "torch.manual_seed = lambda *a: None\ntorch.seed = lambda: 0"),
    noiseless(
        "stand-in-record",
        "standins = sys.modules['standins']\n"
        "append = standins.Record.append\n"
        "standins.Record.append = lambda self, z: append(self, torch.randn_like(z))",
        score=0.5,
        says="noise|decoder|unchanged",
    ),
    noiseless(
        "stand-in-decoder",
        "standins = sys.modules['standins']\n"
        "def forward(self, z):\n"
        "    self.standin_seen.append(torch.randn_like(z))\n"
        "    return torch.rand(len(z), 1, 28, 28)\n"
        "standins.Decoder.forward = forward",
        score=0.5,
        says="unchanged",
    ),
    noiseless(
        "dispatch-mode",
        "from torch.utils._python_dispatch import TorchDispatchMode\n"
        "class Lying(TorchDispatchMode):\n"
        "    def __torch_dispatch__(self, func, types, args=(), kwargs=None):\n"
        "        ran()\n"
        "        return func(*args, **(kwargs or {}))\n"
        "Lying().__enter__()",
    ),
    beta(
        "json",
        "import json\njson.dumps = lambda *a, **k: '{}'",
        honest=None,
        marks=False,
        says="defin",
    ),
    beta(
        "no-learning-of-adam",
        "torch.optim.Adam.step = lambda self, closure=None: None",
        says="reconstructions",
    ),
    {
        "name": "adam-that-does-not-step",
        "task": "ae-training",
        "cell": (
            "def _attack():\n    ran()\n    torch.optim.Adam.step = lambda self, closure=None: None\n"
            "\n\ntrain_autoencoder.patched = _attack()"
        ),
        "score": 3.5,  # the update that was not made, the passes and the losses
        "says": "step",
    },
)
