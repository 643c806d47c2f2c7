"""Replaying a training: the host trains the same tiny model on the same batches, by a recipe."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from autograder.draws import Draws
from autograder.interface import Interface
from autograder.recipes import (
    AE_CRITERIA,
    AT_STEPS,
    EPOCHS,
    EXCHANGED,
    NOTED,
    OPTIMISERS,
    OVER,
    OWN_VAE_CRITERIA,
    ROWS,
    TARGETS,
    TOLD,
    VAE_CRITERIA,
    WARM,
    Recipe,
    first_rows,
)
from autograder.worker import standins

State = dict[str, Tensor]


@dataclass(frozen=True)
class Note:
    """What the model in training noted at a backward pass: its mode, and some of its weights.

    cleared: whether no gradient of an earlier pass was there. beta: by which the last loss weighed
    its KL term. rows, pixel: how many images the model was last given, and the largest of their
    first pixels. It is a claim: it counts only where a replay that follows it gives the weights in
    the end.
    """

    training: bool
    cleared: bool
    weights: Tensor
    beta: float = 1.0
    rows: float = 0.0
    pixel: float = 0.0


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
    optimiser of it. given: inputs and targets of its backward passes, where they were noted. order:
    in which the batches of each pass come, by number, where it is not the loader's.
    """

    kind: str  # TinyAutoEncoder or TinyVariational
    state: State
    images: Tensor
    batch_size: int
    epochs: int
    rate: float
    beta: float
    interface: Interface = field(default_factory=Interface)
    notes: tuple[Note, ...] = ()
    told: tuple[Told, ...] = ()
    given: tuple[tuple[Tensor, Tensor], ...] = ()
    order: tuple[tuple[int, ...], ...] = ()

    @functools.cached_property
    def promised(self) -> Trained:
        """What the promised training gives."""
        return train(self, Recipe())

    @functools.cached_property
    def _after(self) -> dict[str, list[float]]:
        return losses_after(self)

    def after(self, name: str) -> list[float]:
        """A term of the loss on every batch of the promised training, just after its step."""
        return self._after[name]

    def promise(self, trained: Trained) -> None:
        """Take what the promised training is known to give, however it was rounded."""
        vars(self).update(promised=trained)

    def told_of(self, **claims: Any) -> Course:
        """The same course with notes and the like; the order of batches is free, and is theirs."""
        made = replace(self, **claims)
        order = order_noted(made) or ()
        own = (tuple(range(len(made.batches))),) * made.epochs
        made = replace(made, order=order if order != own else ())
        if "promised" in vars(self) and made.order == self.order:
            made.promise(self.promised)
        return made

    @property
    def batches(self) -> list[Tensor]:
        """The batches of one pass, in the loader's order."""
        return list(self.images.split(self.batch_size))

    @property
    def places(self) -> list[Sequence[int]]:
        """The numbers of the batches as they come in each pass; 0 is the loader's first."""
        return list(self.order) or [range(len(self.batches))] * self.epochs

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


def order_noted(course: Course) -> tuple[tuple[int, ...], ...] | None:
    """In which order the batches come in each pass, if every pass has each batch once."""
    batches, notes = course.batches, course.notes[:-1]
    count = len(batches)
    known = {
        (float(len(x)), float(x[:, 0, 0, 0].max())): i for i, x in enumerate(batches) if len(x)
    }
    seen = [known.get((note.rows, note.pixel), -1) for note in notes]
    passes = tuple(tuple(seen[i : i + count]) for i in range(0, len(seen), max(count, 1)))
    if len(passes) != course.epochs or any(sorted(p) != [*range(count)] for p in passes):
        return None
    return passes


@dataclass
class Trained:
    """What a training left: weights by name, and the terms of the loss at every step."""

    state: State
    losses: dict[str, list[float]] = field(default_factory=dict)


def draw_course(
    draws: Draws,
    kind: str,
    interface: Interface,
    count: int,
    batch_size: int,
    epochs: int,
    rate: float,
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
    return Course(kind, state, images, batch_size, epochs, rate, beta, interface)


RARE = slice(392, None)  # pixels that are dark but in the first batch and in the last ones
MANY = 100  # batches
# examples in a batch: with few of them, what batch norm leaves of a gradient may be next to
# nothing, and then rounding decides on the sign of a first step
BATCH = 8


def draw_long(draws: Draws, kind: str, interface: Interface, batches: int = MANY) -> Course:
    """A course of a single pass over many batches, on some weights with rare gradients."""
    course = draw_course(
        draws, kind, interface, BATCH * batches, BATCH, 1, 10 ** draws.real(-4, -3)
    )
    pixels = course.images.flatten(1)
    last = -20 * BATCH
    pixels[BATCH:last, RARE] = 0.0
    pixels[last:, RARE] *= 0.1
    return course


PASSES, STILL = 16, 10
LARGE = 73  # examples in a batch: more than 64, and no multiple of anything
DARK = 0.05  # the brightest pixel


def draw_dull(draws: Draws, kind: str, interface: Interface) -> Course:
    """A course of many passes over a large batch that moves weights as ever, and the loss hardly.

    The outputs are next to zero, where a sigmoid is flat, and so are the codes. What waits for
    the loss to fall, a rate that drops on a plateau or an end that comes early, shows here.
    """
    course = draw_course(draws, kind, interface, LARGE, LARGE, PASSES, 10 ** draws.real(-4, -3))
    course.state["decoder.0.bias"] -= 8.0
    course.state["decoder.0.weight"] *= 0.3
    for name in ("encoder.2.weight", "encoder.2.bias"):
        course.state[name] *= 0.01
    return course


def draw_still(draws: Draws, kind: str, interface: Interface) -> Course:
    """A course of many passes on which no gradient is left, so that the loss stays what it is.

    An end that comes as soon as the loss does not fall shows here: in how many passes there are.
    """
    course = draw_course(draws, kind, interface, BATCH, BATCH, STILL, 10 ** draws.real(-4, -3))
    course.state["decoder.0.bias"].fill_(-200.0)
    course.state["decoder.0.weight"].zero_()
    for name in ("encoder.2.weight", "encoder.2.bias"):
        course.state[name].zero_()
    return course


FOLLOWED = 50  # the most passes, which a loop may take its time for


def draw_passes(draws: Draws, kind: str, interface: Interface, passes: int) -> Course:
    """A course of many passes over a single batch."""
    return draw_course(draws, kind, interface, BATCH, BATCH, passes, 10 ** draws.real(-4, -3))


STEEP = {"TinyAutoEncoder": 3000.0, "TinyVariational": 5.0}  # times as large as usual


def draw_steep(draws: Draws, kind: str, interface: Interface) -> Course:
    """A course with large codes, and so large gradients; a KL term of hundreds."""
    course = draw_course(draws, kind, interface, 2 * BATCH, BATCH, 3, 10 ** draws.real(-4, -3))
    for name in ("encoder.2.weight", "encoder.2.bias"):
        course.state[name] *= STEEP[kind]
    course.state["decoder.0.weight"] /= STEEP[kind]
    return course


def draw_dark(draws: Draws, kind: str, interface: Interface) -> Course:
    """A course on which the loss is small from the start, for what waits for that."""
    course = draw_course(draws, kind, interface, 2 * BATCH, BATCH, 3, 10 ** draws.real(-4, -3))
    course.images.mul_(DARK)
    course.state["decoder.0.bias"] -= 4.0
    course.state["decoder.0.weight"] *= 0.1
    for name in ("encoder.2.weight", "encoder.2.bias"):
        course.state[name] *= 0.01
    return course


class Adam:
    """Kingma and Ba, Adam (2015), algorithm 1; without the second that torch.optim imports take."""

    def __init__(self, parameters: list[nn.Parameter], rates: list[float]) -> None:
        self.parameters, self.count = parameters, 0
        with torch.no_grad():  # one vector of all: a step is a dozen operations, not one for each
            self.whole = torch.cat([torch.zeros(0), *(p.flatten() for p in parameters)])
        nn.utils.vector_to_parameters(self.whole, parameters)  # now they are parts of it
        sizes = [p.numel() for p in parameters]
        self.rates = torch.tensor(rates).repeat_interleave(torch.tensor(sizes))
        self.first, self.second = torch.zeros_like(self.whole), torch.zeros_like(self.whole)
        held = (self.whole, self.first, self.second, self.rates)
        self.parts = list(zip(*(part.split(sizes) for part in held), strict=True))

    @torch.no_grad()
    def step(self) -> None:
        found = [
            (part, p.grad.flatten())
            for part, p in zip(self.parts, self.parameters, strict=True)
            if p.grad is not None
        ]
        if not found:
            return
        self.count += 1
        if len(found) == len(self.parts):
            whole = (self.whole, self.first, self.second, self.rates)
            found = [(whole, torch.cat([gradient for _, gradient in found]))]
        for (weights, m, v, rates), gradient in found:
            m.mul_(0.9).add_(gradient, alpha=0.1)
            v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            scale = (v / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
            weights.sub_(rates * (m / (1 - 0.9**self.count)) / scale)


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
        return Adam(parameters, [rate] * len(parameters))
    return getattr(torch.optim, name.split()[0])(parameters, lr=rate, **OPTIMISERS[name])


def train(
    course: Course,
    recipe: Recipe,
    watch: Callable[[int, Any], None] | None = None,
    cuts: tuple[int, ...] = (),
) -> Trained:
    """Train the tiny model by a recipe; `watch` is told every step's number and the model.

    cuts: after how many batches each pass ends, if some end early.
    """
    model = course.model()
    _set_mode(model, recipe.mode)
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    loaded, order, pending, rate = course.batches, course.order, False, course.rate
    count = len(loaded)
    if recipe.decay != NOTED:
        rate *= recipe.rate
    rate /= {"batches": count, "epochs": course.epochs}.get(recipe.share, 1)

    def made() -> Any:
        weights = _movable(model, recipe.frozen)
        if recipe.part != 1.0:
            decoder = {id(p) for p in model.decoder.parameters()}
            shares = [recipe.part if id(p) in decoder else 1.0 for p in weights]
            return Adam(weights, [share * rate for share in shares])
        return _optimiser(recipe.optimiser, weights, rate, course.told)

    follows = recipe.clears in AT_STEPS or recipe.steps == NOTED
    if follows and len(course.notes) != 1 + course.epochs * count:
        raise ValueError("the noted backward passes are not one for every batch")
    optimiser = made()
    clears = _CLEARED.get(recipe.clears)
    cleared = list(clears(model).parameters()) if clears is not None else []
    passes = EPOCHS[recipe.epochs](course.epochs)
    turns = 1
    if recipe.batches == EXCHANGED:
        passes, turns = 1, passes
    for epoch in range(passes):
        if recipe.renewed == "epoch":
            optimiser = made()
        if recipe.clears == "epoch" or (recipe.clears == "once" and epoch == 0):
            model.zero_grad()
        batches = [loaded[i] for i in order[epoch]] if epoch < len(order) else loaded
        chosen = [_rows(x, recipe.rows) for x in _chosen(batches, recipe.batches)]
        if cuts:
            chosen = chosen[: cuts[epoch]]
        grown = 1.0 if recipe.warm == NOTED else WARM[recipe.warm](epoch, course.epochs)
        for i, x in enumerate(x for x in chosen for _ in range(turns)):
            if recipe.epochs == "as many steps" and len(losses["total"]) == course.epochs:
                break
            if recipe.renewed == "batch":
                optimiser = made()
            if recipe.steps == "delayed" and pending:
                optimiser.step()
            note = course.note(len(losses["total"]))
            for p in cleared:
                p.grad = None
            if recipe.clears == NOTED and note is not None and note.cleared:
                model.zero_grad()
            if recipe.mode == NOTED:
                model.train(note is None or note.training)
            given, target = _images(course, recipe, x, batches, i, len(losses["total"]))
            beta = course.beta * grown
            if recipe.warm == NOTED and note is not None:
                beta = note.beta
            loss = loss_of_batch(course, model, x, target, recipe, losses, beta, given)
            loss.backward()
            pending = True
            if recipe.clip:
                _clip(model, *recipe.clip.split())
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
        if recipe.steps == "epoch" and count:
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


def _clip(model: Any, kind: str, most: str) -> None:
    """Cut the gradients of a model, one by one or as a whole."""
    function = nn.utils.clip_grad_value_ if kind == "value" else nn.utils.clip_grad_norm_
    function(model.parameters(), float(most))


def _movable(model: Any, frozen: str) -> list[nn.Parameter]:
    stays = tuple(frozen.split(", "))
    return [
        p
        for name, p in model.named_parameters()
        if name not in stays and name.partition(".")[0] not in stays
    ]


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
    return batches


def _images(
    course: Course, recipe: Recipe, x: Tensor, batches: list[Tensor], index: int, count: int
) -> tuple[Tensor, Tensor]:
    """Input and target of a batch x, number `index` of a pass, after `count` steps."""
    given, target = course.given[count] if NOTED in (recipe.inputs, recipe.target) else (x, x)
    if recipe.inputs != NOTED:
        given = x if recipe.inputs == "batch" else TARGETS[recipe.inputs](x, [], 0)
    if recipe.target != NOTED:
        target = TARGETS[recipe.target](x, batches, index)
    return given, target


def _rows(x: Tensor, which: str) -> Tensor:
    """The rows of a batch that are used; a number stands for as many of the first ones."""
    return first_rows(int(which), x) if which.isdigit() else ROWS[which](x)


def _steps_now(course: Course, recipe: Recipe, index: int, count: int, passes: int) -> bool:
    """Whether a step follows batch `index` of `count`, the backward pass number `passes`."""
    if recipe.clears in AT_STEPS:
        return passes in course.steps
    if recipe.steps == NOTED:
        return passes in course.steps
    if recipe.steps == "every other":
        return index % 2 == 1
    if recipe.steps == "last batch left out":
        return index < count - 1
    return recipe.steps in ("batch", "twice")


def loss_of_batch(
    course: Course,
    model: Any,
    x: Tensor,
    target: Tensor,
    recipe: Recipe,
    losses: dict[str, list[float]],
    beta: float | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """What is minimised on a batch x; its terms are added to `losses`. given: the model's input."""
    weight = course.beta if beta is None else beta
    outputs = model(x if given is None else given)
    scale = recipe.scale * (recipe.per_row * len(x) if recipe.per_row else 1.0)
    if recipe.over:
        scale *= OVER[recipe.over](len(x), course.batch_size, len(course.images))
    if course.kind == "TinyAutoEncoder":
        if recipe.target == "own output":
            target = outputs.detach()
        found = scale * AE_CRITERIA[recipe.criterion](outputs, target)
        losses["promised"].append(AE_CRITERIA["promised"](outputs, x).item())
    else:
        if recipe.target == "own output":
            target = outputs["rec"]
        _, terms = model.loss(target, outputs)
        first, second = terms["rec_loss"], terms["kl_loss"]
        own = OWN_VAE_CRITERIA.get(recipe.criterion)
        if own is not None:
            found = own(outputs, target, second, weight)
        else:
            found = scale * VAE_CRITERIA[recipe.criterion](first, second, weight)
        losses["rec_loss"].append(first.item())
        losses["kl_loss"].append(second.item())
        losses["promised"].append((first + course.beta * second).item())
    losses["total"].append(found.item())
    return found


def losses_after(course: Course) -> dict[str, list[float]]:
    """The terms of the loss on every batch of the promised training, just after its step."""
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    batches = course.batches
    coming = (batches[i] for places in course.places for i in places)

    def look(step: int, model: Any) -> None:
        x = next(coming)
        with torch.no_grad():
            loss_of_batch(course, model, x, x, Recipe(), losses)

    train(course, Recipe(), look)
    return losses


def loss_of(course: Course, state: State) -> float:
    """The promised loss of a model with these weights over all batches, in train mode."""
    model = course.model()
    model.load_state_dict(state)
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    for x in course.batches:
        loss_of_batch(course, model, x, x, Recipe(), losses)
    return sum(losses["promised"])
