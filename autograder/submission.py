"""One notebook in its worker: started, watched, restarted; a session for every check."""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autograder import contract, processes, sandbox
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked
from autograder.processes import Started
from autograder.waiting import Clock, waited
from autograder.worker import wire
from autograder.worker.wire import Handle, Ref

STATEMENT_SECONDS = 20.0  # for one definition of the notebook, or for `import torch`
ANSWER_SECONDS = 20.0  # for one answer of a session
DEFINITIONS_SECONDS = 300.0  # for all definitions, however often they are run
SESSION_SECONDS = 120.0  # for all answers of a session that are given no time of their own
NOTEBOOK_SECONDS = 900.0  # for all answers of all sessions
OFTEN = 3  # answers of a session for which memory is not enough
RESTARTS = 6  # of a worker that a definition ended
_IMPORT = " Is an import missing?"
DISTURBED = "Your code disturbed the answers of its process."
_MODEL = re.compile(
    r"^[^\S\n]*(\w+)[^\S\n]*=[^\S\n]*(?:Encoder|Decoder|AutoEncoder|VAE)\(", re.MULTILINE
)


@dataclass
class Definitions:
    """What the worker says of the notebook's definitions: hints for messages."""

    defined: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)  # every name that a statement binds
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[dict[str, Any]] = field(default_factory=list)
    # by promised name: the cell of a last use, of what, and a name read there that is bound anew
    outlived: dict[str, tuple[int, str, str]] = field(default_factory=dict)


@dataclass
class TimeLeft:
    """Seconds that a notebook has left, for all definitions and all answers."""

    defining: float = field(default_factory=lambda: DEFINITIONS_SECONDS)
    answering: float = field(default_factory=lambda: NOTEBOOK_SECONDS)


class Submission:
    """The code cells of one notebook, run in a worker process.

    cells: the sources of the code cells. boxed: inside the sandbox. fork: a process for the
    sessions of every task, where the system can. device: cpu, or cuda for a worker that sees the
    GPUs. gpu_is_cpu: what asks for a GPU gets the CPU. time_left: what this notebook has left,
    in whatever state. started: the first worker, where it was started before. Errors of student
    code come as `Unchecked`.
    """

    def __init__(
        self,
        cells: Sequence[str],
        *,
        boxed: bool,
        fork: bool = True,
        device: str = "cpu",
        answer_seconds: float = ANSWER_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        gpu_is_cpu: bool = False,
        time_left: TimeLeft | None = None,
        started: Started | None = None,
    ) -> None:
        self.gpu_is_cpu = gpu_is_cpu
        self.cells, self.boxed, self.device = list(cells), boxed, device
        self.fork = fork and device == "cpu"  # a process that has used CUDA cannot
        self.answer_seconds, self.statement_seconds = answer_seconds, statement_seconds
        self.skip: list[tuple[int, int]] = []
        self.dead: str | None = None  # why no worker can be had any more
        self._worker: Started | None = None
        self._ready: Definitions | None = None
        self._said: object = None  # of the cells, before any code of theirs ran
        self._slow, self._seconds = False, 0.0  # of the last read: whether it took too long
        self._answering = SESSION_SECONDS  # what is left for a session
        self._time = time_left or TimeLeft()
        self._kept: str | None = None  # the task whose last session has left its process
        self._clock = Clock(self._time_out, self._waited)
        self.launch(started)

    @functools.cached_property
    def _models(self) -> frozenset[str]:
        """The variables of the notebook to which a model is assigned: a hint for messages."""
        return frozenset(name for cell in self.cells for name in _MODEL.findall(cell))

    def launch(self, started: Started | None = None) -> None:
        """Start a worker without waiting for it, unless it was."""
        self._worker = started or processes.start(self.boxed, self.fork, self.device)
        self._ready = self._said = None
        request = {
            "cells": self.cells,
            "skip": self.skip,
            "promised": contract.PROMISED,
            "trainers": contract.TRAINERS,
            "gpu_is_cpu": self.gpu_is_cpu,
        }
        threading.Thread(
            target=self._send_quietly, args=(self._worker, request), daemon=True
        ).start()

    @staticmethod
    def _send_quietly(worker: Started, request: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):
            wire.write_frame(worker.requests, request, [])

    @property
    def definitions(self) -> Definitions:
        """Wait until the definitions have run; a definition that ends the worker is left out."""
        while self._ready is None:
            if self.dead is not None:
                raise Stopped(self.dead)
            self._await_ready()
        return self._ready

    def _await_ready(self) -> None:
        if self._worker is None:
            self.launch()
        last, before, began = None, self._time.defining, time.monotonic()
        try:
            while self._time.defining > 0:
                header, _ = self._read(min(self.statement_seconds, self._time.defining))
                self._time.defining = before - (time.monotonic() - began)
                if "ready" in header:
                    self._ready = _definitions(self._said, header["ready"])
                    return
                if self._said is None and "read" in header:
                    self._said = header["read"]
                    continue
                last = _position(header.get("progress"))
        except (wire.WireError, EOFError):
            self._time.defining = before - (time.monotonic() - began)
        self.close()
        self._leave_out(last)

    def _leave_out(self, position: tuple[int, int] | None) -> None:
        if self._time.defining <= 0:
            self.dead = f"The notebook's definitions take longer than {DEFINITIONS_SECONDS:g} s."
        elif position is None:
            self.dead = "The grader's worker did not start."
        elif position in self.skip or len(self.skip) >= RESTARTS:
            self.dead = "The notebook's definitions end the process again and again."
        else:
            self.skip.append(position)

    def _read(self, seconds: float) -> tuple[dict[str, Any], list[torch.Tensor]]:
        """Read one frame; after `seconds` the worker is killed, and the read ends."""
        if self._worker is None:
            raise EOFError
        self._seconds = seconds
        with self._clock.running(seconds):
            return wire.read_frame(self._worker.answers)

    def _waited(self) -> float:
        worker = self._worker
        return 0.0 if worker is None else waited(worker.number)

    def _time_out(self) -> None:
        self._slow = True
        if self._worker is not None:
            sandbox.kill(self._worker.process)

    def until(self, cell: int) -> Submission:
        """The notebook without what comes after a cell, in a worker of its own; cell: from 0."""
        kept = self.cells[: cell + 1]
        return self._again([*kept, *("" for _ in self.cells[len(kept) :])])

    def as_cpu(self) -> Submission:
        """The notebook in a worker of its own in which a GPU is the CPU."""
        return self._again(self.cells, gpu_is_cpu=True)

    def _again(self, cells: list[str], *, gpu_is_cpu: bool = False) -> Submission:
        return Submission(
            cells,
            boxed=self.boxed,
            fork=self.fork,
            answer_seconds=self.answer_seconds,
            statement_seconds=self.statement_seconds,
            gpu_is_cpu=gpu_is_cpu,
            time_left=self._time,
        )

    def close(self) -> None:
        """End the worker and everything that it started."""
        worker, self._worker = self._worker, None
        self._clock.stopped = True
        if worker is not None:
            worker.end()

    @contextlib.contextmanager
    def session(self, seed: int, task: str | None = None) -> Iterator[Session]:
        """A session for one check.

        task: whose checks are served by one process, each with objects and variables of its own,
        until one of them is not `clean`; by default, nothing of a session outlives it.
        """
        if self._kept is not None and self._kept != task:
            self._end_session()  # first: where it cannot end, another worker is started
        _ = self.definitions
        if self._time.answering <= 0:
            raise Stopped(_late(), "too-slow")
        self._answering = SESSION_SECONDS
        session = Session(self, seed, task)
        try:
            yield session
        finally:
            if session.opened and not (session.clean and task is not None):
                self._end_session()

    def open(self, seed: int, task: str | None) -> None:
        """Open a session in the worker, in the process of the last one if it was of the task."""
        with self._charged():
            if self._kept is not None:
                with contextlib.suppress(Stopped):  # it may have ended since
                    request = {"op": "renew", "seed": seed}
                    self._exchange(request, [], self.answer_seconds, "open")
                    return
                _ = self.definitions
            self._exchange({"seed": seed}, [], self.answer_seconds, "open")
        self._kept = task

    def _end_session(self) -> None:
        self._kept = None
        if self._worker is not None:
            with contextlib.suppress(Stopped), self._charged():
                self._exchange({"op": "end"}, [], self.answer_seconds, "ended")

    @contextlib.contextmanager
    def _charged(self) -> Iterator[None]:
        """Count the block as time of the notebook's."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._time.answering -= time.monotonic() - began

    def ask(self, op: str, args: list[Any], seconds: float | None = None) -> Any:
        """One request of a session; raises `Raised` or `Stopped`."""
        tensors: list[torch.Tensor] = []
        try:
            encoded = wire.encode(args, tensors, _cannot_keep)
        except TypeError as error:  # a value of the worker's that has no way back
            raise Unchecked("Your code answered with what cannot be handed to it.") from error
        began = time.monotonic()
        limit = min(self.answer_seconds, self._answering) if seconds is None else seconds
        limit = min(limit, max(self._time.answering, 1.0))
        try:
            header, received = self._exchange({"op": op, "args": encoded}, tensors, limit, "value")
        finally:
            took = time.monotonic() - began
            self._time.answering -= took
            if seconds is None:
                self._answering = max(self._answering - took, 0.0)
        if "error" in header:
            raise _error(header["error"], self._ready, self._models)
        try:
            return wire.Decoder(received)(header["value"])
        except wire.WireError as error:
            raise self._lost(str(error)) from error

    def _exchange(
        self, request: dict[str, Any], tensors: list[torch.Tensor], seconds: float, expected: str
    ) -> tuple[dict[str, Any], list[torch.Tensor]]:
        worker = self._worker
        self._slow = False
        if worker is None:
            raise Stopped("The process that ran your code has ended.")
        try:
            self._seconds = seconds
            with self._clock.running(seconds):  # it may not even read what it is sent
                wire.write_frame(worker.requests, request, tensors)
                header, received = wire.read_frame(worker.answers)
        except (wire.WireError, EOFError, OSError, ValueError) as error:
            raise self._lost(str(error)) from error
        if expected in header or (expected == "value" and "error" in header):
            return header, received
        raise self._lost("ended" if "ended" in header else "unexpected")

    def _lost(self, reason: str) -> Stopped:
        """Forget a worker that broke off; the next session starts another."""
        group = self._worker.group if self._worker is not None else None
        slow, full = self._slow, group is not None and group.ran_out()
        self.close()
        self._ready = self._kept = None
        if slow:
            text = f"Your code did not finish within {self._seconds:g} seconds on a small input."
            if self._answering < self.answer_seconds:
                text = f"The calls of one check took more than {SESSION_SECONDS:g} seconds."
            return Stopped(_late() if self._time.answering <= self._seconds else text, "too-slow")
        if full:
            return Stopped("Your code used up its memory on a small input.", "out-of-memory")
        return Stopped("Your code ended the process that ran it, or disturbed its answers.")


def _late() -> str:
    return f"The calls of all checks took more than {NOTEBOOK_SECONDS:g} seconds."


class Session:
    """What a check can ask of the notebook: read, set, make, call, differentiate, trace.

    The worker opens it at the first question, since a check may know the answers from before.
    Every method raises `Raised` where student code raises and `Stopped` where it ends.
    """

    def __init__(self, submission: Submission, seed: int, task: str | None) -> None:
        self.submission, self.seed, self.task, self.opened = submission, seed, task, False
        self.clean = False  # whether the next session may be in the same process
        self.recording = True  # whether gradients are recorded where student code is called
        self._exhausted = 0  # answers for which memory was not enough
        # VAE with stand-ins for its networks, and whether it misreads arguments, once it was asked
        self.model_class: tuple[Any, bool] | None = None

    def ask(self, op: str, *args: Any, seconds: float | None = None) -> Any:
        """Ask for one operation of the worker by its name."""
        if not self.opened:
            self.opened = True
            self.submission.open(self.seed, self.task)
        if not self.recording:
            op, args = "quietly", (op, list(args))
        try:
            return self.submission.ask(op, list(args), seconds)
        except Raised as error:
            if error.misconception == "out-of-memory":
                self._exhausted += 1
                if self._exhausted >= OFTEN:  # each takes seconds, and a check may ask at length
                    raise Stopped(error.message, error.misconception) from error
            raise

    @contextlib.contextmanager
    def without_gradients(self) -> Iterator[None]:
        """Ask, in the block, as under `torch.no_grad()`."""
        self.recording = False
        try:
            yield
        finally:
            self.recording = True

    def read(self, name: str) -> Any:
        """A variable of the notebook; raises `Unchecked` where it is not defined.

        A promised class stays one where its name goes to an object: `VAE = VAE(64, 1e-4)`.
        """
        try:
            found = self.ask("global", name)
        except Raised as error:
            raise undefined(self.submission.definitions, name) from error
        is_object = isinstance(found, Handle) and found.kind == f"module {name}"
        return self.handle(found, "__class__") if name in contract.CLASSES and is_object else found

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a call."""
        return self.ask("call", function, list(args), kwargs)

    def keep_call(self, function: Any, *args: Any, **kwargs: Any) -> tuple[Handle, Any]:
        """A handle on the result of a call, and the result."""
        answer = self.ask("keep_call", function, list(args), kwargs)
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], Handle):
            raise Stopped(DISTURBED)
        return answer

    def hold(self, op: str, *args: Any) -> Handle:
        """Ask for an operation of the worker that answers with an object."""
        made = self.ask(op, *args)
        if not isinstance(made, Handle):
            raise Stopped(DISTURBED)
        return made

    def gradients(self, output: Any, leaves: list[Ref]) -> list[torch.Tensor | None]:
        """The gradient of an output's sum with respect to each leaf; None where there is none."""
        told = self.ask("gradient", output, leaves)
        found = told if isinstance(told, list) else []
        found = [g if isinstance(g, torch.Tensor) else None for g in found]
        return found if len(found) == len(leaves) else [None for _ in leaves]

    def reads(self, name: str) -> dict[str, Any]:
        """The variables of the notebook that a definition reads, with what they hold: a hint.

        A number, or a word: module, tensor, value, undefined, absent.
        """
        told = self.ask("reads", self.read(name))
        found = told.items() if isinstance(told, dict) else ()
        return {k: v for k, v in found if isinstance(k, str) and isinstance(v, str | int | float)}

    def iterate(self, iterable: Any, limit: int) -> list[Any]:
        """One pass over an iterable, at most `limit` items."""
        told = self.ask("iterate", iterable, limit)
        if not isinstance(told, list):
            raise Stopped(DISTURBED)
        return told

    def attribute(self, owner: Any, name: str) -> Any:
        """An attribute of an object."""
        return self.ask("attribute", owner, name)

    def handle(self, owner: Any, name: str) -> Handle:
        """An attribute of an object that should be an object itself."""
        found = self.attribute(owner, name)
        if not isinstance(found, Handle):
            raise Unchecked(f"`.{name}` should be an object, not {type(found).__name__}.")
        return found

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of an object."""
        self.ask("set_attribute", owner, name, value)

    def set_global(self, name: str, value: Any) -> None:
        """Set a variable of the notebook."""
        self.ask("set_global", name, value)

    def misreads_arguments(self, name: str) -> bool:
        """Whether a function takes its promised arguments in another order or number: a hint."""
        promised = contract.ARGUMENTS[name]
        try:
            told = self.ask("signature", self.read(name))
        except Raised:
            return False
        if not isinstance(told, list) or not all(isinstance(n, str) for n in told):
            return False
        same_names = set(told) & set(promised)
        in_order = [n for n in promised if n in told]
        return len(told) < len(promised) - (name == "make_data_loader") or (
            len(same_names) > 1 and [n for n in told if n in promised] != in_order
        )

    def make(self, name: str, *args: Any) -> Handle:
        """A stand-in of the given kind."""
        return self.hold("make", name, list(args))


def undefined(definitions: Definitions, name: str) -> Unchecked:
    """Why a promised name is not there: the cell raised, does not parse, or was not written.

    Or it is the outcome of work that the checks do not repeat.
    """
    found = _undefined(definitions, name)
    ran = name in definitions.errors or isinstance(found, NotAttempted)
    if ran and name in definitions.variables and name not in contract.CLASSES:
        text = f"{found.message} The checks repeat none of the notebook's work, such as training"
        return Unchecked(f"{text} in a loop: set it to what came of that.", found.misconception)
    return found


def _undefined(definitions: Definitions, name: str) -> Unchecked:
    error = definitions.errors.get(name)
    if error is not None:
        lacks = str(error.get("name"))
        remedy = _broken_cell(definitions, lacks)
        if not remedy and error.get("type") == "NameError" and lacks not in definitions.variables:
            remedy = f" No cell sets `{lacks}`.{_alike(definitions, lacks) or _IMPORT}"
        text = f"`{name}` is not defined, because cell {_stop(error)}."
        return Unchecked(f"{text}{remedy or ' Run that cell on its own.'}", "not-defined")
    for cell in definitions.broken:
        if name in cell.get("names", ()):
            return Unchecked(
                f"`{name}` is not defined, because cell {cell.get('cell')} {cell.get('message')}.",
                "not-defined",
            )
    return NotAttempted(f"`{name}` is not defined yet.{_alike(definitions, name)}", "not-defined")


def _alike(definitions: Definitions, name: str) -> str:
    """The variable of the notebook whose name may have been meant, in a sentence, or nothing."""
    names = {other.lower(): other for other in sorted(definitions.variables - {name})}
    close = difflib.get_close_matches(name.lower(), names, 1, 0.85)
    return f" Is `{names[close[0]]}` meant to be it?" if close else ""


def _stop(error: dict[str, Any]) -> str:
    """Where a definition stopped, and why; to follow the word cell."""
    told = f"{error.get('type', 'Exception')}: {error.get('message', '')}".strip(": ")
    return f"{error.get('cell', '?')} stopped first ({told})"


def _broken_cell(definitions: Definitions, name: str) -> str:
    """The cell that would define a name if it were read, in a sentence, or nothing."""
    found = (c for c in definitions.broken if name in c.get("names", ()))
    return next((f" Cell {c.get('cell')} {c.get('message')}." for c in found), "")


def _error(
    error: object, definitions: Definitions | None, models: frozenset[str] = frozenset()
) -> Unchecked:
    raised = Raised(error)
    if raised.type == "NameError" and definitions and _broken_cell(definitions, raised.name):
        raised.message += _broken_cell(definitions, raised.name)
        raised.misconception = "not-defined"
        return raised
    if raised.type == "NameError" and definitions and raised.name in definitions.variables:
        raised.message += f" `{raised.name}` is a variable of the notebook, and no argument."
        stopped = definitions.errors.get(raised.name)
        if stopped is not None:
            raised.message += f" It was not set: cell {_stop(stopped)}."
        raised.misconception = "uses-global-model" if raised.name in models else "hidden-global"
    elif raised.type == "NameError" and definitions and raised.name:
        raised.message += f" No cell sets it.{_alike(definitions, raised.name) or _IMPORT}"
        raised.misconception = "not-defined"
    if raised.type == "NotImplementedError":
        if 'missing the required "forward"' in raised.text:
            return Unchecked("The module has no `forward` method.", "not-defined")
        if raised.by_itself:
            return NotAttempted("Not attempted yet: the code still raises NotImplementedError.")
    return raised


def _definitions(said: object, told: object) -> Definitions:
    """said: of the cells, before any code of theirs ran; told: after that."""
    if not isinstance(told, dict) or not isinstance(said, dict):
        raise wire.WireError("the worker does not tell its definitions")
    errors = told.get("errors")
    broken = [b for b in _list(said.get("broken")) if isinstance(b, dict)]
    return Definitions(
        _names(told.get("defined")),
        _names(said.get("variables")),
        {k: _plain(v) for k, v in errors.items()} if isinstance(errors, dict) else {},
        [{**_plain(b), "names": _names(b.get("names"))} for b in broken],
        _outlived(said.get("outlived")),
    )


def _outlived(told: object) -> dict[str, tuple[int, str, str]]:
    found = {}
    for name, value in told.items() if isinstance(told, dict) else ():
        match value:
            case [int() as cell, str() as what, str() as other]:
                found[name] = cell, what, other
    return found


def _plain(told: object) -> dict[str, Any]:
    """The entries that are text or numbers: what is nested could not even be printed."""
    found = told.items() if isinstance(told, dict) else ()
    return {k: v for k, v in found if isinstance(v, str | int)}


def _list(told: object) -> list[Any]:
    return told if isinstance(told, list) else []


def _names(told: object) -> set[str]:
    return {name for name in _list(told) if isinstance(name, str)}


def _position(told: object) -> tuple[int, int] | None:
    if isinstance(told, list) and len(told) == 2 and all(type(n) is int for n in told):
        return told[0], told[1]
    raise wire.WireError("the worker does not tell where it is")


def _cannot_keep(value: object) -> Handle:
    raise TypeError(f"the host cannot send {type(value).__name__}")
