"""Lying tensors and lying objects: what is returned, and what is said of it."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.endings import sampling

RIGHT = "right = torch.randn(anything[1], 1, 28, 28)\n"


def image(name: str, body: str, says: str = ".", **rest: object) -> dict[str, object]:
    """`sample_images` of an object made of images that no decoder gave; the size may be right."""
    return sampling(name, RIGHT + body, says, **rest)


def loss(name: str, body: str, says: str = "kl_loss", **rest: object) -> dict[str, object]:
    """A loss whose terms lie."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    cell = f"def _loss(self, x, outputs):\n    ran()\n{lines}\n\nVAE.loss = _loss\n"
    return {"name": name, "task": "vae-loss", "cell": cell, "says": says, **rest}


ATTACKS = family(
    "tensor",
    image(
        "torch-function",
        "class Lie(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, func, types, args=(), kwargs=None): return True\n"
        "return right.as_subclass(Lie)",
    ),
    image(
        "shape",
        "class Lie(torch.Tensor):\n    shape = (anything[1], 1, 28, 28)\n"
        "return torch.zeros(3).as_subclass(Lie)",
    ),
    image(
        "torch-dispatch",
        "class Lie(torch.Tensor):\n"
        "    @staticmethod\n"
        "    def __new__(cls, t):\n"
        "        return torch.Tensor._make_wrapper_subclass(cls, t.shape, dtype=t.dtype)\n"
        "    @classmethod\n"
        "    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return right\n"
        "return Lie(right)",
    ),
    image("sparse", "return right.to_sparse()"),
    image("quantized", "return torch.quantize_per_tensor(right, 0.1, 0, torch.quint8)"),
    image("meta", "return right.to('meta')"),
    image("complex", "return right.to(torch.complex64)"),
    image("float8", "return right.to(torch.float8_e4m3fn)"),
    image("huge-view", "return torch.zeros(1).expand(2**40)", marks=False),
    image("many-dimensions", "return torch.zeros([1] * 60)", marks=False),
    image("large", "return torch.zeros(1, dtype=torch.uint8).expand(300 << 20)", marks=False),
    image("endless-list", "return type('L', (list,), {'__iter__': lambda s: iter(int, 1)})()",
          "not finish|memory|process", marks=False),
    image("endless-dict", "return type('D', (dict,), {'items': lambda s: iter(lambda: (1, 2), 0)})()",
          "not finish|memory|process", marks=False),
    image("float-that-exits", "return type('F', (), {'__float__': lambda s: os._exit(0)})()",
          "ended", marks=False),
    image("class-that-lies", "return type('F', (), {'__class__': torch.Tensor})()"),
    image("numpy-objects", "import numpy\nreturn numpy.array([object()])"),
    loss("equal-to-all", "one = type('One', (float,), {'__eq__': lambda a, b: True})(1.0)\n"
         "return one, {'rec_loss': one, 'kl_loss': one}"),
    loss("nan", "nan = outputs['q'].sum() * float('nan')\n"
         "return nan, {'rec_loss': nan, 'kl_loss': nan}", says="ordinary"),
    loss("infinite", "inf = outputs['q'].sum() * float('inf')\n"
         "return inf, {'rec_loss': inf, 'kl_loss': inf}", says="ordinary"),
    loss("other-each-time", "state = vars(self).setdefault('turns', [])\nstate.append(1)\n"
         "one = outputs['q'].sum() * 0 + len(state)\n"
         "return one, {'rec_loss': one, 'kl_loss': one}"),
    loss("hook", "one = outputs['q'].sum().requires_grad_() * 0\none.register_hook(lambda g: ran())\n"
         "return one, {'rec_loss': one, 'kl_loss': one}"),
    {
        "name": "view-that-changes",
        "task": "ae-sampling",
        "cell": (
            "def sample_images(model, num_samples, nz):\n"
            "    ran()\n"
            "    images = model.decoder(torch.zeros(num_samples, nz))\n"
            "    z = torch.randn(num_samples, nz)\n"
            "    model.decoder.standin_seen[-1] = z\n"
            "    return images\n"
        ),
        "score": 0.5,
        "says": "nothing to do",
    },
    {
        "name": "latents-on-the-workers-word",
        "task": "vae-forward",
        "cell": (
            "def _forward(self, x):\n"
            "    ran()\n"
            "    q = self.encoder(x)\n"
            "    rec = self.decoder(torch.zeros(len(x), self.nz))\n"
            "    mu, s = q.chunk(2, 1)\n"
            "    self.decoder.standin_seen[-1] = mu + s.exp() * torch.randn_like(s)\n"
            "    return {'q': q, 'rec': rec}\n"
            "\n\nVAE.forward = _forward\n"
        ),
        "says": "nothing to do|latent",
    },
)  # fmt: skip
