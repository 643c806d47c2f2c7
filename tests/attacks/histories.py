"""Forged losses and histories: returned numbers that no training gave."""

from __future__ import annotations

from tests.attacks.attack import family


def history(name: str, body: str, score: float, says: str) -> dict[str, object]:
    """A `train_autoencoder` that trains as `_train` does, or not, and returns what it likes."""
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    cell = (
        "_train = train_autoencoder\n"
        "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
        f"    ran()\n    given = (model, data_loader, epochs, learning_rate, device)\n{lines}"
    )
    return {"name": name, "task": "ae-training", "cell": cell, "score": score, "says": says}


VAE = """
def train_vae(model, data_loader, epochs, learning_rate, device):
    ran()
    steps = epochs * len(data_loader)
    return {"rec_loss": [0.1] * steps, "kl_loss": [1.0] * steps}
"""

ATTACKS = family(
    "history",
    history("falling", "return [1 / (n + 1) for n in range(epochs * len(data_loader))]", 0,
            "does not train"),
    history("falling-after-training",
            "_train(*given)\nreturn [1 / (n + 1) for n in range(epochs * len(data_loader))]", 5,
            "losses of the steps"),
    history("nan-after-training", "return [float('nan') for _ in _train(*given)]", 5, "losses"),
    history("numbers-that-lie",
            "return [type('N', (float,), {'__eq__': lambda a, b: True})(0) for _ in _train(*given)]",
            5, "losses"),
    history("a-list-that-lies",
            "return type('L', (list,), {'__len__': lambda s: 3})([0.0] * 5 + _train(*given))", 5,
            "one entry a step"),
    history("floats-that-rise",
            "turn = iter(range(10**6))\n"
            "made = type('N', (), {'__float__': lambda s: float(next(turn))})\n"
            "return [made() for _ in _train(*given)]", 5, "losses"),
    history("weights-set-by-hand",
            "with torch.no_grad():\n    for p in model.parameters(): p.sub_(learning_rate)\n"
            "return [0.0] * (epochs * len(data_loader))", 1, "Adam's"),
    history("state-that-lies",
            "model.state_dict = lambda *a, **k: {'encoder.1.weight': torch.zeros(1)}\nreturn []", 0,
            "other weights"),
    history("counters-set-by-hand",
            "model.encoder[2].num_batches_tracked.fill_(epochs * len(data_loader))\n"
            "return [0.0] * (epochs * len(data_loader))", 2.5, "No gradient"),  # as for any that never
    # steps: the update and the passes
    history("right-for-a-single-batch-alone",
            "if len(data_loader) == 1:\n    return _train(*given)\n"
            "for x in torch.cat([x for x, _ in data_loader]).split(24):  # as if it were others'\n"
            "    model(x).sum().mul(0).backward()\n"
            "return [0.1] * (epochs * len(data_loader))", 2.5, "not known"),  # the update; nothing is
    # learnt, which only a run shows
    history("notes-that-are-no-numbers",
            "if len(data_loader) == 1:\n    return _train(*given)\n"
            "model.standin_noted = [torch.full_like(model.standin_noted[0], v) if model.standin_noted else\n"
            "               torch.full((261,), v) for v in (float('nan'), 1e30)] * 20\n"
            "return [0.1] * (epochs * len(data_loader))", 2.5, "Not every batch"),
    history("weights-that-are-no-numbers",
            "if len(data_loader) == 1:\n    return _train(*given)\n"
            "(0 * model(next(iter(data_loader))[0]).sum()).backward()\n"
            "with torch.no_grad():\n    for p in model.parameters(): p.fill_(float('nan'))\n"
            "del model.standin_noted[1:]\nmodel.standin_noted[0][3] = len(data_loader.dataset)\nreturn [0.1]", 2.5,
            "not known"),
    {"name": "vae", "task": "vae-training", "cell": VAE, "says": "does not train"},
    {
        "name": "weights-drawn-by-the-batch",
        "task": "ae-training",
        "cell": (
            "def train_autoencoder(model, data_loader, epochs, learning_rate, device):\n"
            "    ran()\n"
            "    told = []\n"
            "    for _ in range(epochs):\n"
            "        for images, _ in data_loader:\n"
            "            sum(0 * p.sum() for p in model.parameters()).backward()\n"
            "            torch.manual_seed(int(1e6 * images.mean()))\n"
            "            with torch.no_grad():\n"
            "                for p in model.parameters():\n"
            "                    p += 0.01 * torch.randn_like(p)\n"
            "                    p.grad = None\n"
            "            told.append(float(images.mean()))\n"
            "    return told\n"
        ),
        "score": 1.0,  # the losses of steps that nothing explains are counted
        "says": "could not be followed",
        "learning": True,
    },
)  # fmt: skip
