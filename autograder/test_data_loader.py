"""`make_data_loader(dataset, batch_size, num_workers=0)`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from autograder.checks import check
from autograder.compare import described
from autograder.draws import Draws
from autograder.loss_series import number
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import numbers_read
from autograder.submission import Session
from autograder.worker.wire import Handle

EPOCHS = 3
# At least 60 examples are drawn. A permutation of them repeats another with probability 1 / 60!.
# The correlation of place and index has a standard deviation of 1 / sqrt(n - 1), at most 0.13, and
# passes r with probability below 2 exp(-n r^2 / 2), 1e-9 here; their mean over three epochs passes
# MOST_ON_AVERAGE with one below 2 exp(-3 n r^2 / 2), 4e-10. Three equal batches of five are less
# likely than 1e-14. How often the next example of the dataset comes next is nearly Poisson of mean
# 1: twenty times with a probability below 1 / 20!.
MOST_CORRELATION = 0.85
MOST_ON_AVERAGE = 0.5
MOST_NEIGHBOURS = 20


def _epochs(
    session: Session, size: int, batch_size: int, unchanged: bool = False
) -> list[list[list[int]]]:
    """The indices in every batch of every epoch; raises `Wrong`.

    unchanged: whether images that are not as the dataset has them are wrong.
    """
    make = session.read("make_data_loader")
    try:
        loader = session.call(make, session.make("Numbered", size), batch_size)
    except Raised as error:
        if session.misreads_arguments("make_data_loader"):
            text = "`make_data_loader` should take dataset, batch_size, num_workers, in this order."
            raise Unchecked(text, "wrong-signature") from error
        if "'Absent'" in error.text and _reads_data(session):
            text = "The batches come from a dataset of the notebook, not from the one handed in."
            raise Unchecked(text, "hidden-global") from error
        raise
    if not isinstance(loader, Handle):
        text = f"`make_data_loader` should return a DataLoader, not {described(loader)}."
        raise Wrong(text, "wrong-return")
    try:
        passes = [session.iterate(loader, 3 * size) for _ in range(EPOCHS)]
    except Raised as error:
        if error.where or "not iterable" not in error.text:
            raise
        text = f"`make_data_loader` should return a DataLoader, not {described(loader)}."
        raise Wrong(text, "wrong-return") from error
    epochs = [[_indices(session, batch, size) for batch in batches] for batches in passes]
    same = all(map(_has_its_images, itertools.chain(*passes)))
    if not same and _reads_data(session):
        text = "The batches come from a dataset of the notebook, not from the one handed in."
        raise Wrong(text, "hidden-global")
    if not any(itertools.chain(*epochs)):
        raise Wrong(f"Of a dataset of {size} examples, none comes.", "drops-data")
    odd = {tuple(batch[0].shape[1:]) for batch in itertools.chain(*passes) if same}
    odd.discard((1, 28, 28))
    if unchanged and odd:
        shape = next(iter(odd))
        text = f"The images of a batch should be (1, 28, 28), as in the dataset, not {shape}."
        raise Wrong(text, "wrong-shape")
    if unchanged and not same:
        text = "The images of a batch should be those of the dataset, unchanged."
        raise Wrong(text, "wrong-return")
    if epochs[0] and not all(epochs):
        text = "The loader can be gone through once only; return the DataLoader, not an iterator."
        raise Wrong(text, "wrong-return")
    return epochs


def _indices(session: Session, batch: Any, size: int) -> list[int]:
    if not isinstance(batch, list | tuple) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        if _reads_data(session):
            text = "The batches come from a dataset of the notebook, not from the one handed in."
            raise Wrong(text, "hidden-global")
        raise Wrong("Batches should be pairs of images and labels.", "wrong-return")
    if batch[1].is_floating_point():
        raise Wrong("The labels of a batch should be as the dataset has them.", "wrong-return")
    if not isinstance(batch[0], Tensor) or batch[0].shape[:1] != (batch[1].numel(),):
        raise Wrong("A batch should have one image for every label.", "wrong-return")
    if batch[1].numel() > size:
        raise Wrong(f"Of {size} examples, a batch has {batch[1].numel()}.", "wrong-batch-size")
    return [int(i) for i in batch[1].flatten()]


def _has_its_images(batch: Any) -> bool:
    """Whether every image holds its own index, as `Numbered` has it, in any shape."""
    images, labels = batch
    if not isinstance(images, Tensor) or images.numel() != labels.numel() * 784:
        return False
    rows = images.reshape(labels.numel(), 784).double()
    return bool((rows == labels.reshape(-1, 1)).all())


def _sizes(draws: Draws) -> tuple[int, int]:
    """A dataset that the batch size does not divide, and a batch size other than 64."""
    batch_size = draws.integer(5, 29)
    return batch_size * draws.integer(12, 15) + draws.integer(1, batch_size - 1), batch_size


@check("data-loader", "batches", 0.5)
def test_batches(session: Session, draws: Draws) -> None:
    """Every example once an epoch, unchanged, in batches of `batch_size`."""
    usual, large, small = _sizes(draws), draws.integer(130, 300), draws.integer(2, 4)
    # the largest first: whatever takes a fixed number of examples fails otherwise for few
    for size, batch_size in ((3 * large + 1, large), usual, (13 * small + 1, small)):
        for batches in _epochs(session, size, batch_size, unchanged=True):
            _check_batches(session, draws, batches, size, batch_size)
    _check_length(session, draws)
    size, batch_size = usual
    sampled = _sampled(session, size, batch_size, 3)
    if sampled is not None and _are_odd([len(batch) for batch in sampled], batch_size):
        text = "With worker processes the batches are of another size than asked for."
        raise Wrong(text, "wrong-batch-size")
    if sampled is not None and sum(map(len, sampled)) < size:
        raise Wrong("With worker processes some examples are left out.", "drops-data")


def _check_length(session: Session, draws: Draws) -> None:
    """A loader that knows its length knows of every batch of a dataset larger than MNIST."""
    size, batch_size = draws.integer(60_001, 90_000), draws.integer(30, 300)
    make = session.read("make_data_loader")
    try:
        loader = session.call(make, session.make("Numbered", size), batch_size)
        seen = session.call(session.handle(loader, "__len__"))
    except Stopped:
        raise
    except Unchecked:
        return  # not every iterable has a length
    if isinstance(seen, int) and seen < math.ceil(size / batch_size):
        text = f"Of {size} examples, not all are in the {seen} batches of {batch_size}."
        raise Wrong(text, "drops-data")


def _list(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)[:5]))


def _reads_data(session: Session) -> bool:
    """Whether the function reads a variable of the notebook that may be a dataset: a hint."""
    return bool({"value", "undefined"} & set(session.reads("make_data_loader").values()))


def _check_batches(
    session: Session, draws: Draws, batches: list[list[int]], size: int, batch_size: int
) -> None:
    seen = sorted(index for batch in batches for index in batch)
    widths = [len(batch) for batch in batches]
    if _are_odd(widths, batch_size):
        text = f"Asked for batches of {batch_size}, got batches of {_list(set(widths))}."
        if _follows_variable(session, draws):
            text = "The batch size comes from a variable of the notebook, not from the argument."
            raise Wrong(text, "hidden-global")
        raise Wrong(text, "wrong-batch-size")
    if seen != list(range(size)):
        lost = size - len(set(seen))
        raise Wrong(
            f"Of {size} examples {lost} are missing in an epoch, and {len(seen) - len(set(seen))} "
            "come twice.",
            "drops-data",
        )


def _are_odd(widths: list[int], batch_size: int) -> bool:
    """Whether other batches than a smaller last one, wherever it comes, are of another size."""
    odd = [width for width in widths if width != batch_size]
    return len(odd) > 1 or max(odd, default=0) > batch_size


def _follows_variable(session: Session, draws: Draws) -> bool:
    for name in numbers_read(session, "make_data_loader"):
        before = session.read(name)
        session.set_global(name, 7)
        try:
            follows = [len(batch) for batch in _epochs(session, 100, 31)[0][:1]] == [7]
        except (NotAttempted, Stopped):
            raise
        except Unchecked:
            follows = False
        finally:
            session.set_global(name, before)
        if follows:
            return True
    return False


@check("data-loader", "shuffling", 0.5)
def test_shuffling(session: Session, draws: Draws) -> None:
    """The order is random, and another one every epoch."""
    size, batch_size = _sizes(draws)
    epochs = _epochs(session, size, batch_size)
    orders = [[i for batch in epoch for i in batch] for epoch in epochs]
    if any(order == sorted(order) for order in orders):
        raise Wrong("The examples come in the order of the dataset.", "not-shuffled")
    if any(first == second for first, second in itertools.pairwise(orders)):
        text = "The order is the same in every epoch; it should be drawn afresh."
        raise Wrong(text, "not-shuffled")
    found = [_rank_correlation(order) for order in orders]
    on_average = abs(sum(found)) / len(found)
    if max(map(abs, found)) > MOST_CORRELATION or on_average > MOST_ON_AVERAGE:
        text = "The examples come nearly in the order of the dataset; draw from all of it."
        raise Wrong(text, "not-shuffled")
    if any(_neighbours(order) >= MOST_NEIGHBOURS for order in orders):
        text = "Neighbours of the dataset come one after the other; shuffle the examples."
        raise Wrong(text, "not-shuffled")
    if any(_common(first, second) >= 3 for first, second in itertools.pairwise(epochs)):
        text = "The same examples share a batch in every epoch; shuffle examples, not batches."
        raise Wrong(text, "not-shuffled")
    _check_with_workers(session, draws)
    _check_large(session, draws)


def _check_large(session: Session, draws: Draws) -> None:
    """The first batches of a dataset larger than MNIST do not come in its order."""
    size, batch_size = draws.integer(60_001, 90_000), draws.integer(30, 300)
    batches = _sampled(session, size, batch_size, 0, 3)
    order = [i for batch in batches or [] for i in batch]
    if len(order) >= 60 and order == sorted(order):  # by chance, in one of 60! at most
        text = f"Of {size} examples the first batches come in their order; shuffle them."
        raise Wrong(text, "not-shuffled")


def _check_with_workers(session: Session, draws: Draws) -> None:
    """A DataLoader that draws its indices at random does so with worker processes, too."""
    size, batch_size = _sizes(draws)
    sampled = [_sampled(session, size, batch_size, workers) for workers in (0, 2)]
    orders = [[i for batch in batches or [] for i in batch] for batches in sampled]
    in_order = [order == list(range(size)) for order in orders]
    if in_order == [False, True]:
        text = "With worker processes the examples come in the order of the dataset."
        raise Wrong(text, "not-shuffled")


def _sampled(
    session: Session, size: int, batch_size: int, workers: int, most: int | None = None
) -> list[list[int]] | None:
    """The batches of indices, or the first `most`, that a DataLoader draws; None if not known."""
    make = session.read("make_data_loader")
    try:
        loader = session.call(make, session.make("Numbered", size), batch_size, workers)
        batches = session.iterate(session.handle(loader, "batch_sampler"), most or 3 * size)
    except Stopped:
        raise
    except Unchecked:
        return None
    found = [_whole_numbers(batch, 3 * size) for batch in batches]
    return None if None in found else [batch for batch in found if batch is not None]


def _whole_numbers(batch: Any, most: int) -> list[int] | None:
    """The numbers of a batch, a sequence or a tensor of them; None where it is something else."""
    if isinstance(batch, Tensor):
        batch = list(batch.flatten()) if batch.numel() <= most else None
    if not isinstance(batch, list | tuple) or len(batch) > most:
        return None
    numbers = [number(i) for i in batch]
    whole = [int(n) for n in numbers if n is not None and n.is_integer()]
    return whole if len(whole) == len(batch) else None


def _rank_correlation(order: list[int]) -> float:
    """Of place and index, 0 on average for a random order."""
    pairs = torch.tensor([list(range(len(order))), order], dtype=torch.float64)
    return float(torch.corrcoef(pairs)[0, 1])


def _neighbours(order: list[int]) -> int:
    """How often the next example, or the one before, of the dataset comes next."""
    steps = [b - a for a, b in itertools.pairwise(order)]
    return max(steps.count(1), steps.count(-1))


def _common(first: list[list[int]], second: list[list[int]]) -> int:
    """How many batches of two epochs hold the same examples."""
    sets = ({frozenset(batch) for batch in epoch if len(batch) >= 5} for epoch in (first, second))
    return len(set.intersection(*sets))
