"""Files beside the notebook, malformed notebooks, and hostile names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autograder import cli, notebook
from autograder.contract import BY_ID
from autograder.grading import Grade
from autograder.run import Run, perform
from autograder.submission import Submission
from tests import corpus
from tests.attacks.attack import Attack, assert_clean, carry_out
from tests.test_cli import command, run_pytest, student_folder

CODE = {"cell_type": "code", "source": "x = 1"}
ODD: list[Any] = [None, True, -1, 0.5, "x", [], {}, [None], {"a": 1}, float("nan"), 2**70, "\ud800"]
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n ",
    "null": b"null",
    "number": b"1",
    "text": b'"cells"',
    "half": b'{"cells": [',
    "single-quotes": b"{'cells': []}",
    "nan": b"NaN",
    "nested": b"[" * 300_000,
    "nested-objects": b'{"cells":' * 100_000,
    "long-integer": b'{"cells": ' + b"9" * 100_000 + b"}",
    "null-bytes": b"\x00" * 1000,
    "utf-16": json.dumps({"cells": [CODE]}).encode("utf-16"),
    "latin-1": '{"cells": "é"}'.encode("latin-1"),
    "elf": b"\x7fELF" + bytes(range(256)),
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    "html": b"<!DOCTYPE html><html></html>",
    "two-objects": b'{"cells": []}{"cells": []}',
    "cells-of-text": b'{"cells": "x = 1"}',
    "cells-of-numbers": b'{"cells": 5}',
    "no-cells": b'{"nbformat": 4}',
    "version-2": b'{"nbformat": 2, "worksheets": 5}',
    "version-3": b'{"nbformat": 3, "worksheets": [{"cells": [5, null]}, 7]}',
    "version-huge": b'{"nbformat": ' + b"9" * 4000 + b"}",
    "millions-of-cells": b'{"cells": [' + b"{}," * 8_000_000 + b"{}]}",
    "version-of-text": b'{"nbformat": "three"}',
}


def refusal(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `autograder grade` says of a file that it does not grade."""
    began = time.monotonic()
    assert cli.main(["grade", str(path)]) == 2
    told = capsys.readouterr()
    assert time.monotonic() - began < 30
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert_clean(told.err)
    return told.err


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_notebook_is_refused_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{name}.ipynb"
    path.write_bytes(TEXTS[name])
    said = refusal(path, capsys)
    assert path.name in said
    assert ";" in said, "the remedy follows the reason"


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _endless(path: Path) -> None:
    path.symlink_to("/proc/kmsg")  # a regular file, by what it says of itself


def _nowhere(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


PLACES: dict[str, Callable[[Path], None]] = {
    "loop": _loop,
    "folder": _folder,
    "pipe": os.mkfifo,
    "sparse": _sparse,
    "zeros": _zeros,
    "nowhere": _nowhere,
    "endless": _endless,
    "missing": lambda path: None,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_refused_in_one_line(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vae.ipynb"
    PLACES[place](path)
    assert "vae.ipynb" in refusal(path, capsys)


@pytest.mark.parametrize(
    "name", ["\x1b[31mred.ipynb", "::error::x.ipynb", "a\nb.ipynb", "\u202egnp.ipynb", "x" * 300]
)
def test_a_file_name_gives_no_orders(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal(tmp_path / name, capsys)


def test_any_field_may_hold_anything(tmp_path: Path) -> None:
    """A notebook is read, or refused in one line, whatever stands where."""
    rng = random.Random(0)

    def spoilt(value: Any) -> Any:
        if rng.random() < 0.12:
            return rng.choice(ODD)
        if isinstance(value, dict):
            return {k: spoilt(v) for k, v in value.items() if rng.random() > 0.03}
        if isinstance(value, list):
            return [spoilt(v) for v in value]
        return value

    answer = {
        "cell_type": "markdown",
        "source": ["YOUR ", "ANSWER HERE"],
        "metadata": {"nbgrader": {"grade_id": "beta-zero-answer"}},
        "id": "a",
    }
    old = {"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []}
    plain = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CODE, answer, answer]}
    past = {"nbformat": 3, "metadata": {}, "worksheets": [{"cells": [old], "metadata": {}}]}
    path = tmp_path / "vae.ipynb"
    for turn in range(3000):
        path.write_text(json.dumps(spoilt(past if turn % 3 == 0 else plain)), encoding="utf-8")
        with contextlib.suppress(notebook.NotebookError):
            assert all(isinstance(cell, str) for cell in notebook.read(path).cells)


ODD_SOURCES = {  # each with a beta that is well tuned, and what it earns
    "null-byte": ("TUNED_BETA = 1e-4\0", 5),
    "form-feed": ("\fTUNED_BETA = 1e-4\n\fx = 1", 5),
    "carriage-returns": ("TUNED_BETA = 1e-4\rx = 1\r\n", 5),
    "cookie": ("# -*- coding: utf-7 -*-\nTUNED_BETA = 1e-4", 5),
    "surrogate": ("x = '\ud800'\nTUNED_BETA = 1e-4", 5),
    "text-of-ten-gigabytes": ("TUNED_BETA = 1e-4 + 0 * len('a' * 10**10)", 0),
    "power-of-a-billion": ("def f():\n    return 2**10**9\nTUNED_BETA = 1e-4", 5),
    "tuples-of-tuples": ("f = lambda: ((((0,) * 256,) * 256,) * 256,) * 256\nTUNED_BETA = 1e-4", 5),
    "long-integer": ("x = 0x" + "f" * 5_000_000 + "\nTUNED_BETA = 1e-4", 5),
    "attributes": ("TUNED_BETA = y" + ".a" * 200_000, 0),
    "signs": ("TUNED_BETA = " + "-" * 100_000 + "1e-4", 0),
    "decorators": ("@d\n" * 20_000 + "class VAE: pass\nTUNED_BETA = 1e-4", 5),
    "braces": ("TUNED_BETA = f'" + "{1:" * 200 + "}" * 200 + "'", 0),
    "deleted": ("VAE = 1\ndel VAE\nTUNED_BETA = 1e-4", 5),
}


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("name", ODD_SOURCES)
def test_an_odd_source_is_graded(name: str) -> None:
    source, score = ODD_SOURCES[name]
    node = {"cells": [{"cell_type": "code", "source": source}]}
    made = notebook.parse(node, Path("vae.ipynb"))
    submission = Submission(made.cells, boxed=True, statement_seconds=10.0)
    run = Run(Grade(made), submission, 1, learning=False)
    try:
        perform(run, ("beta-tuning",))
    finally:
        submission.close()
    assert not run.grade.faults
    assert run.grade.score(BY_ID["beta-tuning"]) == score, [r.message for r in run.grade.results]


SHADOWS = """
torch.py numpy.py pytest.py hypothesis.py json.py autograder.py conftest.py sitecustomize.py
usercustomize.py safetensors.py rich.py solution.py autograder/__init__.py autograder/__main__.py
autograder/conftest.py tests/__init__.py _pytest/__init__.py
""".split()
SETTINGS = {
    "pytest.ini": "[pytest]\naddopts = --collect-only -p evil\n",
    "tox.ini": "[pytest]\naddopts = --collect-only\n",
    "setup.cfg": "[tool:pytest]\naddopts = --collect-only\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--collect-only'\n",
    "pyvenv.cfg": "home = /nowhere\n",
    "evil.pth": "import os; os._exit(3)\n",
    ".coveragerc": "[run]\nplugins = evil\n",
}


@pytest.mark.usefixtures("box")
def test_files_beside_the_notebook_are_not_read(tmp_path: Path) -> None:
    corpus.write(corpus.submission("student"), tmp_path / "vae.ipynb")
    for name in SHADOWS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    for name, text in SETTINGS.items():
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "vae.safetensors")
    constants = tmp_path / ".hypothesis" / "constants"  # where hypothesis looks, by a known name
    constants.mkdir(parents=True)
    for source in Path(notebook.__file__).parent.glob("*.py"):
        os.mkfifo(constants / hashlib.sha1(source.read_bytes()).hexdigest()[:16])
    (tmp_path / "data").symlink_to("/")
    before = sorted(str(path) for path in tmp_path.rglob("*") if "data" not in path.parts)
    done = command("grade", "vae.ipynb", "--no-learning", "--seed", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "uses-global-model" in done.stdout
    after = sorted(str(path) for path in tmp_path.rglob("*") if "data" not in path.parts)
    assert after == before


@pytest.mark.usefixtures("box")
def test_settings_above_the_students_checks_are_not_read(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [{**CODE, "metadata": {}, "outputs": [], "execution_count": None}]
    empty = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}
    (tmp_path / "mine.ipynb").write_text(json.dumps(empty))
    student_folder(tmp_path, tmp_path / "mine.ipynb")
    for name, text in SETTINGS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "conftest.py").write_text("raise SystemExit('shadowed')")
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "0 / 31" in done.stdout
    assert "shadowed" not in done.stdout + done.stderr


def weights(dtype: str, size: int, metadata: object = None) -> bytes:
    """The bytes of a safetensors file with one tensor."""
    header: dict[str, Any] = {"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


FILES = {
    "garbage": b"x" * 1000,
    "huge-header": struct.pack("<Q", 2**60),
    "float8": weights("F8_E4M3", 1),
    "unsigned": weights("U32", 4),
    "complex": weights("C64", 8),
    "text-for-nz": weights("F32", 4, {"nz": "many"}),
    "huge-nz": weights("F32", 4, {"nz": "9" * 5000}),
    "numbers-as-metadata": weights("F32", 4, {"nz": 5}),
    "no-metadata": weights("F32", 4, []),
    "another-tensor": weights("F32", 4, {"nz": "4"}),
}


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_weights_earns_nothing_by_what_it_is(name: str) -> None:
    attack = Attack("weights", name, "beta-tuning", "TUNED_BETA = 2e-3", honest=None)
    outcome = carry_out(attack, weights=FILES[name])
    assert not outcome.grade.faults, [r.message for r in outcome.grade.faults]
    assert {r.id: r.passed for r in outcome.grade.results} == {"magnitude": True, "range": False}
    assert "vae.safetensors" in outcome.messages("beta-tuning")
