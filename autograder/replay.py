"""Replaying a training: the host trains the same tiny model on the same batches, and compares.

A `Recipe` says how; the promised one is the default, and every misconception is a recipe that
differs from it. The recipe that gives the student's weights on every draw is what the student
wrote, whatever it looks like.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autograder.draws import Draws
from autograder.worker import standins

TOLERANCE = 3e-3  # of how far a weight moved: rounding stays below a tenth of it
EPSILON = 1e-8  # Adam's
NOTED = "as noted"
TOLD = "the optimiser that it names"
State = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the promise."""

    optimiser: str = "Adam"
    renewed: str = "never"  # when the optimiser is made again
    rate: float = 1.0  # times the rate asked for
    part: float = 1.0  # times the rate of the rest, in the decoder
    decay: str = ""  # of the rate
    share: str = ""  # by whose number the rate is divided
    criterion: str = "promised"
    scale: float = 1.0  # times the criterion
    warm: str = ""  # by what the weight of the KL term grows from pass to pass
    rows: str = "all"  # of every batch
    inputs: str = "batch"  # what the model is run on
    target: str = "input"
    frozen: str = ""  # the parts and weights of the model that do not move, with commas between
    mode: str = "train"
    clears: str = "batch"
    steps: str = "batch"
    batches: str = "each"
    epochs: str = "asked"

    def deviations(self) -> list[str]:
        """The fields in which it is not as promised."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


@dataclass(frozen=True)
class Terms:
    """What kind of thing the student's `VAE.loss` returns beside the total.

    numbers: graph, detached or float. extra: further keys, and what each holds. outputs: further
    keys of what forward returns. swapped: whether the loss takes outputs before x.
    """

    numbers: str = "graph"
    extra: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class Note:
    """What the model in training noted at a backward pass: its mode, and some of its weights.

    It is a claim: it counts only where a replay that follows it gives the weights in the end.
    """

    training: bool
    weights: Tensor


@dataclass(frozen=True)
class Told:
    """What stepped the weights, from which step on: a class of torch.optim, and its options.

    It is a claim, as a note is.
    """

    step: int
    kind: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Class and options, but for the rate."""
        options = (f"{k}={v}" for k, v in self.options.items() if k != "lr")
        return f"{self.kind}({', '.join(options)})"


@dataclass(frozen=True)
class Course:
    """One draw: the model's first weights, the batches and the arguments of the call.

    notes: of the student's training, one for every backward pass, and one of the end. told: the
    optimiser of it.
    """

    kind: str  # TinyAutoEncoder or TinyVariational
    state: State
    images: Tensor
    batch_size: int
    epochs: int
    rate: float
    beta: float
    terms: Terms = field(default_factory=Terms)
    notes: tuple[Note, ...] = ()
    told: tuple[Told, ...] = ()

    @functools.cached_property
    def promised(self) -> Trained:
        """What the promised training gives."""
        return train(self, Recipe())

    @property
    def batches(self) -> list[Tensor]:
        """The batches of one pass."""
        return list(self.images.split(self.batch_size))

    @functools.cached_property
    def steps(self) -> list[int]:
        """After which backward passes, counted from 1, the noted weights are others."""
        pairs = itertools.pairwise(self.notes)
        return [i for i, (a, b) in enumerate(pairs, 1) if not torch.equal(a.weights, b.weights)]

    @property
    def steps_once_a_pass(self) -> bool:
        """Whether these are the last of every pass."""
        return self.steps == [(i + 1) * len(self.batches) for i in range(self.epochs)]

    def note(self, count: int) -> Note | None:
        """What was noted after so many steps of one backward pass each."""
        return self.notes[count] if count < len(self.notes) else None

    def model(self) -> Any:
        """The model before training."""
        made = standins.MAKERS[self.kind](
            *(() if self.kind == "TinyAutoEncoder" else (3, self.beta))
        )
        made.load_state_dict(self.state)
        return made


@dataclass
class Trained:
    """What a training left: weights by name, and the terms of the loss at every step."""

    state: State
    losses: dict[str, list[float]] = field(default_factory=dict)


def draw_course(
    draws: Draws, kind: str, terms: Terms, count: int, batch_size: int, epochs: int, rate: float
) -> Course:
    """A course with weights on which steps are well determined in single precision."""
    beta = draws.real(0.5, 2.0)
    made = standins.MAKERS[kind](*(() if kind == "TinyAutoEncoder" else (3, beta)))
    state = {}
    for name, value in made.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
        elif name.endswith("running_mean"):
            state[name] = 0.3 * draws.normal(*value.shape)
        elif name.endswith("running_var"):
            state[name] = draws.uniform(*value.shape, low=0.5, high=3.0)
        else:
            state[name] = (0.3 if "encoder.1" in name else 1.0) * draws.normal(*value.shape)
    images = draws.uniform(count, 1, 28, 28)
    return Course(kind, state, images, batch_size, epochs, rate, beta, terms)


RARE = slice(392, None)  # pixels that are dark but in the first batch and in the last ones
MANY = 220  # batches


def draw_long(draws: Draws, kind: str, terms: Terms) -> Course:
    """A course of a single pass over many batches, on some weights with rare gradients."""
    course = draw_course(draws, kind, terms, 3 * MANY, 3, 1, 10 ** draws.real(-4, -3))
    pixels = course.images.flatten(1)
    pixels[3:-60, RARE] = 0.0
    pixels[-60:, RARE] *= 0.1
    return course


PASSES = 16


LARGE = 70  # examples in a batch: more than 64


def draw_dull(draws: Draws, kind: str, terms: Terms) -> Course:
    """A course of many passes over large batches that moves weights as ever, and the loss hardly.

    The outputs are next to zero, where a sigmoid is flat, and so are the codes. What waits for
    the loss to fall, a rate that drops on a plateau or an end that comes early, shows here.
    """
    course = draw_course(draws, kind, terms, 2 * LARGE, LARGE, PASSES, 10 ** draws.real(-4, -3))
    course.state["decoder.0.bias"] -= 8.0
    course.state["decoder.0.weight"] *= 0.3
    for name in ("encoder.2.weight", "encoder.2.bias"):
        course.state[name] *= 0.01
    return course


class _Adam:
    """Kingma and Ba, Adam (2015), algorithm 1; without the second that torch.optim imports take."""

    def __init__(self, parameters: list[nn.Parameter], rates: list[float]) -> None:
        self.parameters, self.rates, self.count = parameters, rates, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    def step(self) -> None:
        if all(p.grad is None for p in self.parameters):
            return
        self.count += 1
        moments = zip(self.parameters, self.first, self.second, self.rates, strict=True)
        for p, m, v, rate in moments:
            if p.grad is None:
                continue
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            scale = (v / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
            with torch.no_grad():
                p.sub_(rate * (m / (1 - 0.9**self.count)) / scale)


OPTIMISERS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "SGD": {},
    "SGD with momentum": {"momentum": 0.9},
    "RMSprop": {},
    "Adagrad": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Adadelta": {},
    "Rprop": {},
    "Adam with weight_decay=1e-2": {"weight_decay": 1e-2},
    "Adam with weight_decay=1e-3": {"weight_decay": 1e-3},
    "Adam with weight_decay=1e-4": {"weight_decay": 1e-4},
    "Adam with weight_decay=1e-5": {"weight_decay": 1e-5},
    "Adam with betas=(0.5, 0.999)": {"betas": (0.5, 0.999)},
    "Adam with betas=(0.9, 0.99)": {"betas": (0.9, 0.99)},
    "Adam with betas=(0.9, 0.9)": {"betas": (0.9, 0.9)},
    "Adam with betas=(0, 0.999)": {"betas": (0.0, 0.999)},
    "Adam with eps=1e-7": {"eps": 1e-7},
    "Adam with eps=1e-6": {"eps": 1e-6},
    "Adam with eps=1e-4": {"eps": 1e-4},
    "Adam with eps=1e-3": {"eps": 1e-3},
    "Adam with amsgrad": {"amsgrad": True},
    "Adam that maximises": {"maximize": True},
}


KINDS = {"Adam", *(name.split()[0] for name in OPTIMISERS)}
OPTIONS = ("lr", "betas", "eps", "weight_decay", "momentum", "dampening", "nesterov", "amsgrad",
           "alpha", "centered", "rho", "lr_decay")  # fmt: skip


class _AsTold:
    """The optimiser of a training's own claim, with the options of every step."""

    def __init__(self, parameters: list[nn.Parameter], told: tuple[Told, ...]) -> None:
        if not told:
            raise ValueError("nothing is told of an optimiser")
        self.options = {t.step: t.options for t in told}
        self.made = getattr(torch.optim, told[0].kind)(parameters, **told[0].options)
        self.count = 0

    def step(self) -> None:
        self.made.param_groups[0].update(self.options.get(self.count, {}))
        self.made.step()
        self.count += 1


def _optimiser(
    name: str, parameters: list[nn.Parameter], rate: float, told: tuple[Told, ...] = ()
) -> Any:
    if name == TOLD:
        return _AsTold(parameters, told)
    if name == "Adam":
        return _Adam(parameters, [rate] * len(parameters))
    return getattr(torch.optim, name.split()[0])(parameters, lr=rate, **OPTIMISERS[name])


def _kl(outputs: dict[str, Tensor]) -> Tensor:
    mu, s = outputs["q"].chunk(2, 1)
    return (mu.square() + torch.exp(2 * s) - 1) / 2 - s


# what may be minimised in place of the mean squared error; r: the output, x: the target
_AE_CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "promised": lambda r, x: (r - x).square().mean(),
    "sum of squares": lambda r, x: (r - x).square().sum(),
    "every image with every other": lambda r, x: (r - x.transpose(0, 1)).square().mean(),
    "squares summed over pixels": lambda r, x: (r - x).square().sum() / len(x),
    "half of the squares": lambda r, x: (r - x).square().mean() / 2,
    "absolute error": lambda r, x: (r - x).abs().mean(),
    "sum of absolute errors": lambda r, x: (r - x).abs().sum(),
    "smooth L1": lambda r, x: F.smooth_l1_loss(r, x),
    "binary cross-entropy": lambda r, x: F.binary_cross_entropy(r, x.clamp(0, 1)),
    "sum of cross-entropies": lambda r, x: F.binary_cross_entropy(
        r, x.clamp(0, 1), reduction="sum"
    ),
    "norm of the difference": lambda r, x: (r - x).norm(),
    "root of the mean square": lambda r, x: (r - x).square().mean().sqrt(),
    "minus the mean square": lambda r, x: -(r - x).square().mean(),
    "mean square over the number of batches": lambda r, x: (r - x).square().mean() / len(x),
}
# likewise for a VAE, from the terms a and b of model.loss
_VAE_CRITERIA: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "promised": lambda a, b, beta: a + beta * b,
    "rec_loss alone": lambda a, b, beta: a,
    "kl_loss alone": lambda a, b, beta: b,
    "rec_loss + kl_loss": lambda a, b, beta: a + b,
    "rec_loss - beta * kl_loss": lambda a, b, beta: a - beta * b,
    "the total plus beta * kl_loss": lambda a, b, beta: a + 2 * beta * b,
    "the total plus kl_loss": lambda a, b, beta: a + beta * b + b,
    "the total plus both terms": lambda a, b, beta: 2 * a + (1 + beta) * b,
    "beta * kl_loss": lambda a, b, beta: beta * b,
    "minus the total": lambda a, b, beta: -a - beta * b,
}
_OWN_VAE_CRITERIA: dict[str, Callable[[dict[str, Tensor], Tensor, float], Tensor]] = {
    "squared error of its own": lambda o, x, beta: (o["rec"] - x).square().mean(),
    "squared error and KL of its own": lambda o, x, beta: (
        (o["rec"] - x).square().mean() + beta * _kl(o).sum(1).mean()
    ),
    "squared error and mean KL of its own": lambda o, x, beta: (
        (o["rec"] - x).square().mean() + beta * _kl(o).mean()
    ),
    "squared error and KL of its own, without beta": lambda o, x, beta: (
        (o["rec"] - x).square().mean() + _kl(o).sum(1).mean()
    ),
}
TARGETS: dict[str, Callable[[Tensor, list[Tensor], int], Tensor]] = {
    "input": lambda x, all, i: x,
    "own output": lambda x, all, i: x,  # see _loss
    "zeros": lambda x, all, i: torch.zeros_like(x),
    "ones": lambda x, all, i: torch.ones_like(x),
    "inverted input": lambda x, all, i: 1 - x,
    "rescaled input": lambda x, all, i: 2 * x - 1,
    "rounded input": lambda x, all, i: (x > 0.5).float(),
    "normalised input": lambda x, all, i: (x - 0.1307) / 0.3081,  # by MNIST's mean and deviation
    "mean of the input": lambda x, all, i: x.mean().expand_as(x),
    "mean image": lambda x, all, i: x.mean(0, keepdim=True).expand_as(x),
    "another order of the input": lambda x, all, i: x.flip(0),
    "rolled input": lambda x, all, i: x.roll(1, 0),
    "mirrored input": lambda x, all, i: x.flip(-1),
    "transposed input": lambda x, all, i: x.transpose(-1, -2),
    "first image": lambda x, all, i: x[:1].expand_as(x),
    "last image": lambda x, all, i: x[-1:].expand_as(x),
    "first batch": lambda x, all, i: all[0][: len(x)],
    "labels": lambda x, all, i: (
        (torch.arange(sum(map(len, all[:i])), sum(map(len, all[: i + 1]))) % 10.0)
        .view(-1, 1, 1, 1)
        .expand_as(x)
    ),
}


# of these, what the model may be run on, too
INPUTS = ("inverted input", "rescaled input", "rounded input", "normalised input")


def _fixed(count: int, asked: int) -> int:
    return count


_EPOCHS: dict[str, Callable[[int], int]] = {
    "asked": lambda n: n,
    "one less": lambda n: max(n - 1, 0),
    "one more": lambda n: n + 1,
    "one": lambda n: 1,
    "none": lambda n: 0,
    "twice": lambda n: 2 * n,
    "as many steps": lambda n: n,
    "at most two": lambda n: min(n, 2),
    **{str(k): functools.partial(_fixed, k) for k in (2, 3, 5, 10, 20)},
}
# by pass number, from 0, and the number of passes
_WARM: dict[str, Callable[[int, int], float]] = {
    "": lambda e, n: 1.0,
    "the pass over all passes": lambda e, n: e / n,
    "the pass, from 1, over all passes": lambda e, n: (e + 1) / n,
    "the pass over the passes before the last": lambda e, n: e / max(n - 1, 1),
    "a tenth of the pass": lambda e, n: min(1.0, e / 10),
    "a tenth of the pass, from 1": lambda e, n: min(1.0, (e + 1) / 10),
}
_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda x: x,
    "the first half": lambda x: x[: len(x) // 2],
    "the first half, rounded up": lambda x: x[: (len(x) + 1) // 2],
    "the second half": lambda x: x[len(x) // 2 :],
    "every second row": lambda x: x[::2],
    "all but the first row": lambda x: x[1:],
    "all but the last row": lambda x: x[:-1],
    **{f"the first {k} rows": lambda x, k=k: x[:k] for k in (2, 3, 4, 5)},  # type: ignore[misc]
}
AT_STEPS = ("after a step", "after a step of means")  # the steps that are noted, and no others
PART_MODES = ("eval in the encoder", "eval in the decoder")
PARTS_CLEARED = ("the encoder's alone", "the decoder's alone")
_CHOICES: dict[str, list[str]] = {
    "optimiser": list(OPTIMISERS),
    "target": [name for name in TARGETS if name != "input"],
    "renewed": ["epoch", "batch"],
    "share": ["batches", "epochs"],
    "decay": [NOTED],
    "warm": [name for name in _WARM if name],
    "mode": ["eval", NOTED, *PART_MODES],
    "clears": ["never", "epoch", "once", *PARTS_CLEARED, *AT_STEPS],
    "steps": ["never", "epoch", "end", "delayed", "twice", "last batch left out", "every other"],
    "batches": [
        "first",
        "last",
        "first of each pass",
        "all but the last",
        "all but the first",
        "whole ones",
        "reversed",
        "each twice",
    ],
    "epochs": [name for name in _EPOCHS if name != "asked"],
}


def train(
    course: Course, recipe: Recipe, watch: Callable[[int, Any], None] | None = None
) -> Trained:
    """Train the tiny model by a recipe; `watch` is told every step's number and the model."""
    model = course.model()
    _set_mode(model, recipe.mode)
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    batches, pending, rate = course.batches, False, course.rate
    if recipe.decay != NOTED:
        rate *= recipe.rate
    rate /= {"batches": len(batches), "epochs": course.epochs}.get(recipe.share, 1)

    def made() -> Any:
        weights = _movable(model, recipe.frozen)
        if recipe.part != 1.0:
            decoder = {id(p) for p in model.decoder.parameters()}
            shares = [recipe.part if id(p) in decoder else 1.0 for p in weights]
            return _Adam(weights, [share * rate for share in shares])
        return _optimiser(recipe.optimiser, weights, rate, course.told)

    if recipe.clears in AT_STEPS and len(course.notes) != 1 + course.epochs * len(batches):
        raise ValueError("the noted backward passes are not one for every batch")
    optimiser = made()
    for epoch in range(_EPOCHS[recipe.epochs](course.epochs)):
        if recipe.renewed == "epoch":
            optimiser = made()
        if recipe.clears == "epoch" or (recipe.clears == "once" and epoch == 0):
            model.zero_grad()
        chosen = [_rows(x, recipe.rows) for x in _chosen(batches, recipe.batches)]
        beta = course.beta * _WARM[recipe.warm](epoch, course.epochs)
        for i, x in enumerate(chosen):
            if recipe.epochs == "as many steps" and len(losses["total"]) == course.epochs:
                break
            if recipe.renewed == "batch":
                optimiser = made()
            if recipe.steps == "delayed" and pending:
                optimiser.step()
            if recipe.clears in _CLEARED:
                _CLEARED[recipe.clears](model).zero_grad()
            if recipe.mode == NOTED:
                note = course.note(len(losses["total"]))
                model.train(note is None or note.training)
            target = TARGETS[recipe.target](x, batches, i)
            loss = _loss(course, model, x, target, recipe, losses, beta)
            loss.backward()
            pending = True
            if _steps_now(course, recipe, i, len(chosen), len(losses["total"])):
                if recipe.clears == "after a step of means":
                    _divide_gradients(model, course)
                if recipe.decay == NOTED:
                    _step_as_noted(optimiser, model, course.note(len(losses["total"])))
                else:
                    optimiser.step()
                if recipe.clears in AT_STEPS:
                    model.zero_grad()
            if recipe.steps == "twice":
                optimiser.step()
            if watch is not None:
                watch(len(losses["total"]), model)
        if recipe.steps == "epoch" and batches:
            optimiser.step()
        if recipe.steps == "end" and epoch == course.epochs - 1:
            optimiser.step()
    return Trained({k: v.detach().clone() for k, v in model.state_dict().items()}, losses)


# what is cleared at every batch
_CLEARED: dict[str, Callable[[Any], Any]] = {
    "batch": lambda model: model,
    "the encoder's alone": lambda model: model.encoder,
    "the decoder's alone": lambda model: model.decoder,
}


def _set_mode(model: Any, mode: str) -> None:
    """Train or eval mode, or eval mode of a part alone."""
    model.train(mode != "eval")
    for part in ("encoder", "decoder"):
        if mode == f"eval in the {part}":
            getattr(model, part).eval()


def _step_as_noted(optimiser: Any, model: Any, goal: Note | None) -> None:
    """A step of the rate that takes the noted weights nearest to where they are noted next.

    A step is so many times as long as the rate is larger, whatever its direction.
    """
    weight = next(model.decoder.parameters())
    before = [(p, p.detach().clone()) for p in model.parameters()]
    start = standins.sample(weight.detach()).double()
    optimiser.step()
    if goal is None:
        return
    way = standins.sample(weight.detach()).double() - start
    share = float((goal.weights - start) @ way / (way @ way).clamp(min=1e-30))
    with torch.no_grad():
        for p, old in before:
            p.copy_(old + share * (p - old))


def _divide_gradients(model: Any, course: Course) -> None:
    """Make means of gradients that were summed over as many batches as a step serves at most."""
    gaps = [b - a for a, b in itertools.pairwise([0, *course.steps])]
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= max(gaps, default=1)


def _movable(model: Any, frozen: str) -> list[nn.Parameter]:
    stays = tuple(frozen.split(", "))
    return [
        p
        for name, p in model.named_parameters()
        if name not in stays and name.partition(".")[0] not in stays
    ]


def _frozen(course: Course, seen: State) -> str:
    """What did not move, of a model of which something else did."""
    weights = [n for n in course.state if not is_statistic(n)]
    moved = {n for n in weights if not torch.equal(seen[n], course.state[n])}
    if not moved:
        return ""
    halves = {n.partition(".")[0] for n in weights} - {n.partition(".")[0] for n in moved}
    single = [n for n in weights if n not in moved and n.partition(".")[0] not in halves]
    return ", ".join([*sorted(halves), *single])


def _chosen(batches: list[Tensor], which: str) -> list[Tensor]:
    if which == "first":
        return batches[:1] * len(batches)
    if which == "last":
        return batches[-1:] * len(batches)
    if which == "first of each pass":
        return batches[:1]
    if which == "all but the last":
        return batches[:-1]
    if which == "all but the first":
        return batches[1:]
    if which == "whole ones":
        return [b for b in batches if len(b) == len(batches[0])]
    if which == "each twice":
        return [b for b in batches for _ in range(2)]
    return batches[::-1] if which == "reversed" else batches


def _rows(x: Tensor, which: str) -> Tensor:
    """The rows of a batch that are used; a number stands for as many of the first ones."""
    return x[: int(which)] if which.isdigit() else _ROWS[which](x)


def _steps_now(course: Course, recipe: Recipe, index: int, count: int, passes: int) -> bool:
    """Whether a step follows batch `index` of `count`, the backward pass number `passes`."""
    if recipe.clears in AT_STEPS:
        return passes in course.steps
    if recipe.steps == "every other":
        return index % 2 == 1
    if recipe.steps == "last batch left out":
        return index < count - 1
    return recipe.steps in ("batch", "twice")


def _loss(
    course: Course,
    model: Any,
    x: Tensor,
    target: Tensor,
    recipe: Recipe,
    losses: dict[str, list[float]],
    beta: float | None = None,
) -> Tensor:
    weight = course.beta if beta is None else beta
    given = x if recipe.inputs == "batch" else TARGETS[recipe.inputs](x, [], 0)
    outputs = model(given)
    if course.kind == "TinyAutoEncoder":
        if recipe.target == "own output":
            target = outputs.detach()
        found = recipe.scale * _AE_CRITERIA[recipe.criterion](outputs, target)
        losses["promised"].append(_AE_CRITERIA["promised"](outputs, x).item())
    else:
        if recipe.target == "own output":
            target = outputs["rec"]
        _, terms = model.loss(target, outputs)
        first, second = terms["rec_loss"], terms["kl_loss"]
        own = _OWN_VAE_CRITERIA.get(recipe.criterion)
        if own is not None:
            found = own(outputs, target, weight)
        else:
            found = recipe.scale * _VAE_CRITERIA[recipe.criterion](first, second, weight)
        losses["rec_loss"].append(first.item())
        losses["kl_loss"].append(second.item())
        losses["promised"].append((first + course.beta * second).item())
    losses["total"].append(found.item())
    return found


def stops_after(course: Course, seen: State) -> int | None:
    """After how many steps of the promised training the weights are the seen ones."""
    found: list[int] = []

    def look(step: int, model: Any) -> None:
        if same(course, seen, model.state_dict()):
            found.append(step)

    train(course, Recipe(), look)
    return found[0] if found else None


def goes_as_promised(course: Course) -> bool:
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


def ends_elsewhere(course: Course) -> bool:
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

    It is run again from weights that differ by a millionth, far more than another spelling of the
    same steps does; what comes of that must stay below a tenth of the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    shaken = {
        name: v * (1 + 1e-6 * torch.randn(v.shape, generator=generator))
        if v.is_floating_point()
        else v
        for name, v in course.state.items()
    }
    left = train(replace(course, state=shaken), Recipe()).state
    back = {n: v - shaken[n] + course.state[n] for n, v in left.items()}
    return same(course, back, course.promised.state, TOLERANCE / 10)


def losses_after(course: Course) -> dict[str, list[float]]:
    """The terms of the loss on every batch of the promised training, just after its step."""
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    batches = itertools.cycle(course.batches)

    def look(step: int, model: Any) -> None:
        x = next(batches)
        with torch.no_grad():
            _loss(course, model, x, x, Recipe(), losses)

    train(course, Recipe(), look)
    return losses


def optimiser_of(course: Course, seen: State) -> str | None:
    """The optimiser, other than Adam, that gives the seen weights in a long training."""
    if same(course, seen, course.promised.state):
        return "Adam with amsgrad"
    for name in OPTIMISERS:
        if _fits(course, seen, Recipe(optimiser=name)):
            return name
    return None


def keeps_second_moments(course: Course, seen: State) -> bool:
    """Whether a training on `draw_long` is nearer to Adam with amsgrad than to Adam.

    They differ in the encoder's weights for the pixels of `RARE` alone, by 0.005 of the way;
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


def steps_as_adam(course: Course, seen: State) -> bool:
    """Whether the weights moved as after a first step of Adam, down whatever gradient.

    Its size is the rate, for gradients far above eps.
    """
    step = (seen["decoder.0.weight"] - course.state["decoder.0.weight"]).abs() / course.rate
    return bool(((step - 1).abs() < 0.02).double().mean() > 0.9)


def moved(course: Course, seen: State) -> bool:
    """Whether any weight (not a running statistic) changed."""
    return any(
        not torch.equal(seen[name], value)
        for name, value in course.state.items()
        if name in seen and not is_statistic(name)
    )


def fits(courses: list[Course], seen: list[State], recipe: Recipe) -> bool:
    """Whether a recipe gives the seen weights every time."""
    return all(_fits(c, s, recipe) for c, s in zip(courses, seen, strict=True))


def explain(courses: list[Course], seen: list[State]) -> Recipe | None:
    """The recipe, with as few deviations as possible, that gives the seen weights every time.

    The first course has a single batch and a single pass. What explains it is combined with
    whatever shows only on several batches or passes.
    """
    if all(same(c, s, c.promised.state) for c, s in zip(courses, seen, strict=True)):
        return Recipe()
    first = [r for r in _single_steps(courses[0], seen[0]) if _fits(courses[0], seen[0], r)]
    first.sort(key=lambda r: len(r.deviations()))
    for recipe in _combined(
        first, [Recipe(optimiser=TOLD)] if all(c.told for c in courses) else []
    ):
        if fits(courses, seen, recipe):
            return recipe
    return None


def loss_of(course: Course, state: State) -> float:
    """The promised loss of a model with these weights over all batches, in train mode."""
    model = course.model()
    model.load_state_dict(state)
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    for x in course.batches:
        _loss(course, model, x, x, Recipe(), losses)
    return sum(losses["promised"])


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
    singles += [_deviating((name, c)) for name in aspects for c in _CHOICES[name]]
    singles = [r for r in singles if r.target != "own output"]
    singles += [Recipe(criterion=name) for name in _criteria(course) if name != "promised"]
    singles += [Recipe(rows=name) for name in _ROWS if name != "all"]
    if course.kind == "TinyVariational":
        singles += [Recipe(warm=name) for name in _WARM if name]
    singles += [Recipe(inputs=name) for name in INPUTS]
    singles += [Recipe(inputs=name, target=name) for name in INPUTS]
    singles += [Recipe(frozen=_frozen(course, seen))]
    singles += [_part_rates(course, seen)]
    singles += [Recipe(rate=_rate_factor(course, seen)), Recipe(scale=_scale_factor(course, seen))]
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
    return ["asked", *[n for n, f in _EPOCHS.items() if f(1) == count][:3]]


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
    aspects = ("renewed", "share", "clears", "steps", "batches", "epochs", "mode", "decay", "warm")
    singles = [(name, choice) for name in aspects for choice in _CHOICES[name]]
    for recipe in bases:
        for chosen in itertools.combinations(singles, count):
            if len({name for name, _ in chosen}) == count:
                yield _deviating(*chosen, base=recipe)


def _criteria(course: Course) -> list[str]:
    if course.kind == "TinyAutoEncoder":
        return list(_AE_CRITERIA)
    return [*_VAE_CRITERIA, *_OWN_VAE_CRITERIA]


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


def _scale_factor(course: Course, seen: State) -> float:
    """The factor on the promised loss that would give the seen first step of the faint weights.

    Adam's first step is rate * g / (|g| + eps), which tells the size of g where g is near eps.
    """
    name = "decoder.1.shift"
    model = course.model()
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    x = course.batches[0]
    _loss(course, model, x, x, Recipe(), losses).backward()
    gradient = model.get_parameter(name).grad.double()
    step = (course.state[name] - seen.get(name, course.state[name])).double() / course.rate
    if step.shape != gradient.shape:
        return 1.0
    share = step / gradient.sign()
    told = (share > 0.02) & (share < 0.98) & (gradient.abs() > 0)
    if not bool(told.any()):
        return 1.0
    factors = EPSILON * share[told] / (1 - share[told]) / gradient[told].abs()
    return float(factors.median())
