"""Probing the student's VAE: the host chooses q through a stand-in, and sees what is decoded.

`learn_habits` finds out once at which sizes the class works and how it reads q, so that a fault
that goes through the whole class is charged in one task and not in three.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autograder import interface, noise
from autograder.compare import close, described, number, plain
from autograder.draws import Draws
from autograder.interface import Interface
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import USUAL_BATCH, USUAL_NZ, images_followed
from autograder.sizes import Sizes, try_sizes
from autograder.submission import DISTURBED, Session
from autograder.worker import standins
from autograder.worker.wire import Handle, Ref

Halves = tuple[Tensor, Tensor]


def _interleaved(q: Tensor) -> Halves:
    return q[:, 0::2], q[:, 1::2]


# how q may be read, the promised way first: mean and log standard deviation, each (B, nz)
LAYOUTS: dict[str, Callable[[Tensor], Halves]] = {
    "mean-first": lambda q: (q.chunk(2, 1)[0], q.chunk(2, 1)[1]),
    "sigma-first": lambda q: (q.chunk(2, 1)[1], q.chunk(2, 1)[0]),
    "interleaved": _interleaved,
    "interleaved-sigma-first": lambda q: _interleaved(q)[::-1],
}
# what may stand where exp(log_sigma) belongs, the promised way first
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "exp of half": lambda s: torch.exp(s / 2),
    "exp of double": lambda s: torch.exp(2 * s),
    "itself": lambda s: s,
    "half of exp": lambda s: torch.exp(s) / 2,
    "double of exp": lambda s: torch.exp(s) * 2,
    "half of itself": lambda s: s / 2,
    "square": lambda s: s * s,
    "absolute value": torch.abs,
    "root of absolute value": lambda s: s.abs().sqrt(),
    "softplus": torch.nn.functional.softplus,
    "exp of minus": lambda s: torch.exp(-s),
    "exp of exp": lambda s: torch.exp(torch.exp(s)),
    "exp of minus half": lambda s: torch.exp(-s / 2),
    "one": torch.ones_like,
    "sigmoid": torch.sigmoid,
    "one more than exp": lambda s: torch.exp(s) + 1,
    "ELU plus one": lambda s: torch.nn.functional.elu(s) + 1,
    "ReLU": torch.relu,
    "tanh": torch.tanh,
}


def _logarithm(scale: str, s: Tensor) -> Tensor:
    return SCALES[scale](s.double()).log()


# scales that are positive and follow q: read so throughout, q is laid out otherwise, no more
_POSITIVE = (
    "half of exp",
    "double of exp",
    "softplus",
    "exp of minus",
    "exp of minus half",
    "exp of exp",
    "sigmoid",
    "one more than exp",
    "ELU plus one",
)
# the log standard deviation that a scale stands for, where it is a layout and not a blunder
LOGS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda s: s,
    "exp of half": lambda s: s / 2,
    "exp of double": lambda s: 2 * s,
    **{name: functools.partial(_logarithm, name) for name in _POSITIVE},
}


Line = tuple[float, float]  # slope and shift


@dataclass
class Forward:
    """One call of forward: the code q (B, 2 nz), what was returned, and what was decoded.

    code: what the images hold; q is the same, or made of it by heads of the class's own.
    """

    q: Tensor
    x: Tensor
    handle: Handle
    output: Any
    latents: list[Tensor]
    codes: Handle  # the worker's list of the encoder's codes, and which of them are of this call
    code: Tensor
    coded: tuple[int, int] = (0, 0)
    gradient: Tensor | None = None  # of the sum of all pixels of rec, with respect to q
    line: Line | None = None  # where the encoder got x shifted or scaled: its code by that of x

    @property
    def path(self) -> tuple[str | int, ...] | None:
        """Where in the output the images are: at 'rec', or wherever images are."""
        if isinstance(self.output, dict) and isinstance(self.output.get("rec"), Tensor):
            return ("rec",)
        return _find_images(self.output, len(self.q))

    @property
    def rec(self) -> Any:
        """The returned images, or None."""
        found, path = self.output, self.path
        for step in path or ():
            found = found[step]
        return None if path is None else found

    @property
    def z(self) -> Tensor | None:
        """The latent that was decoded into `rec`; the last of its size if `rec` was changed."""
        nz = self.q.shape[1] // 2
        found = decoded(self.latents, self.rec, nz, len(self.q))
        fitting = [z for z in self.latents if tuple(z.shape) == (len(self.q), nz)]
        if found is None and fitting and follows(self.rec, fitting[-1]):
            return fitting[-1]
        return found

    @property
    def keeps_image(self) -> bool:
        """Whether `rec` is what the decoder gave."""
        return decoded(self.latents, self.rec, self.q.shape[1] // 2, len(self.q)) is not None


def _find_images(value: Any, batch: int, depth: int = 0) -> tuple[str | int, ...] | None:
    if isinstance(value, Tensor):
        return () if value.shape[:1] == (batch,) and value.numel() == batch * 784 else None
    steps: Any = ()
    if depth < 3 and isinstance(value, dict):
        steps = [(k, v) for k, v in value.items() if isinstance(k, str | int)]
    elif depth < 3 and isinstance(value, list | tuple):
        steps = enumerate(value)
    for step, part in steps:
        path = _find_images(part, batch, depth + 1)
        if path is not None:
            return (step, *path)
    return None


def decoded(latents: list[Tensor], image: Any, nz: int, batch: int) -> Tensor | None:
    """Which of the latents (batch, nz) that the stand-in decoder saw gives these images."""
    shape = tuple(image.shape) if isinstance(image, Tensor) else ()
    for z in reversed(latents):
        fits = tuple(z.shape) == (batch, nz) and shape == (batch, 1, 28, 28)
        if fits and close(image, standins.Decoder(nz)(z.float())):
            return z
    return None


@dataclass(frozen=True)
class Observed:
    """A call, and what stand-ins were given meanwhile, oldest first, as the worker has it.

    records: what each was ever given, an object of the worker's; starts: how much before the call.
    """

    handle: Handle
    result: Any
    records: list[Handle]
    starts: list[int]
    seen: list[list[Tensor]]


def observe(
    session: Session, owner: Handle, method: str, args: list[Any], parts: list[Handle]
) -> Observed:
    """Call an object, or a method of it where one is named, and watch stand-ins."""
    told = session.ask("observe", owner, method, args, parts)
    match told:
        case (Handle() as handle, result, [*rows]) if len(rows) == len(parts):
            pass
        case _:
            raise Stopped(DISTURBED)
    records, starts, found = [], [], []
    for row in rows:
        match row:
            case (Handle() as record, int() as start, [*given]) if start >= 0:
                records.append(record)
                starts.append(start)
                found.append(given)
            case _:
                raise Stopped(DISTURBED)
    return Observed(handle, result, records, starts, _within_bounds(found))


def seen_by(session: Session, *parts: Handle) -> list[list[Tensor]]:
    """The tensors that each of some stand-ins was given so far, oldest first."""
    told = session.ask("seen", list(parts))
    fits = isinstance(told, list) and len(told) == len(parts)
    return _within_bounds(told if fits else [None for _ in parts])


def _within_bounds(told: list[Any]) -> list[list[Tensor]]:
    """The tensors in each of some lists, as far as they are of usual sizes."""
    left, seen = LARGEST_SEEN, []
    for found in (found if isinstance(found, list) else [] for found in told):
        kept = []
        for z in (z for z in found if isinstance(z, Tensor)):
            left -= z.numel()
            if left >= 0 and max(z.shape, default=0) <= LONGEST_SEEN:
                kept.append(plain(z) if z.dim() else plain(z)[None])  # so that all have a length
        seen.append(kept)
    return seen


MANY = (66, 79)  # images of which the noise is looked at: more than a usual batch
LARGE = (65, 90)  # numbers of a latent, or rows: more than usual
# numbers of all tensors, and rows or columns of one; the checks ask for some 300,000 and 130
LARGEST_SEEN, LONGEST_SEEN = 4_000_000, 10_000
CORRELATION = 0.3  # least, of images with what the decoder gave; unrelated ones stay below


def follows(images: Any, z: Tensor) -> bool:
    """Whether images may be what the decoder made of z, changed afterwards.

    That z was decoded is the worker's word alone; images that have nothing to do with it belie
    it. True where there are no images of that size to tell by.
    """
    if not isinstance(images, Tensor) or z.dim() != 2 or images.numel() != len(z) * 784:
        return True
    made = standins.Decoder(z.shape[1])(z.float()).detach().flatten()
    pair = torch.stack([made.double(), plain(images).flatten()])
    return abs(float(torch.corrcoef(pair)[0, 1])) >= CORRELATION


class Model:
    """A VAE of the student's with stand-ins for its networks.

    heads: layers of the class's own make q of what its encoder gives, so that the encoder keeps
    the width that the class made it for, and q is what forward returns. line: how the class
    shifts and scales codes by doing so to images, which is undone beforehand.
    """

    def __init__(
        self,
        session: Session,
        nz: int,
        beta: float,
        heads: bool = False,
        line: Line | None = None,
    ) -> None:
        self.session, self.nz, self.beta, self.heads = session, nz, beta, heads
        self.line = line or (1.0, 0.0)
        if session.model_class is None:
            session.ask("take_over")
            session.model_class = session.read("VAE"), session.misreads_arguments("VAE")
        made = self._make(*session.model_class)
        if not isinstance(made, Handle):
            raise Unchecked("`VAE(nz, beta)` should give an `nn.Module`.", "wrong-return")
        self.handle = made
        match session.ask("parts", made, None if heads else 2 * nz, nz):
            case [Handle() as encoder, Handle() as decoder, own]:
                self.encoder, self.decoder = encoder, decoder
            case _:
                raise Stopped(DISTURBED)
        self._keep_beta(number(own))

    def _make(self, kind: Any, misreads_arguments: bool) -> Any:
        """An object of the class: without its beta, or bare, if the constructor fails otherwise.

        What a failing constructor costs is charged in vae-forward.
        """
        if misreads_arguments:
            with contextlib.suppress(Raised):
                return self.session.call(kind, nz=self.nz, beta=self.beta)
        ways: list[Callable[[], Any]] = [
            lambda: self.session.call(kind, self.nz, self.beta),
            lambda: self.session.call(kind, self.nz),
            lambda: self.session.ask("bare", kind, self.nz, self.beta),
        ]
        first: Unchecked | None = None
        for way in ways:
            try:
                return way()
            except (NotAttempted, Stopped):
                raise
            except Unchecked as error:
                first = first or error
        assert first is not None
        raise first

    def _keep_beta(self, own: float | None) -> None:
        """Give the model its beta where its constructor did not: that was charged already."""
        if own is not None and abs(own - self.beta) <= 1e-5 * self.beta:
            return
        with contextlib.suppress(Raised):
            self.session.set_attribute(self.handle, "beta", self.beta)

    def mode(self, training: bool) -> None:
        """Train or eval mode."""
        self.session.ask("mode", self.handle, training)

    def forward(self, q: Tensor, gradient: bool = False) -> Forward:
        """Call the model on images that hold the code q."""
        slope, shift = self.line
        x = standins.image_of((q - shift) / slope)
        try:
            observed = self._observe("", x)
        except Raised as error:
            self._look_at_latents(error, len(q))
            raise
        code, handle, output = code_of(x, q), observed.handle, observed.result
        (latents, encoded), codes, coded = observed.seen, observed.records[1], observed.starts[1]
        returned = self._returned(output, q) if self.heads else code
        made = Forward(returned, x, handle, output, latents, codes, code)
        made.coded = (coded, coded + len(encoded))
        if not self.heads:
            made.line = _line_of(output, code)
            made.q = code if made.line is None else plain(output["q"]).float()
        if encoded and not any(len(e) == len(q) for e in encoded):
            self._look_for_images(x)
        if gradient and made.path is not None:
            leaves = [Ref(codes, (i,)) for i in range(*made.coded)]
            told = self.session.gradients(Ref(handle, made.path), leaves)
            found = [plain(g) for g in told if g is not None]
            if found and all(g.shape == found[0].shape for g in found):
                made.gradient = torch.stack(found).sum(0)
        return made

    def _look_for_images(self, x: Tensor) -> None:
        """Raise `Unchecked` where a tensor of the notebook is encoded in place of x."""

        def encoded() -> Tensor | None:
            seen = self._observe("", x).seen[1]
            return seen[-1] if seen else None

        name = images_followed(self.session, "VAE", encoded)
        if name is not None:
            text = f"`forward` encodes the notebook's `{name}`, not the images that it is given."
            raise Unchecked(text, "hidden-global")

    @staticmethod
    def _returned(output: Any, q: Tensor) -> Tensor:
        found = output.get("q") if isinstance(output, dict) else None
        if not isinstance(found, Tensor) or found.shape != q.shape:
            text = f"'q' should be one tensor of {tuple(q.shape)}, not {described(found)}."
            raise Wrong(text, "q-structure")
        return plain(found)

    def _look_at_latents(self, error: Raised, batch: int) -> None:
        """Say of an exception that a latent of the wrong size was decoded, if one was."""
        told = self.session.ask("lately")
        of_decoder = told[:1] if isinstance(told, list) else []  # none, if nothing was called
        for z in itertools.chain(*_within_bounds(of_decoder)):
            if tuple(z.shape) != (batch, self.nz) and error.misconception is None:
                error.misconception = "wrong-latent"
                error.message += f" The decoder got {tuple(z.shape)}, not {(batch, self.nz)}."

    def latents(self) -> list[Tensor]:
        """The latents decoded so far, oldest first."""
        return seen_by(self.session, self.decoder)[0]

    def _observe(self, method: str, *args: Any) -> Observed:
        return observe(self.session, self.handle, method, list(args), [self.decoder, self.encoder])

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the model."""
        return self.session.ask("method", self.handle, method, list(args))

    def watched(self, method: str, *args: Any) -> tuple[Any, list[Tensor]]:
        """What a method of the model returns, and the latents that were decoded meanwhile."""
        observed = self._observe(method, *args)
        return observed.result, observed.seen[0]


def _line_of(output: Any, code: Tensor) -> Line | None:
    """How the returned q follows from the code of x, where all images were shifted or scaled."""
    found = output.get("q") if isinstance(output, dict) else None
    if not isinstance(found, Tensor) or found.shape != code.shape or code.numel() < 8:
        return None
    q, apart = plain(found), code.double() - code.double().mean()
    slope = float((q * apart).mean() / apart.square().mean())
    shift = float(q.mean() - slope * code.double().mean())
    right = close(found, code) or not abs(slope) > 1e-3
    return (slope, shift) if not right and close(found, slope * code.double() + shift) else None


def code_of(x: Tensor, q: Tensor) -> Tensor:
    """The code that the stand-in encoder reads from an image, bit for bit."""
    code: Tensor = standins.Encoder(q.shape[1])(x).detach()
    return code


def draw_code(draws: Draws, batch: int, nz: int) -> Tensor:
    """q with means in (-4, 4) and log standard deviations in (-2, 1.2); (batch, 2 nz)."""
    mean = draws.uniform(batch, nz, low=-4, high=4)
    log_sigma = draws.uniform(batch, nz, low=-2, high=1.2)
    return torch.cat([mean, log_sigma], 1)


@dataclass(frozen=True)
class Reading:
    """How the decoded latent follows from q; None where it does not."""

    layout: str | None = None
    scale: str | None = None
    noise: str | None = None  # normal, uniform, none
    shared: str | None = None  # frozen, batch, vector, some

    @property
    def right(self) -> bool:
        """Whether it is mean + exp(log_sigma) * something."""
        return self.layout == "mean-first" and (self.scale == "exp" or self.noise == "none")

    def halves(self, q: Tensor) -> Halves:
        """Mean and log standard deviation as the student reads them."""
        mean, raw = LAYOUTS[self.layout or "mean-first"](q)
        return mean, LOGS.get(self.scale or "exp", LOGS["exp"])(raw)


def read_latents(calls: list[Forward]) -> Reading:
    """The reading of q, nearest to the promise, that explains every decoded latent."""
    pairs = [(call.q.double(), call.z.double()) for call in calls if call.z is not None]
    if not pairs or len(pairs) < len(calls):
        return Reading()
    found: list[tuple[int, Reading]] = []
    for i, (layout, split) in enumerate(LAYOUTS.items()):
        for j, (scale, rule) in enumerate(SCALES.items()):
            errors = []
            for q, z in pairs:
                mean, raw = split(q)
                errors.append((z - mean) / rule(raw))
            what, shared = noise.kind(errors)
            if what in ("scaled", "shifted", "uniform of another range") and (
                i > 1 or scale != "exp"
            ):
                continue  # any spread is normal to some scale
            if what is not None and not _follows_code(errors, pairs, torch.square):
                odd = {"normal": 0, "scaled": 5, "shifted": 5}.get(what, 3)
                distance = 4 * bool(i) + 3 * bool(j) + odd + bool(shared)
                found.append((distance, Reading(layout, scale, what, shared)))
                if distance == 0:
                    return found[-1][1]
    if not found and _has_right_spread(pairs):
        return Reading("mean-first", "exp", "other")
    return min(found, key=lambda f: f[0])[1] if found else Reading()


def _follows_code(
    errors: list[Tensor], pairs: list[tuple[Tensor, Tensor]], measure: Callable[[Tensor], Tensor]
) -> bool:
    """Whether what should be noise, as measured, goes with the mean or log standard deviation."""
    measured = measure(torch.cat([e.flatten() for e in errors]))
    halves = zip(*(LAYOUTS["mean-first"](q) for q, _ in pairs), strict=True)
    return any(noise.goes_with(measured, torch.cat([h.flatten() for h in p])) for p in halves)


def _has_right_spread(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether z is mean + exp(log_sigma) * e with some e that has nothing to do with q.

    A hint which of two checks a wrong e costs.
    """
    halves = [(LAYOUTS["mean-first"](q), z) for q, z in pairs]
    errors = [(z - mean) / s.exp() for (mean, s), z in halves]
    measures = (lambda e: e.clamp(-5, 5), lambda e: e.abs().clamp(min=1e-6).log())
    return not any(_follows_code(errors, pairs, measure) for measure in measures)


@dataclass
class Habits:
    """What goes through the whole class: the sizes it works at, how it reads and returns q.

    own: whether forward returns something else than promised, which its loss may take. heads: see
    `Model`. line: likewise.
    """

    sizes: Sizes | None = None  # None: forward works nowhere
    reading: Reading = field(default_factory=Reading)
    own: bool = False
    heads: bool = False
    line: Line | None = None
    interface: Interface = field(default_factory=Interface)


def reads_model(session: Session) -> bool:
    """Whether the class reads a variable of the notebook that holds a model: a hint."""
    return "module" in session.reads("VAE").values()


def learn_habits(session: Session, draws: Draws) -> Habits:
    """How the student's VAE works, whatever it should do; raises `Unchecked` where it does not."""
    found = _learn_habits(session, draws)
    if found.reading.layout is not None:
        return found
    try:
        other = _learn_habits(session, draws, heads=True)
    except (Wrong, Unchecked):
        return found
    return found if other.reading.layout is None else other


def _learn_habits(session: Session, draws: Draws, heads: bool = False) -> Habits:
    def works(nz: int, batch: int) -> bool:
        call = Model(session, nz, 1.0, heads).forward(draw_code(draws, batch, nz))
        return call.z is not None and tuple(call.z.shape) == (batch, nz)

    sizes = try_sizes(session, draws, works)
    if sizes is None:
        return Habits()
    habits = Habits(sizes, heads=heads)
    calls = evidence(session, draws, habits, training=True)
    if calls[0].line is not None:
        habits.line = calls[0].line
        calls = evidence(session, draws, habits, training=True)
    if not heads or _follows_images(session, draws, sizes):
        habits.reading = read_latents(calls)
    habits.own = not _is_promised(calls[0])
    habits.interface = _learn_interface(session, draws, habits)
    return habits


def _follows_images(session: Session, draws: Draws, sizes: Sizes) -> bool:
    """Whether the q of a class with heads is a function of the encoder's codes, in every column."""
    nz, batch = sizes.draw_nz(draws, *LARGE), sizes.draw_batch(draws, *MANY)
    model, code = Model(session, nz, 1.0, heads=True), draw_code(draws, batch, nz)
    first, second = (model.forward(code) for _ in range(2))
    leaves = [Ref(first.codes, (i,)) for i in range(*first.coded)]
    told = session.gradients(Ref(first.handle, ("q",)), leaves)
    reached = any(g is not None and bool((g != 0).any()) for g in told)
    return reached and close(first.q, second.q) and bool((first.q.std(0) > 1e-3).all())


def _is_promised(call: Forward) -> bool:
    output = call.output
    return isinstance(output, dict) and close(output.get("q"), call.code) and call.path == ("rec",)


def _learn_interface(session: Session, draws: Draws, habits: Habits) -> Interface:
    """What forward and the loss give, for outputs of the student's own forward."""
    sizes = habits.sizes or Sizes()
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    try:
        model = Model(session, nz, 2.0, habits.heads)
        call = model.forward(draw_code(draws, batch, nz))
    except Unchecked:
        return Interface()
    made = interface.Call(call.x, call.handle, call.output, call.q, call.z, call.path, 2.0)
    return interface.learn(made, functools.partial(model.call, "loss"))


def evidence(
    session: Session,
    draws: Draws,
    habits: Habits,
    training: bool,
    exchanged: bool = False,
    count: int = 6,
) -> list[Forward]:
    """Calls of forward on large batches, all of one size; some 4,000 latent numbers in each.

    In train mode the batch is of the homework's size, in eval mode the latent is; or `exchanged`.
    """
    sizes = habits.sizes or Sizes()
    usual_batch = training != exchanged
    nz = sizes.draw_nz(draws, *(LARGE if usual_batch else (USUAL_NZ, USUAL_NZ)))
    batch = sizes.draw_batch(draws, *((USUAL_BATCH, USUAL_BATCH) if usual_batch else MANY))
    model = Model(session, nz, draws.real(0.2, 3.0), habits.heads, habits.line)
    model.mode(training)
    return [model.forward(draw_code(draws, batch, nz), gradient=True) for _ in range(count)]
