"""Grading student work, right and wrong: the right points, no others, and the right cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder import contract
from autograder.grading import Grade
from tests import corpus
from tests.corpus import Mistake, Variant
from tests.grading import causes, grade, lost

RELEASE = Path(__file__).resolve().parents[1] / "release" / "vae" / "vae.ipynb"
FEW = ("perfect", "functional", "eccentric", "student")
LEANING = (
    "whole/factory",
    "whole/stages",
)  # on what stand-ins have in common with the student's own


def by_name(work: Variant) -> str:
    return f"{work.group}-{work.name}"


def tasks_of(group: str) -> tuple[str, ...]:
    return (*contract.PARTS.get(group, ()), group)


def is_whole(config: pytest.Config) -> bool:
    return bool(config.getoption("--whole-corpus"))


def assert_loses(made: Grade, expected: Mistake, tasks: tuple[str, ...] = ()) -> None:
    told = [f"{r.task}/{r.id}: {r.message} [{r.misconception}]" for r in made.results if r.message]
    assert not made.faults, told
    assert {r.task for r in made.results} >= set(tasks)
    assert lost(made, tasks) == dict(expected.lost), told
    if expected.misconception is not None:
        named = causes(made)
        missing = [task for task in expected.lost if expected.misconception not in named[task]]
        assert not missing, told


def test_whole_notebooks(whole: str) -> None:
    expected = corpus.expected(whole)
    made = grade(corpus.submission(whole), learning=whole in FEW)
    assert not made.faults
    assert lost(made) == dict(expected.lost)
    named = causes(made)
    assert set(named) == set(expected.misconceptions)
    for task, slugs in expected.misconceptions.items():
        assert set(slugs) <= named[task]


@pytest.mark.parametrize("name", ["eccentric", "student"])
def test_without_forking_the_verdicts_are_the_same(name: str) -> None:
    node = corpus.submission(name)
    assert grade(node, fork=False).as_json() == grade(node).as_json()


def test_the_untouched_release_is_not_attempted() -> None:
    made = grade(nbformat.read(RELEASE, as_version=4)).as_json()
    assert made["score"] == 0
    assert {task["status"] for task in made["tasks"]} == {"not-attempted"}
    assert {answer["status"] for answer in made["answers"]} == {"not-attempted"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every misconception once by default; the whole corpus with --whole-corpus."""
    whole = is_whole(metafunc.config)
    notebooks = corpus.whole()
    work: dict[str, list[Any]] = {
        "whole": notebooks if whole else list(dict.fromkeys([*FEW, *LEANING, *notebooks[::8]])),
        "mistake": corpus.mistakes() if whole else corpus.one_each(corpus.mistakes()),
        "accident": corpus.accidents() if whole else corpus.canonical(corpus.accidents()),
        "variant": corpus.variants() if whole else corpus.variants()[::6],
    }
    for name, chosen in work.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen, ids=str if name == "whole" else by_name)


def test_mistakes_cost_their_points_and_are_named(
    mistake: Mistake, pytestconfig: pytest.Config
) -> None:
    """In their own tasks, and where they cost points, by default."""
    tasks = () if is_whole(pytestconfig) else (*tasks_of(mistake.group), *mistake.lost)
    learning = mistake.misconception == "does-not-learn"
    assert_loses(grade(mistake.notebook(), learning=learning, tasks=tasks), mistake, tasks)


def test_every_misconception_has_a_notebook() -> None:
    held = {m.misconception for m in [*corpus.mistakes(), *corpus.accidents()]}
    assert held >= contract.MISCONCEPTIONS


def test_accidents_cost_their_own_task(accident: Mistake) -> None:
    """What never ends is ended soon; what ends is given enough on a busy machine."""
    assert_loses(grade(accident.notebook(), seconds=15.0), accident)


def test_other_spellings_keep_full_marks(variant: Variant, pytestconfig: pytest.Config) -> None:
    """In their own tasks by default; in all of them with --whole-corpus."""
    own = tasks_of(variant.group)
    made = grade(variant.notebook(), tasks=() if is_whole(pytestconfig) else own)
    assert {r.task for r in made.results} >= set(own)
    assert [r for r in made.results if not r.passed] == []


def test_the_same_seed_gives_the_same_json() -> None:
    node = corpus.submission("student")
    first, second = (json.dumps(grade(node, seed=7).as_json()) for _ in range(2))
    assert first == second


def test_the_json_is_that_of_the_contract() -> None:
    made: dict[str, Any] = grade(corpus.submission("student")).as_json()
    assert set(made) == {"schema", "notebook", "score", "max_score", "tasks", "answers"}
    assert made["max_score"] == 31
    assert [task["max_score"] for task in made["tasks"]] == [3, 3, 1, 6, 2, 4, 2, 1, 4, 5]
    for task in made["tasks"]:
        assert sum(check["points"] for check in task["checks"]) == task["max_score"]
        slugs = {check["misconception"] for check in task["checks"]} - {None}
        assert slugs <= contract.MISCONCEPTIONS
    assert sum(answer["max_score"] for answer in made["answers"]) == 14
