"""Student work to grade: whole notebooks, and edits that make many more of the perfect one.

    submissions/*.py             whole notebooks in jupytext's percent format
    submissions/whole/*.py       further ones, all right, each in a style of its own
    submissions/mistakes/*.toml  what students get wrong, one file a task
    submissions/accidents/*.toml code that raises, does not parse, never ends or takes all memory
    submissions/variants/*.toml  other spellings of right work

A TOML file is a list of tables, each a name, what to expect, and the edits that turn
perfect.py into it. An edit that no longer fits perfect.py is an error, never skipped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import jupytext
import nbformat

SUBMISSIONS = Path(__file__).with_name("submissions")

V = TypeVar("V", bound="Variant")


@dataclass(frozen=True)
class Edit:
    """Replaces `old`, which occurs exactly `count` times, by `new`."""

    old: str
    new: str
    count: int = 1

    def apply(self, source: str, name: str) -> str:
        """The edited source; a ValueError naming the work if the edit does not fit."""
        found = source.count(self.old)
        if found != self.count:
            raise ValueError(
                f"{name}: the text to replace occurs {found} times, not {self.count}:\n{self.old}"
            )
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Variant:
    """perfect.py with edits; `group` is the name of the file that lists it."""

    name: str
    group: str
    edits: tuple[Edit, ...]

    @property
    def source(self) -> str:
        """The edited notebook in percent format."""
        return self.applied_to(percent_source("perfect"))

    def applied_to(self, source: str) -> str:
        """A notebook in percent format with the edits; a ValueError where one does not fit."""
        for edit in self.edits:
            source = edit.apply(source, self.name)
        return source

    def notebook(self) -> nbformat.NotebookNode:
        """The edited notebook."""
        return as_notebook(self.source)

    @classmethod
    def _from_table(cls, table: dict[str, Any], group: str) -> Self:
        edits = tuple(Edit(**edit) for edit in table.pop("edit"))
        return cls(group=group, edits=edits, **table)


@dataclass(frozen=True)
class Mistake(Variant):
    """A variant that loses the points of `lost`, by task, and no others.

    `misconception` is what the failing checks should name, or None where no cause is named.
    """

    lost: Mapping[str, float] = field(default_factory=dict)
    misconception: str | None = None


@dataclass(frozen=True)
class Expected:
    """What a whole notebook loses, and the misconceptions to be named, both by task."""

    lost: Mapping[str, float]
    misconceptions: Mapping[str, tuple[str, ...]]


def whole() -> list[str]:
    """Names of all whole notebooks."""
    files = [*SUBMISSIONS.glob("*.py"), *(SUBMISSIONS / "whole").glob("*.py")]
    return sorted(str(file.relative_to(SUBMISSIONS).with_suffix("")) for file in files)


def submission(name: str) -> nbformat.NotebookNode:
    """The whole notebook submissions/NAME.py."""
    return as_notebook(percent_source(name))


def expected(name: str) -> Expected:
    """What submissions/expected.toml says of the whole notebook NAME; the others are right."""
    tables = tomllib.loads((SUBMISSIONS / "expected.toml").read_text(encoding="utf-8"))
    table = tables.get(name, {"lost": {}, "misconceptions": {}})
    named = {task: tuple(slugs) for task, slugs in table["misconceptions"].items()}
    return Expected(lost=table["lost"], misconceptions=named)


def mistakes() -> list[Mistake]:
    """All mistakes, by task; `group` is the task."""
    return _listed("mistakes", "mistake", Mistake)


def canonical(work: list[Mistake]) -> list[Mistake]:
    """The first mistake of every misconception in every group: the short list for quick runs."""
    first: dict[tuple[str, str | None], Mistake] = {}
    for mistake in work:
        first.setdefault((mistake.group, mistake.misconception), mistake)
    return list(first.values())


def one_each(work: list[Mistake]) -> list[Mistake]:
    """The first mistake of every misconception."""
    first: dict[str | None, Mistake] = {}
    for mistake in work:
        first.setdefault(mistake.misconception, mistake)
    return list(first.values())


def accidents() -> list[Mistake]:
    """Code that fails on its own, by kind; `group` is the kind."""
    return _listed("accidents", "accident", Mistake)


def variants() -> list[Variant]:
    """Other spellings of right work, by task; each keeps full marks."""
    return _listed("variants", "variant", Variant)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes the notebook as an .ipynb file."""
    nbformat.write(notebook, path)


def _listed(folder: str, table: str, kind: type[V]) -> list[V]:
    return [
        kind._from_table(entry, file.stem)
        for file in sorted((SUBMISSIONS / folder).glob("*.toml"))
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))[table]
    ]


def percent_source(name: str) -> str:
    """The source of the whole notebook submissions/NAME.py."""
    return (SUBMISSIONS / f"{name}.py").read_text(encoding="utf-8")


def as_notebook(source: str) -> nbformat.NotebookNode:
    """The notebook of a source in percent format."""
    notebook: nbformat.NotebookNode = jupytext.reads(source, fmt="py:percent")
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("lines_to_next_cell", None)
        # The same source makes the same notebook, byte for byte.
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", f"cell-{number:03d}")
    nbformat.validate(notebook)
    return notebook
