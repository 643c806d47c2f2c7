"""What an attack is, and how one is carried out: the perfect notebook, and a hostile cell.

The cell stands at the end, so what it defines is what is graded. It may use `ran`, which leaves
a mark in the box, and what `WEAPONS` defines. An attack says how many points its task deserves;
all else in the notebook is right, so the honest task beside it keeps full marks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from autograder import report
from autograder.contract import BY_ID
from autograder.grading import Grade
from autograder.notebook import parse
from autograder.outcomes import Stopped, Unchecked
from autograder.run import Run, perform
from autograder.submission import Submission
from tests import corpus

SECONDS = 3.0  # for one answer: what never ends is ended soon
STATEMENT = 10.0  # for one definition
BOUND = 150.0  # seconds in which any attack is over, on a busy machine

# seconds that a process sleeps that is to outlive its worker: by them it is found again, and
# not mistaken for that of a test beside this one
LEFTOVER = 900_000_000 + os.getpid()

WEAPONS = '''
import ctypes, gc, os, signal, socket, struct, subprocess, sys, threading, time


def ran(*anything):
    """Leave a mark that the attack was carried out."""
    open("/tmp/ran", "w").close()


def forge(change):
    """Answer from now on what `change(header, tensors)` makes of every answer."""
    wire = sys.modules["wire"]
    write = wire.write_frame

    def lie(stream, header, tensors):
        changed = change(header, tensors)
        ran()
        if isinstance(changed, bytes):
            stream.write(changed)
            stream.flush()
        else:
            write(stream, *changed)

    wire.write_frame = lie


def forge_value(value, *sent):
    """Answer every question with one JSON value, and tensors."""
    forge(lambda h, t: ({"value": value}, list(sent)) if "value" in h or "error" in h else (h, t))


def frame(text, body=b""):
    """The bytes of a frame."""
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("!IQ", len(text), len(body)) + text + body


def everywhere(data):
    """Write to every descriptor there is."""
    for number in range(64):
        try:
            os.write(number, data)
        except OSError:
            pass


def interpolate(*anything):
    """Whether the mark is there: the harness asks at the end."""
    return os.path.exists("/tmp/ran")
'''


@dataclass(frozen=True)
class Attack:
    """A hostile cell, and what its task deserves.

    says: a pattern that a message of the task must hold. marks: whether the code is known to
    have run by its mark, or because its worker broke off; else by what is said. honest: a task
    that keeps full marks; none where the attack is on the whole notebook.
    """

    family: str
    name: str
    task: str
    cell: str
    score: float = 0.0
    says: str = ""
    marks: bool = True
    honest: str | None = "data-loader"
    learning: bool = False

    def __str__(self) -> str:
        return f"{self.family}-{self.name}"


def family(name: str, *attacks: dict[str, Any]) -> list[Attack]:
    """A family of attacks."""
    return [Attack(family=name, **attack) for attack in attacks]


@dataclass(frozen=True)
class Outcome:
    """What came of an attack."""

    grade: Grade
    seconds: float
    marked: bool

    def messages(self, task: str) -> str:
        """What the checks of a task say."""
        return "\n".join(r.message for r in self.grade.results if r.task == task)


def notebook(cell: str) -> nbformat.NotebookNode:
    """The perfect notebook with a hostile cell at its end."""
    source = corpus.percent_source("perfect")
    if "TUNED_BETA" in cell:  # none to fall back on
        source = source.replace("TUNED_BETA = 1e-4\n", "")
    node = corpus.as_notebook(source)
    for source in (WEAPONS, cell):
        made: Any = nbformat.v4.new_code_cell(source)
        node.cells.append(made)
    return node


class Watched(Submission):
    """A submission that is asked for its mark before it is closed for good.

    A worker that breaks off takes its mark with it; that it did is a mark, too: nothing else in
    the notebook ends a worker, or fails to end.
    """

    marked, busy = False, False

    def close(self) -> None:
        """Ask, then close."""
        if self._worker is not None and self._ready is not None and not self.busy:
            self.busy = True
            with contextlib.suppress(Unchecked), self.session(1) as session:
                self.marked |= session.call(session.read("interpolate")) is True
            self.busy = False
        super().close()

    def _lost(self, reason: str) -> Stopped:
        before, self.busy = self.busy, True
        self.marked |= not before  # that the mark cannot be asked for is none
        try:
            return super()._lost(reason)
        finally:
            self.busy = before


def carry_out(attack: Attack, weights: bytes | None = None) -> Outcome:
    """Grade the attacked task and the honest one, in the box."""
    content = json.loads(nbformat.writes(notebook(attack.cell)))
    made = parse(content, Path("vae.ipynb"))
    submission = Watched(
        made.cells, boxed=True, answer_seconds=SECONDS, statement_seconds=STATEMENT
    )
    run = Run(Grade(made), submission, 1, learning=attack.learning, weights=weights)
    began = time.monotonic()
    try:
        perform(run, (attack.task, attack.honest) if attack.honest else (attack.task,))
    finally:
        submission.close()
    return Outcome(run.grade, time.monotonic() - began, submission.marked)


def assert_clean(text: str) -> None:
    """No character or order in a report that a terminal, a log or a page would follow."""
    for character in text.replace("\n", ""):
        assert unicodedata.category(character)[0] != "C", repr(text)
    assert "::" not in text, repr(text)
    assert "##[" not in text, repr(text)


def left_behind() -> list[str]:
    """Processes of a worker, or of what it started, that outlived it."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                folder.name.isdigit()
                and str(LEFTOVER).encode() in (folder / "cmdline").read_bytes()
            ):
                found.append(folder.name)
    return found


def assert_holds(attack: Attack) -> None:
    """Carry out an attack: no undeserved point, the honest task whole, in time, and explained."""
    outcome = carry_out(attack)
    told = [f"{r.task}/{r.id}: {r.outcome}: {r.message}" for r in outcome.grade.results]
    assert not outcome.grade.faults, told
    assert outcome.grade.score(BY_ID[attack.task]) == attack.score, told
    if attack.honest is not None:
        honest = BY_ID[attack.honest]
        assert outcome.grade.score(honest) == honest.points, told
    assert outcome.seconds < BOUND
    shown = io.StringIO()
    report.show(outcome.grade, shown)
    assert_clean(shown.getvalue())
    assert_clean("".join(r.message for r in outcome.grade.results))
    assert not left_behind()
    if attack.score < BY_ID[attack.task].points:
        assert outcome.messages(attack.task).strip(), told
    assert re.search(attack.says, outcome.messages(attack.task)), told
    assert attack.says or attack.marks, "nothing would show that the attack was carried out"
    assert outcome.marked or not attack.marks, told
