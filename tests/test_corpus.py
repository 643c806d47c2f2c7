"""The bundled student work is what its tables say it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest

from autograder.contract import ANSWERS, BY_ID, MISCONCEPTIONS
from tests import corpus

WHOLE = ("perfect", "functional", "eccentric", "student")  # with prose and answers
MISTAKES = corpus.mistakes()
ACCIDENTS = corpus.accidents()
VARIANTS = corpus.variants()


def named(work: corpus.Variant) -> str:
    return str(work.name)


def lost_is_possible(lost: Mapping[str, float]) -> bool:
    return all(0 < points <= BY_ID[task].points for task, points in lost.items())


@pytest.mark.parametrize("name", WHOLE)
def test_whole_notebooks_are_valid_and_parse(name: str) -> None:
    notebook = corpus.submission(name)
    nbformat.validate(notebook)
    # jupytext keeps magics as comments, so the percent source is plain Python.
    compile((corpus.SUBMISSIONS / f"{name}.py").read_text(encoding="utf-8"), name, "exec")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_notebooks_hold_the_five_written_answers(name: str) -> None:
    cells = corpus.submission(name).cells
    ids = [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata]
    assert ids == [answer.id for answer in ANSWERS]


@pytest.mark.parametrize("name", WHOLE)
def test_what_whole_notebooks_lose_is_told_by_task(name: str) -> None:
    told = corpus.expected(name)
    assert lost_is_possible(told.lost)
    assert set(told.lost) == set(told.misconceptions)
    assert {slug for slugs in told.misconceptions.values() for slug in slugs} <= MISCONCEPTIONS


def test_magics_come_back_as_magics() -> None:
    sources = [cell.source for cell in corpus.submission("perfect").cells]
    assert any(source.startswith("%matplotlib inline\n") for source in sources)
    assert any(source.startswith("%%time\n") for source in sources)


def test_the_same_source_makes_the_same_notebook(tmp_path: Path) -> None:
    for file in ("one.ipynb", "two.ipynb"):
        corpus.write(corpus.submission("eccentric"), tmp_path / file)
    assert (tmp_path / "one.ipynb").read_bytes() == (tmp_path / "two.ipynb").read_bytes()
    assert nbformat.read(tmp_path / "one.ipynb", as_version=4).nbformat == 4


@pytest.mark.parametrize("work", [*MISTAKES, *VARIANTS], ids=named)
def test_edited_work_differs_and_parses(work: corpus.Variant) -> None:
    assert work.source != (corpus.SUBMISSIONS / "perfect.py").read_text(encoding="utf-8")
    compile(work.source, work.name, "exec")


@pytest.mark.parametrize("accident", ACCIDENTS, ids=named)
def test_only_what_should_not_parse_does_not(accident: corpus.Mistake) -> None:
    accident.notebook()
    if accident.group != "does-not-parse":
        compile(accident.source, accident.name, "exec")
        return
    with pytest.raises((SyntaxError, ValueError)):
        compile(accident.source, accident.name, "exec")


def test_names_are_unique() -> None:
    names = Counter(work.name for work in [*MISTAKES, *ACCIDENTS, *VARIANTS])
    assert [name for name, times in names.items() if times > 1] == []


def test_no_two_pieces_of_work_are_the_same() -> None:
    sources = Counter(work.source for work in [*MISTAKES, *ACCIDENTS, *VARIANTS])
    assert max(sources.values()) == 1


@pytest.mark.parametrize("mistake", MISTAKES, ids=named)
def test_mistakes_lose_points_in_their_own_task(mistake: corpus.Mistake) -> None:
    assert mistake.group in mistake.lost
    assert lost_is_possible(mistake.lost)


@pytest.mark.parametrize("accident", ACCIDENTS, ids=named)
def test_accidents_lose_what_can_be_lost(accident: corpus.Mistake) -> None:
    assert lost_is_possible(accident.lost)


def test_variants_belong_to_tasks() -> None:
    assert {variant.group for variant in VARIANTS} == set(BY_ID)


def test_every_misconception_is_shown() -> None:
    shown = {work.misconception for work in [*MISTAKES, *ACCIDENTS]} - {None}
    assert shown == MISCONCEPTIONS


def test_canonical_mistakes_show_every_cause_once_a_task() -> None:
    causes = [(mistake.group, mistake.misconception) for mistake in corpus.canonical(MISTAKES)]
    assert len(causes) == len(set(causes))
    assert set(causes) == {(mistake.group, mistake.misconception) for mistake in MISTAKES}


def test_an_edit_that_does_not_fit_is_an_error() -> None:
    edit = corpus.Edit(old="nn.Softmax", new="nn.Sigmoid")
    with pytest.raises(ValueError, match=r"softmax-work: .* occurs 0 times, not 1"):
        edit.apply("nn.Sigmoid()", "softmax-work")
