"""Strange values from student code: a verdict every time, never a fault of the grader's."""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest

from autograder.contract import BY_ID
from autograder.grading import Grade
from autograder.notebook import Notebook
from autograder.run import Run, perform
from autograder.submission import Submission
from tests import corpus
from tests.grading import causes, grade

VALUES = [
    "None", "True", "'text'", "b'bytes'", "3", "1e400", "float('nan')", "10**500", "object()", "[]",
    "()", "{}", "{1, 2}", "(i for i in range(3))", "[[[[[[]]]]]]", "{(1, 2): 3}", "{None: 1}",
    "{'q': 1, 'rec': 2}", "(1, {})", "(None, {'rec_loss': None, 'kl_loss': []})",
    "(torch.ones(2), {'rec_loss': torch.ones(2), 'kl_loss': 1j})", "torch.tensor(1.0)",
    "torch.zeros(0)", "torch.zeros(2, 0, 5)", "torch.ones(2, 3, dtype=torch.bool)",
    "torch.ones(4, 1, 28, 28, dtype=torch.float64)", "torch.ones(4, 1, 28, 28).half()",
    "torch.full((4, 1, 28, 28), float('nan'))", "torch.ones(3, dtype=torch.complex64)",
    "torch.ones(3, 3).to_sparse()", "torch.ones(3, device='meta')", "torch.ones(1, 1, 1, 1, 1, 1)",
    "torch.ones(2, 2).expand(5, 2, 2)",
    "__import__('numpy').ones(3)", "__import__('numpy').float32(1)",
    "{'q': torch.ones(3, 4, dtype=torch.int8), 'rec': torch.ones(3, 1, 28, 28, dtype=torch.int64)}",
    "{'rec_loss': torch.ones(3), 'kl_loss': 'x'}", "{'rec_loss': [None], 'kl_loss': [[1]]}",
    "nn.Linear(2, 2)", "lambda *a, **k: None", "type", "[1.0] * 100000",
    "_circular",
]  # fmt: skip
# where a value is returned from, and the task that looks at it
PLACES = {
    "Encoder.forward": "encoder",
    "Decoder.forward": "decoder",
    "make_data_loader": "data-loader",
    "train_autoencoder": "ae-training",
    "sample_images": "ae-sampling",
    "VAE.forward": "vae-forward",
    "VAE.loss": "vae-loss",
    "VAE.reconstruct": "vae-reconstruct",
    "train_vae": "vae-training",
    "Encoder": "encoder",
    "VAE": "vae-loss",
    "TUNED_BETA": "beta-tuning",
}


def graded(edit: str, task: str) -> Grade:
    node: nbformat.NotebookNode = corpus.submission("perfect")
    cells = [c.source for c in node.cells if c.cell_type == "code"]
    cells += [
        "import torch\nfrom torch import nn\n_circular = []\n_circular.append(_circular)",
        edit,
    ]
    submission = Submission(cells, boxed=False)
    run = Run(Grade(Notebook("vae.ipynb", cells)), submission, 1)
    try:
        perform(run, (task,))
    finally:
        submission.close()
    return run.grade


def returned(place: str) -> Callable[[str], str]:
    if place == "TUNED_BETA":
        return lambda value: f"TUNED_BETA = {value}"
    return lambda value: f"{place} = lambda *a, **k: {value}"


@pytest.mark.parametrize("place", PLACES)
def test_what_is_returned_may_be_anything(place: str) -> None:
    """All values in turn, in one notebook a place: the n-th call gives the n-th value."""
    if place == "TUNED_BETA":
        for value in VALUES[:12:3]:
            made = graded(returned(place)(value), PLACES[place])
            assert not made.faults, [f.message for f in made.faults]
        return
    edit = (
        "_values = [" + ", ".join(f"lambda: {value}" for value in VALUES) + "]\n"
        "_calls = [0]\n"
        "def _strange(*a, **k):\n"
        "    _calls[0] += 1\n"
        "    return _values[(_calls[0] + _offset) % len(_values)]()\n"
        f"{place} = _strange\n"
    )
    for offset in range(0, len(VALUES), 11):
        made = graded(f"_offset = {offset}\n{edit}", PLACES[place])
        assert not made.faults, [f.message for f in made.faults]
        assert made.score(BY_ID[PLACES[place]]) < BY_ID[PLACES[place]].points


@pytest.mark.parametrize("value", ["h.sum()", "h[:0]", "None", "torch.ones(74, dtype=torch.bool)"])
def test_a_large_batch_may_be_answered_with_anything(value: str) -> None:
    source = corpus.percent_source("perfect")
    old = "        return self.up4(h)\n"
    assert source.count(old) == 1
    new = f"        return {value} if self.training and len(h) == 74 else self.up4(h)\n"
    made = grade(corpus.as_notebook(source.replace(old, new)), tasks=("decoder",))
    assert not made.faults


@pytest.mark.parametrize("row", ["torch.full((259,), 1j)", "torch.ones(259).bool()", "'text'"])
def test_what_a_model_noted_may_be_anything(row: str) -> None:
    source = corpus.percent_source("perfect")
    old = "    return losses\n"
    assert source.count(old) == 1
    source = source.replace(old, f"    model.noted = [{row}]\n    return losses\n")
    made = grade(corpus.as_notebook(source), tasks=("ae-training",))
    assert not made.faults


GIVEN = ["[torch.ones(7, 1, 28, 28).cfloat()] * 2", "[None, 1]", "'text'"]


@pytest.mark.parametrize("row", GIVEN)
def test_what_a_model_was_given_may_be_anything(row: str) -> None:
    source = corpus.percent_source("perfect")
    for old, new in (
        ("    return losses\n", f"    model.given = 4 * [{row}]\n    return losses\n"),
        ("images = images.to(device)\n", "images = torch.bernoulli(images).to(device)\n"),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    made = grade(corpus.as_notebook(source), tasks=("ae-training",))
    assert not made.faults
    assert causes(made)["ae-training"] >= {"wrong-target"}
