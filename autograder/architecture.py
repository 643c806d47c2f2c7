"""What the encoder and decoder checks share: make the network, try sizes, trace, confirm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from autograder import layers, networks, referee, specs
from autograder.compare import close, described
from autograder.draws import Draws
from autograder.layers import Block, Layer
from autograder.networks import Network, Unconfirmed
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import USUAL_BATCH, USUAL_NZ, images_followed, numbers_read, sizes_written
from autograder.specs import Spec
from autograder.submission import Session
from autograder.worker.wire import Graph, Handle, Ref

SIZES = st.tuples(
    st.integers(1, 150).filter(lambda nz: nz != USUAL_NZ), st.integers(1, 9), st.booleans()
)

HALF = 37  # of a large batch; together more than 64


@dataclass(frozen=True)
class Confirmed:
    """A network that was confirmed: with the weights that the host drew, and where it is.

    nz and batch: the sizes that it was traced at.
    """

    network: Network
    module: Handle
    nz: int
    batch: int


class Architecture:
    """One of the two networks: its name, inputs, output shape and specification."""

    def __init__(
        self,
        name: str,
        spec: list[Spec],
        inputs: Callable[[Draws, int, int], Tensor],
        others: Callable[[Draws, int, int], Tensor],
        shape: Callable[[int, int], tuple[int, ...]],
    ) -> None:
        """others: inputs unlike those that are traced, such as the homework has, too."""
        self.name, self.spec, self.shape = name, spec, shape
        self.inputs, self.others = inputs, others

    def make(self, session: Session, nz: int) -> Handle:
        """A network of the student's; raises `Unchecked`."""
        made = session.call(session.read(self.name), nz)
        if not isinstance(made, Handle) or not made.kind.startswith("module"):
            raise Unchecked(f"`{self.name}(nz)` should be an `nn.Module`.", "wrong-return")
        return made

    def answer(self, session: Session, draws: Draws, nz: int, batch: int, training: bool) -> Any:
        """What a fresh network answers to a batch."""
        return self._answer_of(session, draws, self.make(session, nz), nz, batch, training)

    def _answer_of(
        self, session: Session, draws: Draws, network: Handle, nz: int, batch: int, training: bool
    ) -> Any:
        """What a network answers to a batch."""
        session.ask("mode", network, training)
        return session.call(network, self.inputs(draws, nz, batch))

    def fits(self, answer: Any, nz: int, batch: int) -> bool:
        """Whether an answer has the promised shape."""
        return isinstance(answer, Tensor) and tuple(answer.shape) == self.shape(nz, batch)

    def check_shape(self, session: Session, draws: Draws) -> None:
        """Any nz, any batch, both modes; raises `Wrong`."""
        large = (draws.integer(2, 60), draws.integer(65, 200), False)
        for nz, batch, training in [*draws.examples(SIZES, 6), large]:
            batch += training  # batch norm at 1x1 needs two examples
            try:
                answer = self.answer(session, draws, nz, batch, training)
            except (NotAttempted, Stopped):
                raise
            except Unchecked as error:
                if error.misconception is not None:
                    raise
                raise self._explain(session, draws, nz, batch, error) from error
            if not self.fits(answer, nz, batch):
                text = f"`{self.name}({nz})` on a batch of {batch} should give " + (
                    f"{self.shape(nz, batch)}, not {described(answer)}."
                )
                slug = "wrong-shape" if isinstance(answer, Tensor) else "wrong-return"
                raise self._explain(session, draws, nz, batch, Wrong(text, slug))

    def _explain(self, session: Session, draws: Draws, nz: int, batch: int, error: Wrong) -> Wrong:
        """Find what an answer depends on that it should not."""
        if self._works(session, draws, draws.integer(2, 60), draws.integer(3, 9)):
            return error
        name = self._images_read(session, draws, nz, batch)
        if name is not None:
            text = f"`{self.name}` reads the notebook's `{name}`; use its argument."
            return Wrong(text, "hidden-global")
        if self._reads_global(session, draws, nz, batch):
            text = f"`{self.name}` uses a variable of the notebook where its argument belongs."
            return Wrong(text, "hidden-global")
        written = sizes_written(session, self.name)
        # what is as wide as a layer may fit by chance
        widths = {row.channels for row in self.spec} - {USUAL_NZ}
        if self._is_constant(session, draws) or any(
            self._works(session, draws, fixed, batch)
            and (fixed not in widths or self._takes(session, draws, fixed, batch))
            for fixed in written
        ):
            return Wrong(
                f"`{self.name}` does not depend on nz as it should; it was made with nz = {nz}.",
                "hard-coded-nz",
            )
        for fixed in written:
            if self._works(session, draws, nz, fixed):
                text = f"`{self.name}` works for batches of {fixed} only, not of {batch}."
                return Wrong(text, "hard-coded-batch")
        return self._explain_by_layers(session, draws, nz, batch, error)

    def _works(self, session: Session, draws: Draws, nz: int, batch: int) -> bool:
        try:
            return self.fits(self.answer(session, draws, nz, batch, batch > 1), nz, batch)
        except Raised:
            return False

    def _takes(self, session: Session, draws: Draws, fixed: int, batch: int) -> bool:
        """Whether a network that is made for another nz works as one for `fixed`."""
        try:
            module, x = self.make(session, fixed + 5), self.inputs(draws, fixed, batch)
            session.ask("mode", module, False)
            return self.fits(session.call(module, x), fixed, batch)
        except Raised:
            return False

    def _images_read(self, session: Session, draws: Draws, nz: int, batch: int) -> str | None:
        """A tensor of the notebook that the answer follows."""
        try:
            module, x = self.make(session, nz), self.inputs(draws, nz, batch)
            session.ask("mode", module, False)
        except Raised:
            return None
        return images_followed(session, self.name, lambda: session.call(module, x))

    def _is_constant(self, session: Session, draws: Draws) -> bool:
        """Whether the answer has the same shape whatever nz is."""
        try:
            answers = [self.answer(session, draws, nz, 4, True) for nz in (7, 19)]
        except Raised:
            return False
        first, second = answers
        return (
            self.shape(7, 4) != self.shape(19, 4)
            and isinstance(first, Tensor)
            and isinstance(second, Tensor)
            and first.shape == second.shape
        )

    def _reads_global(self, session: Session, draws: Draws, nz: int, batch: int) -> bool:
        for name in numbers_read(session, self.name):
            before = session.read(name)
            for value in (nz, batch):
                session.set_global(name, value)
                works = self._works(session, draws, nz, batch)
                session.set_global(name, before)
                if works:
                    return True
        return False

    def _explain_by_layers(
        self, session: Session, draws: Draws, nz: int, batch: int, error: Wrong
    ) -> Wrong:
        """Name the first layer that is not as specified, as far as the network got."""
        try:
            told = self._trace(session, draws, nz, max(batch, 2), True)
            complete = isinstance(told.get("output"), Tensor)
            network = networks.claimed(told if complete else networks.as_far_as_it_got(told))
            before, found = layers.blocks(referee.read(network, told["input"]))
            if not complete and len(found) < 2:
                return error  # it ended before its first layer was through
            spec = self.spec if complete else self.spec[: len(found)]
            specs.compare_weights(found, spec)
            ended = len(found) if complete else max(len(found) - 1, 0)
            specs.compare_rest(before, found[:ended], spec[:ended], training=True)
        except Wrong as fault:
            if not isinstance(fault, Unchecked):
                return Wrong(f"{error.message} {fault.message}", fault.misconception)
        return error

    def _trace(
        self, session: Session, draws: Draws, nz: int, batch: int, training: bool
    ) -> dict[str, Any]:
        network = self.make(session, nz)
        x = self.inputs(draws, nz, batch)
        told = session.ask("trace", network, x, training)
        return {**told, "input": x} if isinstance(told, dict) else {"input": x}

    def confirmed(
        self, session: Session, draws: Draws, training: bool, nz_range: tuple[int, int] = (2, 60)
    ) -> tuple[Network, Confirmed]:
        """The network that the student's is, confirmed on fresh inputs; raises `Wrong`.

        It has the weights that the student's had when it was made. The student's has others now,
        drawn by the host.
        """
        module, nz, batch = self._working(session, draws, *nz_range)
        session.ask("mode", module, False)  # once in each mode: lazy layers take form
        session.call(module, self.inputs(draws, nz, batch))
        told = session.ask("trace", module, self.inputs(draws, nz, batch), training)
        output = told.get("output") if isinstance(told, dict) else None
        if not isinstance(output, Tensor):
            text = f"`{self.name}` should return one tensor, not {described(output)}."
            raise Wrong(text, "wrong-return")
        try:
            network = networks.claimed(told)
            if not network.follows_input:
                text = f"What `{self.name}` returns does not follow from its input by torch alone."
                raise Wrong(f"{text} No gradient leads back.", "detached-gradient")
            self._check_agreement(session, draws, network, module, nz, batch)
            drawn = self._redrawn(session, draws, network, module, told)
            self._check_agreement(session, draws, drawn, module, nz, batch)
            self._check_quiet(session, draws, module, nz, batch)
        except Unconfirmed as error:
            raise self._unconfirmed(told, error) from error
        return network, Confirmed(drawn, module, nz, batch)

    def _check_agreement(
        self, session: Session, draws: Draws, network: Network, module: Handle, nz: int, batch: int
    ) -> None:
        for x in (self.inputs(draws, nz, batch), self.others(draws, nz, batch)):
            if not networks.agree(referee.run(network, x), session.call(module, x)):
                raise Unconfirmed("its operations do not repeat, or not for every input")

    def _check_quiet(
        self, session: Session, draws: Draws, module: Handle, nz: int, batch: int
    ) -> None:
        """A network answers the same under `torch.no_grad()`; raises `Wrong`."""
        x = self.inputs(draws, nz, batch)
        usual = session.call(module, x)
        with session.without_gradients():
            quiet = session.call(module, x)
        if not close(quiet, usual):
            text = f"`{self.name}` answers otherwise where no gradients are recorded."
            raise Wrong(f"{text} It should not ask for that.")

    @staticmethod
    def _redrawn(
        session: Session, draws: Draws, network: Network, module: Handle, told: Any
    ) -> Network:
        """The network, and the student's, with weights that the host draws around theirs.

        Weights that are zero would hide what stands before them from the comparison.
        """
        names, values = networks.parameters_told(told), dict[int, Tensor]()
        for number in network.parameters:
            old = network.values[number]
            if number not in names:
                raise Unconfirmed("its weights have no names")
            if old.is_floating_point():
                spread = 0.3 if old.dim() < 2 else max(math.prod(old.shape[1:]), 1) ** -0.5
                values[number] = old + (spread * draws.normal(*old.shape)).to(old.dtype)
        session.ask("put", module, {names[number]: value for number, value in values.items()})
        return network.with_values(values)

    def _unconfirmed(self, told: Any, error: Unconfirmed) -> Wrong:
        """What in the trace may have made it impossible to repeat."""
        names = networks.names_told(told)
        if any("dropout" in n or "bernoulli" in n for n in names):
            return Wrong(
                f"`{self.name}` has a dropout, where the specification has none.", "extra-layer"
            )
        if any("rrelu" in n for n in names):
            return Wrong("Expected LeakyReLU, found a random one.", "wrong-activation")
        if any(n in name for name in names for n in ("normal_", "uniform_")):
            text = f"`{self.name}` draws random numbers as it runs, where the specification has"
            text = f"{text} none. If it makes layers in `forward`, make them in `__init__`."
            return Wrong(text, "extra-layer")
        if any("rand" in n for n in names):
            text = f"`{self.name}` draws random numbers, where the specification has none."
            return Wrong(text, "extra-layer")
        if isinstance(told, dict) and not isinstance(told.get("output"), Graph):
            text = f"What `{self.name}` returns does not hang together with its weights."
            return Wrong(f"{text} No gradient leads back.", "detached-gradient")
        return Wrong(f"`{self.name}` could not be followed layer by layer: {error.reason}.")

    def _working(
        self, session: Session, draws: Draws, low: int, high: int
    ) -> tuple[Handle, int, int]:
        """A network that ran in train mode, its nz and batch size: any, if it keeps its promise.

        low, high: the bounds of the nz that is tried first.
        """
        sizes = [(draws.integer(low, high), draws.integer(2, 8))]
        last: Unchecked | None = None
        for nz, batch in itertools.chain(sizes, self._other_sizes(session, draws)):
            try:
                module = self.make(session, nz)
                self._answer_of(session, draws, module, nz, batch, True)
                return module, nz, batch
            except (NotAttempted, Stopped):
                raise
            except Unchecked as error:
                last = last or error
        assert last is not None
        if last.misconception is not None:
            raise last
        raise self._explain_by_layers(session, draws, *sizes[0], last)

    def _other_sizes(self, session: Session, draws: Draws) -> Iterator[tuple[int, int]]:
        """Sizes that a network may be held to: each alone, then both."""
        written = sizes_written(session, self.name)
        yield from ((fixed, draws.integer(2, 8)) for fixed in written)
        yield from ((draws.integer(2, 60), fixed) for fixed in written)
        yield from itertools.product(written[:6], repeat=2)

    def check_weights(self, session: Session, draws: Draws) -> None:
        """Convolutions and linear layers; raises `Wrong`."""
        try:
            network, made = self.confirmed(session, draws, training=False, nz_range=(65, 110))
        except Wrong as fault:
            if fault.misconception != "extra-layer":
                raise
            session.ask("without_dropout")  # one in eval mode, too, is charged with the rest
            network, made = self.confirmed(session, draws, training=False, nz_range=(65, 110))
        x = self.inputs(draws, made.nz, made.batch)
        try:
            specs.compare_weights(layers.blocks(referee.read(network, x))[1], self.spec)
        except Wrong as fault:
            if self._by_effect(made, x) is None:
                if isinstance(fault, Unconfirmed):
                    raise self._unconfirmed({}, fault) from fault
                raise
        if x.dim() == 2:
            self._check_latents(session, draws, made)

    def _check_latents(self, session: Session, draws: Draws, made: Confirmed) -> None:
        """Every number of a latent counts, if any does."""
        place = self._unread(draws, made)
        if place is None:
            return
        _, small = self.confirmed(session, draws, training=False, nz_range=(2, 9))
        slug = "wrong-channels" if self._unread(draws, small) is not None else "hard-coded-nz"
        text = f"Number {place + 1} of the {made.nz} of a latent is not read."
        raise Wrong(f"{text} The linear layer should take all of them.", slug)

    def _unread(self, draws: Draws, made: Confirmed) -> int | None:
        """The place of a number of the latents that changes nothing, though others do."""
        x = self.inputs(draws, made.nz, made.batch)
        seen = referee.run(made.network, x)
        if torch.equal(referee.run(made.network, x + 1), seen):
            return None
        for place in (0, made.nz // 2, made.nz - 1):
            other = x.clone()
            other[:, place] += 1
            if torch.equal(referee.run(made.network, other), seen):
                return place
        return None

    def _by_effect(self, made: Confirmed, x: Tensor) -> tuple[list[Layer], list[Block]] | None:
        """The network read by what its operations do, if its weights are as specified then."""
        try:
            before, found = layers.blocks(referee.read(made.network, x, by="effects"))
            specs.compare_weights(found, self.spec)
        except Wrong:
            return None
        return before, found

    def check_rest(self, session: Session, draws: Draws) -> None:
        """Norms, activations, nothing else, both modes, and a whole gradient; raises `Wrong`."""
        faults: dict[bool, Wrong] = {}
        for training in (False, True):
            try:
                self._check_rest_in_mode(session, draws, training)
            except Unconfirmed as error:
                raise self._unconfirmed({}, error) from error
            except Unchecked:
                raise
            except Wrong as fault:
                faults[training] = fault
        if not faults:
            self._check_own_layers(session)
            return
        mode, first = next(iter(faults.items()))
        by_itself = (None, "extra-layer", "detached-gradient", "hard-coded-batch")
        by_chance = isinstance(first.__cause__, Unconfirmed)  # a random layer shows in train mode
        if len(faults) == 1 and first.misconception not in by_itself and not by_chance:
            text = f"In {'train' if mode else 'eval'} mode: {first.message}"
            raise Wrong(text, "mode-dependent")
        raise first

    def _check_own_layers(self, session: Session) -> None:
        """No weights in common with another network of the class."""
        try:
            one, other = self.make(session, USUAL_NZ), self.make(session, USUAL_NZ)
            own, before = session.ask("state", one), session.ask("state", other)
            more = {n: v + 1 for n, v in own.items() if v.is_floating_point()}
            session.ask("load", one, {**own, **more})
            after = session.ask("state", other)
            shared = [n for n, v in before.items() if not torch.equal(v, after[n])]
        except (Raised, AttributeError, KeyError, TypeError, RuntimeError):
            return  # weights that take form later, or have none: that much was confirmed
        if shared:
            text = f"Every `{self.name}` has the same `{shared[0]}`, so that training one changes"
            raise Wrong(f"{text} the others: make its layers in `__init__`.", "hidden-global")

    def _check_rest_in_mode(self, session: Session, draws: Draws, training: bool) -> None:
        nz_range = (2, 60) if training else (USUAL_NZ, USUAL_NZ)
        network, made = self.confirmed(session, draws, training, nz_range)
        x = self.inputs(draws, made.nz, made.batch)
        self._check_reading(session, draws, network, made, x, training)
        if not training:
            self._check_single(session, draws, made)
            self._check_gradient(session, draws, made)
        else:
            self._check_halves(session, draws, made)

    def _check_reading(
        self,
        session: Session,
        draws: Draws,
        network: Network,
        made: Confirmed,
        x: Tensor,
        training: bool,
    ) -> None:
        """Norms, activations and all else, in a reading in which the weights are as specified.

        By operations, if they are in neither: then that has been charged.
        """
        try:
            before, found = layers.blocks(referee.read(network, x))
            specs.compare_weights(found, self.spec)
        except Wrong as fault:
            by_effect = self._by_effect(made, x)
            if by_effect is not None:
                before, found = by_effect
            elif isinstance(fault, Unconfirmed) or (training and self._excused(session, draws)):
                raise
            specs.compare_rest(before, found, self.spec, training)
            return
        try:
            specs.compare_rest(before, found, self.spec, training)
        except Wrong:
            by_effect = self._by_effect(made, x)
            if by_effect is None or self._is_wrong(*by_effect, training):
                raise

    def _is_wrong(self, before: list[Layer], found: list[Block], training: bool) -> bool:
        try:
            specs.compare_rest(before, found, self.spec, training)
        except Wrong:
            return True
        return False

    def _excused(self, session: Session, draws: Draws) -> bool:
        """Whether the weights, in eval mode, are as specified by effect alone."""
        network, made = self.confirmed(session, draws, training=False)
        x = self.inputs(draws, made.nz, made.batch)
        try:
            specs.compare_weights(layers.blocks(referee.read(network, x))[1], self.spec)
        except Wrong:
            return self._by_effect(made, x) is not None
        return False

    def _check_single(self, session: Session, draws: Draws, made: Confirmed) -> None:
        """In eval mode the rest of a batch, as large as the homework's, does not matter."""
        x = self.inputs(draws, made.nz, USUAL_BATCH)
        session.ask("mode", made.module, False)
        try:
            whole, single = session.call(made.module, x), session.call(made.module, x[:1])
        except Raised:
            return  # a network that works for some batches only was charged for that
        whole = whole[:1] if isinstance(whole, Tensor) and whole.dim() else None
        if isinstance(whole, Tensor) and getattr(single, "shape", None) != whole.shape:
            return  # so was one whose answer has another shape for a batch of one
        if whole is None or not networks.agree(whole, single):
            text = f"`{self.name}` answers otherwise when it is given a single row."
            raise Wrong(text, "hard-coded-batch")

    def _check_halves(self, session: Session, draws: Draws, made: Confirmed) -> None:
        """A large batch of the same twice: what belongs to a batch is the same for both halves."""
        half = self.inputs(draws, made.nz, HALF)
        session.ask("mode", made.module, True)
        try:
            answer = session.call(made.module, torch.cat([half, half]))
        except Raised:
            return  # as above
        if not isinstance(answer, Tensor) or answer.shape[:1] != (2 * HALF,):
            return
        if not networks.agree(answer[:HALF], answer[HALF:]):
            text = f"In train mode `{self.name}` treats the images of a large batch differently:"
            raise Wrong(f"{text} the whole batch belongs together.", "hard-coded-batch")

    def _check_gradient(self, session: Session, draws: Draws, made: Confirmed) -> None:
        x = self.inputs(draws, made.nz, made.batch)
        weights = draws.normal(*self._output_shape(made.network, x))
        session.ask("mode", made.module, False)
        theirs = session.ask("parameter_gradients", made.module, x, weights)
        ours = referee.gradients(made.network, x, weights)
        if not isinstance(theirs, list) or len(theirs) != len(ours):
            raise Unchecked("The parameters changed between two calls of the network.")
        for mine, yours in zip(ours, theirs, strict=True):
            if mine is not None and (yours is None or not networks.agree(mine, yours)):
                raise Wrong(
                    f"The gradient does not reach every weight of `{self.name}`.",
                    "detached-gradient",
                )
        if x.dim() == 2:  # an encoder gives it what has to learn
            leaves = session.hold("leaves", [x])
            answer, _ = session.keep_call(made.module, Ref(leaves, (0,)))
            (back,) = session.gradients(Ref(answer), [Ref(leaves, (0,))])
            if back is None or not bool(back.any()):
                text = "No gradient leads back to the latents, so an encoder could not learn."
                raise Wrong(text, "detached-gradient")

    @staticmethod
    def _output_shape(network: Network, x: Tensor) -> tuple[int, ...]:
        return tuple(referee.run(network, x).shape)
