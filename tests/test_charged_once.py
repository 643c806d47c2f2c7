"""What costs nothing more: a reading of q that was charged for, and what only deserves a remark."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.corpus import Edit, Variant
from tests.grading import causes, grade, lost

LOG_VARIANCE = (
    Edit(old="sigma = torch.exp(log_sigma)", new="sigma = torch.exp(0.5 * log_sigma)"),
    Edit(
        old='q_mu, q_log_sigma = torch.chunk(outputs["q"], 2, dim=1)',
        new='q_mu, q_log_var = torch.chunk(outputs["q"], 2, dim=1)',
    ),
    Edit(old="kl = kl_divergence(q_mu, q_log_sigma, zeros, zeros)", new="kl = 1 + q_log_var"),
)
SCALES = {  # of the KL, and the beta that is tuned for it
    "sum": "TUNED_BETA = 1e-4 / 64",
    "mean": "TUNED_BETA = 0.0064",
}


@pytest.mark.parametrize("scale", SCALES)
def test_log_variance_throughout_leaves_a_scale_its_own_price(scale: str) -> None:
    kl = f"kl_loss = -0.5 * torch.{scale}(kl - q_mu.pow(2) - q_log_var.exp())"
    edits = (
        *LOG_VARIANCE,
        Edit(old="kl_loss = kl.sum(dim=1).mean()", new=kl),
        Edit(old="TUNED_BETA = 1e-4", new=SCALES[scale]),
    )
    made = grade(Variant(scale, "vae-loss", edits).notebook())
    assert not made.faults
    assert lost(made) == {"vae-forward": 1.0, "vae-loss": 0.75}
    named = causes(made)
    assert named["vae-forward"] == {"wrong-variance"}
    assert named["vae-loss"] == {"kl-reduction"}


@pytest.mark.parametrize("task", ["ae-training", "vae-training"])
def test_batches_that_are_kept_for_all_passes_are_remarked_on(task: str) -> None:
    for kept in (False, True):
        name = task.replace("training", "batches-of-the-first-pass-kept")
        variant = next(v for v in corpus.variants() if v.name == name)
        edits = variant.edits if kept else ()
        made = grade(Variant("kept", task, edits).notebook(), tasks=(task,))
        passes = next(r for r in made.results if r.id == "epochs")
        assert passes.passed
        assert ("gone through once" in passes.message) is kept


SHARED = """
def fit(model, data_loader, epochs, learning_rate, device, loss_of):
    optimizer = torch.optim.{optimizer}(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for x, _ in data_loader:
            x = x.to(device)
            {clear}
            loss_of(model, x).backward()
            optimizer.step()


def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    losses = []

    def loss_of(model, x):
        loss = F.mse_loss(model(x), x)
        losses.append(loss.item())
        return loss

    fit(model, data_loader, epochs, learning_rate, device, loss_of)
    return losses


def train_vae(model, data_loader, epochs, learning_rate, device):
    losses = {{"rec_loss": [], "kl_loss": []}}

    def loss_of(model, x):
        total, terms = model.loss(x, model(x))
        for name, series in losses.items():
            series.append(terms[name].item())
        return {total}

    {calls}(model, data_loader, epochs, learning_rate, device, loss_of)
    return losses
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"optimizer": "SGD"}, {"ae-training": 1.5}),
        ({"clear": "model.train()"}, {"ae-training": 1.5}),
        ({"total": "-total"}, {"vae-training": 1.5}),
        ({"clear": "model.train()", "total": "-total"}, {"ae-training": 1.5, "vae-training": 1.5}),
        ({"clear": "model.train()", "calls": "again"}, {"ae-training": 1.5, "vae-training": 1.0}),
    ],
    ids=str,
)
def test_a_loop_that_both_trainings_share_is_charged_once(
    change: dict[str, str], expected: dict[str, float]
) -> None:
    right = {
        "optimizer": "Adam",
        "clear": "optimizer.zero_grad()",
        "total": "total",
        "calls": "fit",
    }
    code = SHARED.format(**(right | change))
    if "calls" in change:  # a loop of its own
        loop = code[code.index("def fit") : code.index("def train_autoencoder")]
        code = loop.replace("fit", change["calls"]) + code
    node = corpus.as_notebook(f"{corpus.percent_source('perfect')}\n\n# %%\n{code}")
    tasks = ("ae-training", "vae-training")
    made = grade(node, tasks=tasks)
    assert not made.faults
    assert lost(made, tasks) == expected


PROMISED_INTERFACE = {  # the lines of a VAE and of its loop that another interface changes
    "returned": 'return {"q": q, "rec": rec}',
    "loss": "def loss(self, x, outputs):",
    "split": 'q_mu, q_log_sigma = torch.chunk(outputs["q"], 2, dim=1)',
    "error": 'rec_loss = F.mse_loss(outputs["rec"], x)',
    "terms": 'return total, {"rec_loss": rec_loss, "kl_loss": kl_loss}',
    "outputs": "outputs = model(x)",
    "called": "total, parts = model.loss(x, outputs)",
    "kept": 'history["rec_loss"].append(parts["rec_loss"].item())',
    "kept too": 'history["kl_loss"].append(parts["kl_loss"].item())',
}
TUPLE = {
    "returned": "return rec, mu, log_sigma",
    "split": "rec, q_mu, q_log_sigma = outputs",
    "error": "rec_loss = F.mse_loss(rec, x)",
    "outputs": "rec, mu, log_sigma = model(x)",
    "called": "total, parts = model.loss(x, (rec, mu, log_sigma))",
}
KEPT = {
    "kept": 'history["rec_loss"].append(rec_loss.item())',
    "kept too": 'history["kl_loss"].append(kl_loss.item())',
}
TRIPLE = {
    "terms": "return total, rec_loss, kl_loss",
    "called": "total, rec_loss, kl_loss = model.loss(x, outputs)",
    **KEPT,
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (TUPLE, {"vae-forward": 1.0}),
        (TRIPLE, {"vae-loss": 1.5}),
        (
            {**KEPT, **TUPLE, "terms": "return rec_loss, kl_loss, total"}
            | {"called": "rec_loss, kl_loss, total = model.loss(x, [rec, mu, log_sigma])"},
            {"vae-forward": 1.0, "vae-loss": 2.0},
        ),
        (
            TUPLE
            | {"loss": "def loss(self, rec, x, q_mu, q_log_sigma):", "split": "pass"}
            | {"called": "total, parts = model.loss(rec, x, mu, log_sigma)"},
            {"vae-forward": 1.0, "vae-loss": 2.0},
        ),
        (
            {"terms": 'return {"loss": total, "mse": rec_loss, "kld": kl_loss}'}
            | {"called": 'parts = model.loss(x, outputs); total = parts["loss"]'}
            | {"kept": PROMISED_INTERFACE["kept"].replace('parts["rec_loss"]', 'parts["mse"]')}
            | {
                "kept too": PROMISED_INTERFACE["kept too"].replace(
                    'parts["kl_loss"]', 'parts["kld"]'
                )
            },
            {"vae-loss": 2.0},
        ),
        (
            {"returned": 'return {"q": (mu, log_sigma), "rec": rec}'}
            | {"split": 'q_mu, q_log_sigma = outputs["q"]'}
            | {"outputs": 'outputs = model(x); mu, log_sigma = outputs["q"]'},
            {"vae-forward": 1.0},
        ),
        # a loop that minimises another term is wrong all the same
        (
            TRIPLE | {"called": "_, rec_loss, kl_loss = model.loss(x, outputs); total = rec_loss"},
            {"vae-loss": 1.5, "vae-training": 1.0},
        ),
        # and one that does not go with the promised model goes with nothing
        ({"called": TRIPLE["called"], **KEPT}, {"vae-training": 4.0}),
    ],
    ids=["tuple", "triple", "both", "apart", "dict", "halves", "wrong term", "loop alone"],
)
def test_an_interface_of_its_own_is_charged_once(
    change: dict[str, str], expected: dict[str, float]
) -> None:
    edits = tuple(Edit(old=PROMISED_INTERFACE[line], new=new) for line, new in change.items())
    tasks = ("vae-forward", "vae-loss", "vae-reconstruct", "vae-training")
    made = grade(Variant("interface", "vae-forward", edits).notebook(), tasks=tasks)
    assert not made.faults
    assert lost(made, tasks) == expected


@pytest.mark.parametrize(
    "name", ["ae-asks-the-device-for-its-type", "reconstruct-ends-the-noise-of-forward"]
)
def test_what_fails_in_one_respect_costs_one_check(name: str) -> None:
    mistake = next(m for m in corpus.mistakes() if m.name == name)
    made = grade(mistake.notebook(), tasks=tuple(mistake.lost))
    assert not made.faults
    assert lost(made, tuple(mistake.lost)) == dict(mistake.lost)
    assert list(causes(made).values()) == [{mistake.misconception}]


def test_an_encoder_that_cannot_be_made_costs_nothing_where_its_weights_are_asked_for() -> None:
    edits = (
        Edit(old="self.fc = nn.Linear(256, nz)", new="self.fc = nn.Lienar(256, nz)"),
        Edit(
            old="q = self.encoder(x)\n",
            new="q = self.encoder(x.to(next(self.encoder.parameters()).device))\n",
        ),
    )
    made = grade(Variant("unmade", "vae-forward", edits).notebook(), tasks=("vae-forward",))
    assert not made.faults
    assert lost(made, ("vae-forward",)) == {}


def test_code_for_a_gpu_is_charged_for_that_once_and_for_what_else_is_wrong() -> None:
    edits = (
        Edit(old="images = images.to(device)", new="images = images.cuda()"),
        Edit(old="losses.append(loss.item())", new="losses.append(loss)"),
        Edit(old="eps = torch.randn_like(sigma)", new='eps = torch.rand(sigma.shape).to("cuda")'),
    )
    tasks = ("ae-training", "vae-forward")
    made = grade(Variant("on-a-gpu", "ae-training", edits).notebook(), tasks=tasks)
    assert not made.faults
    failed = {(r.task, r.id): r.misconception for r in made.results if not r.passed}
    assert failed == {
        ("ae-training", "update"): "hard-coded-device",
        ("ae-training", "losses"): "returns-graph",
        ("vae-forward", "structure"): "hard-coded-device",
        ("vae-forward", "noise"): "uniform-noise",
    }


def test_a_gpu_that_is_the_cpu_is_not_found_and_copies_as_one_would() -> None:
    edit = Edit(
        old="            images = images.to(device)\n",
        new="""            kept = images.clone()
            moved = images.to(device="cuda:0", dtype=torch.float32)
            here = [torch.ones(2, device="cuda"), torch.ones(2).to(torch.device("cuda")), moved]
            assert {str(t.device) for t in here} == {"cpu"} and not torch.cuda.is_available()
            moved.zero_()
            images.cuda(non_blocking=True).zero_()
            images.to(0).zero_()
            assert torch.equal(images, kept)
""",
    )
    made = grade(Variant("copies", "ae-training", (edit,)).notebook(), tasks=("ae-training",))
    assert not made.faults
    assert lost(made, ("ae-training",)) == {"ae-training": 1.5}
