"""The rows of a specification, and how the layers that were found are held against them."""

from __future__ import annotations

from dataclasses import dataclass

from autograder.contract import counted
from autograder.layers import Block, Layer
from autograder.outcomes import Wrong


@dataclass(frozen=True)
class Spec:
    """A row of the specification: a layer with weights, its norm and its activation."""

    kind: str
    channels: int
    kernel: int = 0
    resolution: int = 0
    norm: bool = False
    activation: str = ""

    def __str__(self) -> str:
        size = f"{self.resolution}x{self.resolution}"
        names = {"conv": "convolution", "transposed": "transposed convolution"}
        if self.kind == "linear":
            return f"the linear layer to {self.channels}" if self.channels else "the linear layer"
        return f"the {names[self.kind]} to {counted(self.channels, 'channel')} at {size}"


def compare_weights(found: list[Block], spec: list[Spec]) -> None:
    """Hold layers with weights against the specification; raises `Wrong` at the first fault."""
    _compare_sequence(found, spec)
    for block, row in zip(found, spec, strict=True):
        _compare_layer(block, row)


def _compare_sequence(found: list[Block], spec: list[Spec]) -> None:
    pairs = _align(found, spec)
    ours = sorted((r.kind, r.channels) for r in spec if r.kind != "linear")
    theirs = sorted((b.weight.kind, b.weight.channels) for b in found if b.weight.kind != "linear")
    if (
        ours == theirs
        and len(found) == len(spec)
        and any(
            b.weight.kind != r.kind or (r.kind != "linear" and b.weight.channels != r.channels)
            for b, r in zip(found, spec, strict=True)
        )
    ):
        raise Wrong("The layers are the right ones, but in another order.", "wrong-order")
    for block, row in pairs:
        if block is None and row is not None:
            seen = _named([b.weight for b in found])
            raise Wrong(f"There is no layer for {row}; found: {seen}.", "missing-layer")
    for block, row in pairs:
        if row is None and block is not None:
            seen = _named([block.weight])
            raise Wrong(f"There is a layer too many: {seen}.", "extra-layer")


def _named(found: list[Layer]) -> str:
    def one(layer: Layer) -> str:
        if layer.kind == "linear":
            return f"linear to {layer.channels}"
        size = "x".join(map(str, layer.resolution))
        kind = "conv" if layer.kind == "conv" else "transposed conv"
        return f"{kind} to {layer.channels} at {size}"

    return ", ".join(one(layer) for layer in found) or "none"


def _cost(block: Block, row: Spec) -> float:
    if block.weight.kind != row.kind:
        return 3.0
    if row.kind == "linear":
        return 0.0 if block.weight.channels == row.channels or not row.channels else 0.5
    return (
        0.6 * (block.weight.channels != row.channels)
        + 0.3 * ((row.resolution, row.resolution) not in block.resolutions)
        + 0.2 * (block.weight.kernel != (row.kernel, row.kernel))
    )


def _align(found: list[Block], spec: list[Spec]) -> list[tuple[Block | None, Spec | None]]:
    """The cheapest alignment of two sequences; a gap costs 1."""
    best: dict[tuple[int, int], tuple[float, list[tuple[Block | None, Spec | None]]]] = {}
    for i in range(len(found), -1, -1):
        for j in range(len(spec), -1, -1):
            options: list[tuple[float, list[tuple[Block | None, Spec | None]]]] = []
            if i < len(found):  # first: of two that fit, the earlier one is too many
                cost, rest = best[i + 1, j]
                options.append((cost + 1, [(found[i], None), *rest]))
            if i < len(found) and j < len(spec):
                cost, rest = best[i + 1, j + 1]
                options.append((cost + _cost(found[i], spec[j]), [(found[i], spec[j]), *rest]))
            if j < len(spec):
                cost, rest = best[i, j + 1]
                options.append((cost + 1, [(None, spec[j]), *rest]))
            best[i, j] = min(options, key=lambda o: o[0]) if options else (0.0, [])
    return best[0, 0][1]


def _compare_layer(block: Block, row: Spec) -> None:
    layer = block.weight
    if row.kind == "linear":
        if row.channels and layer.channels != row.channels:
            raise Wrong(
                f"{row} gives {counted(layer.channels, 'number')}.".capitalize(), "wrong-channels"
            )
        return
    size, kernel = (row.resolution,) * 2, (row.kernel,) * 2
    if layer.channels != row.channels:
        raise Wrong(
            f"Expected {row}, found {counted(layer.channels, 'channel')}.", "wrong-channels"
        )
    if layer.kernel != kernel:
        seen = "x".join(map(str, layer.kernel[:2]))
        grouped = " in groups" if len(layer.kernel) > 2 else ""
        raise Wrong(
            f"Expected a {row.kernel}x{row.kernel} kernel in {row}, found {seen}{grouped}.",
            "wrong-kernel",
        )
    if size not in block.resolutions:
        seen = "x".join(map(str, block.resolutions[-1]))
        raise Wrong(f"Expected {row}, but yours is at {seen}.", "wrong-resolution")
    if not layer.bias:
        raise Wrong(f"Expected a bias in {row}, found none.", "missing-bias")


def compare_rest(
    before: list[Layer], found: list[Block], spec: list[Spec], training: bool = False
) -> None:
    """Hold norms, activations and all else against the specification; raises `Wrong`.

    training: whether the network was followed in train mode.
    """
    for step in before:
        if step.kind != "crop":
            raise _extra(step, "before the first layer")
    pairs = _align(found, spec)
    if not any(block and row and row.kind != "linear" for block, row in pairs):
        raise Wrong("None of the layers that are to be normalised is there.", "missing-layer")
    for index, (block, row) in enumerate(pairs):
        if block is None or row is None:
            continue
        _compare_following(block, row, [b for b, r in pairs[index + 1 : index + 2] if r is None])
        _compare_statistics(block, row, training)
        if not block.weight.trained or block.weight.frozen:
            raise Wrong(
                f"The weights of {row} are not trained: no optimiser sees them, or they are "
                "frozen.",
                "detached-gradient" if block.weight.frozen else None,
            )


def _compare_following(block: Block, row: Spec, extra: list[Block | None]) -> None:
    """What follows a layer; a layer too many behind it may have taken its norm and activation."""
    rests = [block.after]
    for other in extra:
        if other is not None:
            rests += [other.after, block.after + other.after]
    faults = []
    for after in rests:
        try:
            return _compare_after(Block(block.weight, after), row)
        except Wrong as fault:
            faults.append(fault)
    raise faults[0]


def _compare_statistics(block: Block, row: Spec, training: bool) -> None:
    """Batch norm uses the batch in train mode, and what it has seen before in eval mode."""
    expected = "batch" if training else "running"
    for norm in block.after:
        if norm.statistics == "still":
            text = f"the running statistics of the batch norm after {row} are those of the start,"
            raise Wrong(f"{text} though it was given batches to learn from.", "mode-dependent")
        if norm.statistics and norm.statistics != expected:
            text = f"The batch norm after {row} should use {expected} statistics in this mode."
            raise Wrong(text, "mode-dependent")


def _extra(step: Layer, where: str) -> Wrong:
    slug = "extra-batchnorm" if step.kind == "norm" else "extra-layer"
    text = f"Found {step.name} {where}, where the specification has none."
    return Wrong(text, slug)


def _compare_after(block: Block, row: Spec) -> None:
    steps = [s for s in block.after if s.kind != "crop"]
    for step in steps:
        if step.kind not in ("norm", "activation"):
            raise _extra(step, f"after {row}")
    norms = [s for s in steps if s.kind == "norm"]
    for norm in norms if row.norm else ():
        split = block.weight.kind != "linear" and norm.channels not in (0, block.weight.channels)
        if norm.name != "batch norm" or split:
            seen = "an instance norm" if norm.name == "batch norm" else f"a {norm.name}"
            text = f"Expected a batch norm after {row}, found {seen}."
            raise Wrong(text, "missing-batchnorm")
    activations = [s for s in steps if s.kind == "activation"]
    if row.norm and not norms:
        raise Wrong(f"There is no batch norm after {row}.", "missing-batchnorm")
    if len(norms) > row.norm:
        raise _extra(norms[-1], f"after {row}")
    if row.activation and not activations:
        slug = "missing-layer" if row.activation == "sigmoid" else "missing-activation"
        none = " One with a slope of 1, as `LeakyReLU(True)` has, changes nothing."
        text = f"There is no {row.activation} after {row}."
        raise Wrong(text + none * (row.activation == "LeakyReLU"), slug)
    if not row.activation and activations:
        raise _extra(activations[0], f"after {row}")
    if activations and [a.name for a in activations] != [row.activation]:
        seen = " and ".join(a.name for a in activations)
        if len(activations) > 1 and row.activation in [a.name for a in activations]:
            raise Wrong(
                f"Expected {row.activation} alone after {row}, found {seen}.", "extra-layer"
            )
        raise Wrong(f"Expected {row.activation} after {row}, found {seen}.", "wrong-activation")
    if norms and activations and steps.index(norms[0]) > steps.index(activations[0]):
        raise Wrong(f"Batch norm belongs before the activation of {row}.", "wrong-order")
