"""The mutation tool makes hundreds of different mutants, and the grader kills a sample of them."""

from __future__ import annotations

import ast
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from autograder.contract import BY_ID
from tests import mutants
from tests.combinations import Combination, combinations
from tests.grading import causes, grade, lost
from tests.mutants import Mutant
from tests.system import heed_ctrl_c
from tools import verdicts, verdicts_report
from tools.verdicts_report import Verdict

ROOT = Path(__file__).resolve().parents[1]
ALL = mutants.mutants()
EQUIVALENT = mutants.equivalents()
# A seeded sample in CI; `make verdicts` grades them all.
CHANCE = random.Random(0)
MORTAL = [
    CHANCE.choice([m for m in ALL if m.task == task and m.name not in EQUIVALENT]) for task in BY_ID
]
RIGHT = CHANCE.sample([m for m in ALL if m.name in EQUIVALENT], 3)
COMBINED = CHANCE.sample(combinations(), 2)


def named(work: Mutant | Combination) -> str:
    return work.name


def cell(*lines: str) -> nbformat.NotebookNode:
    source = "\n".join(["def train_vae(model):", "    ### BEGIN SOLUTION", *lines])
    made: nbformat.NotebookNode = nbformat.v4.new_code_cell(f"{source}\n    ### END SOLUTION")
    return made


def test_there_are_hundreds_in_every_part_of_the_homework() -> None:
    assert len(ALL) > 500
    assert {m.task for m in ALL} == set(BY_ID)
    assert {m.operator for m in ALL} == set(mutants.OPERATORS)


def test_names_and_sources_are_unique() -> None:
    assert len({m.name for m in ALL}) == len(ALL)
    assert len({(m.cell, m.source) for m in ALL}) == len(ALL)


def test_the_same_reference_makes_the_same_mutants() -> None:
    assert mutants.mutants() == ALL


def test_no_mutant_is_the_reference() -> None:
    reference = nbformat.read(mutants.REFERENCE, as_version=4)
    plain = {c.id: ast.dump(ast.parse(c.source)) for c in reference.cells if c.id in cells()}
    assert [m.name for m in ALL if ast.dump(ast.parse(m.source)) == plain[m.cell]] == []


def cells() -> set[str]:
    return {m.cell for m in ALL}


def test_only_the_solution_is_changed() -> None:
    made = mutants.of_cell(cell("    return 1"))
    assert {m.line for m in made} == {3}
    assert {m.source.splitlines()[0] for m in made} == {"def train_vae(model):"}


def test_what_does_not_compile_is_no_mutant() -> None:
    made = mutants.of_cell(cell("    for a in model:", "        continue"))
    assert made
    for mutant in made:
        compile(mutant.source, mutant.name, "exec")


@pytest.mark.parametrize(
    ("line", "operator", "expected"),
    [
        ("return f(a, b)", "swap-arguments", "return f(b, a)"),
        ("return f(a, b=1)", "drop-keyword", "return f(a)"),
        ("return f(a)", "drop-call", "return a"),
        ("return f(a)", "repeat-call", "return f(f(a))"),
        ("return a + b", "arithmetic", "return a - b"),
        ("return 2", "constant", "return 3"),
        ("return a.sum()", "swap-function", "return a.mean()"),
        ("a = Adam(lr=b)", "learning-rate", "a = Adam(lr=10 * b)"),
        ("a = o.Adam(b)", "optimiser", "a = o.SGD(b)"),
        ("a = nn.LeakyReLU()", "activation", "a = nn.ReLU()"),
        ("a = nn.Linear(b, c)", "bias", "a = nn.Linear(b, c, bias=False)"),
        ("a = F.mse_loss(b, c)", "loss", "a = F.l1_loss(b, c)"),
    ],
)
def test_operators(line: str, operator: str, expected: str) -> None:
    made = [m for m in mutants.of_cell(cell(f"    {line}")) if m.operator == operator]
    assert expected in {m.source.splitlines()[-1].strip() for m in made}


def test_equivalent_mutants_exist_and_have_a_reason() -> None:
    assert set(EQUIVALENT) <= {m.name for m in ALL}
    assert all(EQUIVALENT.values())


def test_combinations_are_drawn_once_and_the_same() -> None:
    drawn = combinations()
    assert [c.name for c in drawn] == [c.name for c in combinations()]
    assert len({c.name for c in drawn}) == len(drawn) == 100
    assert all(len(c.lost) >= len(c.parts) for c in drawn)


@pytest.mark.parametrize("mutant", MORTAL, ids=named)
def test_a_mutant_costs_points_in_its_task_alone(mutant: Mutant) -> None:
    made = grade(mutant.notebook(), tasks=verdicts.tasks_of(mutant))
    told = [r.message for r in made.results if r.message]
    assert not made.faults, told
    assert {r.task for r in made.results if not r.passed} == {mutant.task}, mutant.change


@pytest.mark.parametrize("mutant", RIGHT, ids=named)
def test_an_equivalent_mutant_costs_nothing(mutant: Mutant) -> None:
    made = grade(mutant.notebook(), tasks=verdicts.tasks_of(mutant))
    assert [r.message for r in made.results if not r.passed] == []


@pytest.mark.parametrize("combination", COMBINED, ids=named)
def test_mistakes_together_cost_what_they_cost_alone(combination: Combination) -> None:
    made = grade(combination.notebook())
    assert not made.faults
    assert lost(made) == combination.lost
    told = causes(made)
    assert [t for t, slug in combination.causes.items() if slug not in told[t]] == []


def verdict(name: str, *failed: tuple[str, float, str]) -> Verdict:
    mutant = next(m for m in ALL if m.name == name)
    checks = [
        {
            "task": mutant.task,
            "id": id,
            "points": points,
            "passed": not slug,
            "outcome": "wrong" if slug else "passed",
            "message": "",
            "misconception": slug or None,
        }
        for id, points, slug in failed
    ]
    return Verdict("mutant", name, checks, 1.0)


def test_the_report_tells_the_killed_from_those_alive() -> None:
    killed, alive = [m for m in ALL if m.task == "data-loader" and m.name not in EQUIVALENT][:2]
    report = verdicts_report.markdown(
        [
            verdict(killed.name, ("batches", 0.5, "drops-data"), ("shuffling", 0.5, "")),
            verdict(alive.name, ("batches", 0.5, ""), ("shuffling", 0.5, "")),
        ]
    )
    assert "| data-loader | 2 | 0 | 1 | 1 | 50 % | 100 % |" in report
    assert f"| `{alive.name}` | survived |" in report
    assert killed.name not in report


def all_ended(group: int) -> bool:
    """Whether a group of processes is gone, within seconds: the last one is multiprocessing's."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_an_interrupted_run_ends_its_processes_and_keeps_what_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.verdicts", "--only", "mutants", "--jobs", "2"]
    command += ["--match", "data-loader:*", "--kept", str(tmp_path)]
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=heed_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, told = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "the next run goes on from there" in told
    assert all_ended(run.pid)
    assert list(tmp_path.rglob("*.json"))
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".json"]
