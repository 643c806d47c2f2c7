"""Which training was it? The recipe that gives the student's weights on every draw.

That recipe is what the student wrote, whatever it looks like.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from autograder import first_step
from autograder.recipes import (
    AE_CRITERIA,
    AT_STEPS,
    CHOICES,
    EPOCHS,
    INPUTS,
    NOTED,
    OPTIMISERS,
    OWN_VAE_CRITERIA,
    PART_MODES,
    ROWS,
    TOLD,
    VAE_CRITERIA,
    Recipe,
)
from autograder.replay import RARE, Course, State, train
from autograder.worker import standins

TOLERANCE = 3e-3  # of how far a weight moved: rounding stays below a tenth of it
SHAKEN = 3  # times: where a gradient's sign is in doubt, one time in two turns it


def _frozen(course: Course, seen: State) -> str:
    """What did not move, of a model of which something else did."""
    weights = [n for n in course.state if not is_statistic(n)]
    moved = {n for n in weights if not torch.equal(seen[n], course.state[n])}
    if not moved:
        return ""
    halves = {n.partition(".")[0] for n in weights} - {n.partition(".")[0] for n in moved}
    single = [n for n in weights if n not in moved and n.partition(".")[0] not in halves]
    return ", ".join([*sorted(halves), *single])


def cuts(course: Course, seen: State) -> tuple[int, ...] | None:
    """After how many batches each pass ended, of a training that is as promised but for that."""
    passes = len(course.notes) - 1
    for found in itertools.product(range(len(course.batches), 0, -1), repeat=course.epochs):
        if sum(found) == passes and same(course, seen, train(course, Recipe(), cuts=found).state):
            return found
    return None


def stops_after(course: Course, seen: State) -> int | None:
    """After how many steps of the promised training the weights are the seen ones."""
    found: list[int] = []

    def look(step: int, model: Any) -> None:
        if same(course, seen, model.state_dict()):
            found.append(step)

    train(course, Recipe(), look)
    return found[0] if found else None


def goes_as_promised(courses: list[Course]) -> bool:
    """Whether every step was noted as promised, though other weights were left in the end."""
    return any(map(_ends_elsewhere, courses)) and all(map(_goes_as_promised, courses))


def _goes_as_promised(course: Course) -> bool:
    """Whether the weights noted at every backward pass are as promised, whatever the end is."""
    expected = [standins.sample(course.state["decoder.0.weight"])]

    def look(step: int, model: Any) -> None:
        expected.append(standins.sample(model.state_dict()["decoder.0.weight"].clone()))

    train(course, Recipe(), look)
    seen = [note.weights for note in course.notes[:-1]]
    if len(seen) != len(expected) - 1 or not all(note.training for note in course.notes[:-1]):
        return False
    way = float((expected[-1] - expected[0]).norm())
    apart = [float((a - b).norm()) for a, b in zip(seen, expected, strict=False)]
    return max(apart) <= TOLERANCE * way


def _ends_elsewhere(course: Course) -> bool:
    """Whether the weights noted at the end are not those that the promised training leaves."""
    expected = standins.sample(course.promised.state["decoder.0.weight"])
    way = float((expected - standins.sample(course.state["decoder.0.weight"])).norm())
    end = course.notes[-1].weights if course.notes else expected
    return float((end - expected).norm()) > 10 * TOLERANCE * way


def changes_mode(course: Course, seen: State) -> bool:
    """Whether it is the promised training, but for steps in eval mode."""
    return _fits(course, seen, Recipe(mode=NOTED))


def uses_first_rows(course: Course, seen: State, count: int) -> bool:
    """Whether it is the promised training on the first rows of every batch."""
    return _fits(course, seen, Recipe(rows=str(count)))


def is_steady(course: Course) -> bool:
    """Whether the promised training hardly depends on how its numbers are rounded.

    It is run again, some times, from weights that differ by a millionth, far more than another
    spelling of the same steps does; what comes of that must stay below a tenth of the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(SHAKEN):
        shaken = {
            name: v * (1 + 1e-6 * torch.randn(v.shape, generator=generator))
            if v.is_floating_point()
            else v
            for name, v in course.state.items()
        }
        left = train(replace(course, state=shaken), Recipe()).state
        back = {n: v - shaken[n] + course.state[n] for n, v in left.items()}
        if not same(course, back, course.promised.state, TOLERANCE / 10):
            return False
    return True


def optimiser_of(course: Course, seen: State) -> str | None:
    """The optimiser, other than Adam, that gives the seen weights in a long training."""
    if same(course, seen, course.promised.state):
        return "Adam with amsgrad"
    for name in OPTIMISERS:
        if _fits(course, seen, Recipe(optimiser=name)):
            return name
    return None


def changes_rate(course: Course, seen: State) -> bool:
    """Whether the rate is another than asked for, at some steps or all, as told or as replayed."""
    told = [rate for t in course.told if isinstance(rate := t.options.get("lr"), int | float)]
    if any(abs(rate - course.rate) > 1e-6 * course.rate for rate in told):
        return True
    return _fits(course, seen, Recipe(decay=NOTED))


def criterion_of(course: Course, seen: State) -> str | None:
    """What else than the promised loss gives the seen weights when it is minimised."""
    others = (name for name in _criteria(course) if name != "promised")
    return next((name for name in others if _fits(course, seen, Recipe(criterion=name))), None)


def keeps_second_moments(course: Course, seen: State) -> bool:
    """Whether a training on `draw_long` is nearer to Adam with amsgrad than to Adam.

    They differ in the encoder's weights for the pixels of `RARE` alone, by 0.004 of the way;
    rounding comes to 0.0003 of it.
    """
    name = "encoder.1.weight"

    def apart(other: State) -> float:
        return float((seen[name] - other[name])[:, RARE].double().norm())

    right = apart(course.promised.state)
    if right < 0.001 * apart(course.state):  # nearer than the two are to one another
        return False
    return apart(train(course, Recipe(optimiser="Adam with amsgrad")).state) < right


def same(course: Course, seen: State, expected: State, tolerance: float = TOLERANCE) -> bool:
    """Whether two trainings left the same weights, each measured by how far it moved.

    Running statistics are no weights: a look at a batch beforehand moves them, and is free.
    """
    if set(seen) != set(expected):
        return False
    for name, value in expected.items():
        other = seen[name]
        if is_statistic(name):
            continue
        if other.shape != value.shape:
            return False
        start, end = course.state[name].double(), value.double()
        moved = (end - start).norm()
        least = 1e-6 * start.norm() + 1e-9
        if not float((other.double() - end).norm()) <= tolerance * float(moved) + float(least):
            return False
    return True


def is_statistic(name: str) -> bool:
    """Whether a name is one of batch norm's running statistics."""
    return "running" in name or "num_batches" in name


def explain_by_images(courses: list[Course], seen: list[State]) -> Recipe | None:
    """The recipe of trainings whose inputs are each batch, but changed; of noted images."""
    if not all(map(_resembles, courses)):
        return None
    found = [Recipe(inputs=NOTED, target=NOTED)]
    if courses[0].kind == "TinyAutoEncoder":
        found.insert(0, Recipe(inputs=NOTED))
    found = [recipe for recipe in found if _fits(courses[0], seen[0], recipe)]
    further = _extended(found, 1)
    return next((r for r in (*found, *further) if fits(courses, seen, r)), None)


ALIKE = 0.1  # the least correlation of an image with what was made of it, by large noise, too


def _resembles(course: Course) -> bool:
    """Whether inputs and targets noted for every step are made of the images of its batch."""
    places = list(itertools.chain.from_iterable(course.places))
    if len(course.given) != len(places):
        return False
    known = _centred(course.images)
    for i, pair in zip(places, course.given, strict=True):
        first = i * course.batch_size
        size = len(course.batches[i])
        for images in pair:
            if len(images) != size:
                return False
            best, where = (_centred(images) @ known.T).max(1)
            if not bool(((best > ALIKE) & (where >= first) & (where < first + size)).all()):
                return False
    return True


def _centred(images: Tensor) -> Tensor:
    """Rows of pixels of mean 0 and length 1."""
    rows = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    return nn.functional.normalize(rows)


def moved(course: Course, seen: State) -> bool:
    """Whether any weight (not a running statistic) changed."""
    return any(
        not torch.equal(seen[name], value)
        for name, value in course.state.items()
        if name in seen and not is_statistic(name)
    )


def fits(courses: list[Course], seen: list[State], recipe: Recipe) -> bool:
    """Whether a recipe gives the seen weights every time."""
    pairs = list(zip(courses, seen, strict=True))
    return all(_fits(c, s, recipe) for c, s in pairs[1:] + pairs[:1])  # the first tells least


def explain(courses: list[Course], seen: list[State]) -> Recipe | None:
    """The recipe, with as few deviations as possible, that gives the seen weights every time.

    The first course has a single batch and a single pass. What explains it is combined with
    whatever shows only on several batches or passes.
    """
    if all(same(c, s, c.promised.state) for c, s in zip(courses, seen, strict=True)):
        return Recipe()
    if goes_as_promised(courses):  # then no step gave what was left, unless the last is to come
        delayed = Recipe(steps="delayed")
        return delayed if fits(courses, seen, delayed) else None
    first = [r for r in _single_steps(courses[0], seen[0]) if _fits(courses[0], seen[0], r)]
    first.sort(key=lambda r: len(r.deviations()))
    for recipe in _combined(
        first, [Recipe(optimiser=TOLD)] if all(c.told for c in courses) else []
    ):
        if fits(courses, seen, recipe):
            return recipe
    return None


def _fits(course: Course, state: State, recipe: Recipe) -> bool:
    try:
        return same(course, state, train(course, recipe).state)
    # a criterion outside its domain, or an option of a claim
    except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError):
        return False


def _single_steps(course: Course, seen: State) -> Iterator[Recipe]:
    """Recipes for one batch and one pass: the promise, and one deviation in the update."""
    aspects = ("optimiser", "target")
    singles = [Recipe()]
    singles += [_deviating((name, c)) for name in aspects for c in CHOICES[name]]
    singles = [r for r in singles if r.target != "own output"]
    singles += [Recipe(criterion=name) for name in _criteria(course) if name != "promised"]
    singles += [Recipe(rows=name) for name in ROWS if name != "all"]
    if course.kind == "TinyVariational":
        singles += [Recipe(warm=name) for name in CHOICES["warm"]]
    singles += [Recipe(inputs=name) for name in INPUTS]
    singles += [Recipe(inputs=name, target=name) for name in INPUTS]
    singles += [Recipe(frozen=_frozen(course, seen))]
    singles += [_part_rates(course, seen)]
    singles += [Recipe(rate=_rate_factor(course, seen))]
    factor = first_step.scale_factor(course, seen)
    singles += [Recipe(scale=factor), Recipe(per_row=factor / len(course.batches[0]))]
    if course.told and all(told.options.get("eps") == first_step.EPSILON for told in course.told):
        # a larger one looks like a smaller loss: the optimiser's own word tells them apart
        singles = [r for r in singles if "eps" not in r.optimiser]
    for recipe in singles:
        for mode, epochs, steps in itertools.product(
            ("train", "eval"), _passes(course, seen), ("batch", "never", "twice")
        ):
            if steps == "batch" or not recipe.deviations():
                yield replace(recipe, mode=mode, epochs=epochs, steps=steps)
    yield from (Recipe(batches=which) for which in ("all but the last", "all but the first"))
    yield Recipe(batches="each twice")
    yield from (Recipe(mode=mode) for mode in PART_MODES)


def _deviating(*chosen: tuple[str, str], base: Recipe | None = None) -> Recipe:
    changes: dict[str, Any] = dict(chosen)
    if changes.get("clears") in AT_STEPS:
        changes["steps"] = "batch"  # which ones is noted
    return replace(base or Recipe(), **changes)


def _passes(course: Course, seen: State) -> list[str]:
    """Numbers of passes that batch norm's own count does not rule out."""
    count = int(seen.get("encoder.2.num_batches_tracked", torch.tensor(0)).sum())
    if count == 0:
        return ["asked", "none", "2", "10"]
    if count == 1:
        return ["asked"]
    return ["asked", *[n for n, f in EPOCHS.items() if f(1) == count][:3]]


def _combined(found: list[Recipe], told: list[Recipe]) -> Iterator[Recipe]:
    """Each recipe alone, then with one and two deviations that several batches show.

    told: recipes that follow a claim, to be tried before it takes two deviations.
    """
    yield from found
    yield from _extended(found[:6], 1)
    yield from told
    yield from _extended(told, 1)
    yield from _extended(found[:2], 2)


def _extended(bases: list[Recipe], count: int) -> Iterator[Recipe]:
    aspects = (
        "renewed",
        "share",
        "over",
        "clears",
        "steps",
        "batches",
        "epochs",
        "mode",
        "decay",
        "warm",
    )
    singles = [(name, choice) for name in aspects for choice in CHOICES[name]]
    for recipe in bases:
        for chosen in itertools.combinations(singles, count):
            if len({name for name, _ in chosen}) == count:
                yield _deviating(*chosen, base=recipe)


def _criteria(course: Course) -> list[str]:
    if course.kind == "TinyAutoEncoder":
        return list(AE_CRITERIA)
    return [*VAE_CRITERIA, *OWN_VAE_CRITERIA]


def _rate_factor(course: Course, seen: State) -> float:
    """The rate that would scale the promised movement to the seen one."""
    ratios = _ratios(course, seen)
    return sorted(ratios)[len(ratios) // 2] if ratios else 1.0


def _part_rates(course: Course, seen: State) -> Recipe:
    """A rate for the encoder, and another for the decoder."""
    ratios = _ratios(course, seen)
    if len(ratios) < 3 or abs(ratios[0]) < 1e-6:
        return Recipe()
    return Recipe(rate=ratios[0], part=ratios[1] / ratios[0])


def _ratios(course: Course, seen: State) -> list[float]:
    """How many times as far as promised weights moved: the encoder's, two of the decoder's."""
    expected = course.promised.state
    ratios = []
    for name in ("encoder.1.weight", "decoder.0.weight", "decoder.0.bias"):
        promised = (expected[name] - course.state[name]).double().flatten()
        found = (seen.get(name, course.state[name]) - course.state[name]).double().flatten()
        if found.shape == promised.shape:
            ratios.append(float(found @ promised / (promised @ promised).clamp(min=1e-30)))
    return ratios
