"""Repeats what workers claim in a process of its own: torch itself ends, or holds up for ever,
a process that calls some of its operations with arguments that no honest network has.

The process lives in the same kind of box as a worker, holds no student code, and answers with
tensors, numbers and words alone. Where it ends, the claim is not confirmed, and the next claim
gets another.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from torch import Tensor

from autograder import effects, layers, networks, sandbox
from autograder.layers import Layer
from autograder.networks import Network, Operation, Unconfirmed
from autograder.outcomes import Stopped
from autograder.processes import debugging
from autograder.waiting import Clock, waited
from autograder.worker import privileges, streams, syscalls, wire

_HEADER_LIMIT = 64 << 20  # bytes; of a claim that came over the wire already
_SPARE = 5.0  # seconds, beyond those after which the referee itself gives up


def run(network: Network, x: Tensor) -> Tensor:
    """What the network makes of an input of the traced shape; raises `Unconfirmed`."""
    found = _ask("run", network, x)
    if not isinstance(found, Tensor):
        raise Unconfirmed("it gives no tensor")
    return found


def gradients(network: Network, x: Tensor, weights: Tensor) -> list[Tensor | None]:
    """The gradient of `(output * weights).sum()` for every parameter; raises `Unconfirmed`."""
    found = _ask("gradients", network, x, weights)
    if not isinstance(found, list) or len(found) != len(network.trained):
        raise Unconfirmed("it has no gradients")
    return [g if isinstance(g, Tensor) else None for g in found]


def read(network: Network, x: Tensor, by: str = "operations") -> list[Layer]:
    """The network as layers; raises `Unconfirmed`.

    by: operations, see `layers.read`, or effects, see `effects.read`.
    """
    found = _ask(by, network, x)
    if not isinstance(found, list):
        raise Unconfirmed("it has no layers")
    return [_layer(told) for told in found]


def _layer(told: Any) -> Layer:
    """A layer from its fields, every one of its own type."""
    made = Layer("other")
    if not isinstance(told, dict):
        raise Unconfirmed("a layer has no form")
    for field in dataclasses.fields(Layer):
        value, kind = told.get(field.name), type(getattr(made, field.name))
        sizes = value if isinstance(value, tuple) else ()
        if type(value) is not kind or not all(type(size) is int for size in sizes):
            raise Unconfirmed(f"the {field.name} of a layer has no form")
        setattr(made, field.name, value)
    return made


class _Referee:
    """The process, started when it is first needed or told to; one for all gradings of a host."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.known: Network | None = None  # the last one that it was sent
        self.late = False  # whether the last answer took too long
        self.clock = Clock(self._ring, self._waited)

    def start(self) -> None:
        """Start it without waiting for it."""
        if self.process is None or self.process.poll() is not None:
            self.close()
            start = sandbox.launch_referee(sandbox.missing() is None)
            self.process = subprocess.Popen(
                [*start.command, json.dumps(start.options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if debugging() else subprocess.DEVNULL,
                env=start.environment,
                start_new_session=True,
            )

    def ask(self, op: str, network: Network, tensors: Sequence[Tensor]) -> Any:
        """One answer; raises `EOFError`, `OSError` or `wire.WireError` where it does not come."""
        self.start()
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self.late = False
        known, self.known = self.known, network
        sent: list[Tensor] = []
        claim = None if known is network else _claim(network, known)
        told = wire.encode([op, claim, list(tensors)], sent, _refuse)
        with self.clock.running(networks.SECONDS_LIMIT + _SPARE):
            wire.write_frame(process.stdin, {"ask": told}, sent)
            header, received = wire.read_frame(process.stdout)
        return wire.Decoder(received)(header.get("answer"))

    def _ring(self) -> None:
        self.late = True
        if self.process is not None:
            sandbox.kill(self.process)

    def _waited(self) -> float:
        return 0.0 if self.process is None else waited(self.process.pid)

    def close(self) -> None:
        """End it."""
        process, self.process, self.known = self.process, None, None
        if process is not None:
            sandbox.end(process)


_referee = _Referee()
atexit.register(_referee.close)
start = _referee.start


def _ask(op: str, network: Network, *tensors: Tensor) -> Any:
    try:
        answer = _referee.ask(op, network, tensors)
    except (EOFError, OSError, ValueError, TypeError, wire.WireError) as error:
        late = _referee.late
        _referee.close()
        if late:
            raise Stopped("What your network does takes too long to follow.", "too-slow") from error
        raise Unconfirmed("its operations cannot be repeated") from error
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], str):
        raise Unconfirmed("its operations cannot be repeated")
    found, reason = answer
    if reason:
        raise Unconfirmed(reason)
    return found


def _claim(network: Network, known: Network | None) -> dict[str, Any]:
    """What the referee must be told of a network; not its operations, where it knows them."""
    same = known is not None and known.operations is network.operations
    told = None if same else [vars(operation) for operation in network.operations]
    return {**vars(network), "operations": told}


def _refuse(value: object) -> wire.Handle:
    raise TypeError(f"{type(value).__name__} is no claim")


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the host hangs up."""
    network: Network | None = None
    operations: list[Operation] = []
    while True:
        try:
            header, tensors = wire.read_frame(requests, _HEADER_LIMIT)
        except EOFError:
            return
        op, claim, inputs = wire.Decoder(tensors)(header["ask"])
        if claim is not None:
            told = claim.pop("operations")
            if told is not None:
                operations = [Operation(**fields) for fields in told]
            network = Network(operations=operations, **claim)
        assert network is not None
        sent: list[Tensor] = []
        try:
            answer = wire.encode((_perform(op, network, inputs), ""), sent, _refuse)
        except Exception as error:  # a claim may be any nonsense
            reason = error.reason if isinstance(error, Unconfirmed) else str(error)
            sent, answer = [], wire.encode((None, reason[:500] or "it fails"), [], _refuse)
        wire.write_frame(answers, {"answer": answer}, sent)


def _perform(op: str, network: Network, inputs: list[Tensor]) -> Any:
    if op == "run":
        return network.run(*inputs)
    if op == "gradients":
        return network.gradients(*inputs)
    read = effects.read if op == "effects" else layers.read
    return [vars(layer) for layer in read(network, *inputs)]


def main() -> None:
    """Serve on standard input and output, as an ordinary user and within the given memory."""
    options = json.loads(sys.argv[1])
    privileges.leave_keyring()
    if options.get("alone"):
        privileges.give_up(options.get("uid"))
    syscalls.refuse_calls()
    import torch

    torch.set_num_threads(1)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    streams.silence(errors=True)
    serve(requests, answers)
