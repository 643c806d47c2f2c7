"""Reading notebook files: clear refusals, and nothing readable refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder import notebook
from autograder.cells import cells_behind
from autograder.contract import ANSWERS

CODE = {"cell_type": "code", "source": "x = 1"}


def written(folder: Path, content: object) -> Path:
    path = folder / "vae.ipynb"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import torch", "not a script"),
        ("", "empty"),
        ("[" * 100_000, "not JSON"),
        ('{"cells": [', "no whole JSON"),
        ('{\n<<<<<<< HEAD\n "cells": []', "the marks of a merge"),
        ("<html>", "a web page"),
        ("PK\x03\x04", "an archive"),
        (b"\x1f\x8b\x08", "an archive"),
        ("%PDF-1.7", "a PDF"),
        ("version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("{}".encode("utf-16"), "save it as UTF-8"),
        ("{}".encode("utf-16-le"), "save it as UTF-8"),
        ("{}".encode("utf-32"), "save it as UTF-8"),
        ('{"cells": ["é"]}'.encode("latin-1"), "save it as UTF-8"),
        ("[1]", "no JSON object"),
        ({"a": 1}, "no cells"),
        ({"nbformat": 3, "worksheets": [{"cells": []}]}, "old format"),
        ({"nbformat": 2}, "old format"),
    ],
)
def test_what_is_no_notebook_is_refused_with_a_remedy(
    tmp_path: Path, content: object, says: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(notebook.NotebookError, match=says) as caught:
        notebook.read(path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value), "the remedy follows the reason"


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(notebook.NotebookError, match="no such file"):
        notebook.read(tmp_path / "none.ipynb")
    with pytest.raises(notebook.NotebookError, match="a folder"):
        notebook.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(notebook.NotebookError, match="not a regular file"):
            notebook.read(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content",
    [
        {"cells": [CODE]},
        {"cells": [CODE], "nbformat": 5},
        {"cells": [CODE, None, 3, {}, {"cell_type": "code", "source": 5}], "nbformat": "4"},
        {"cells": [{"cell_type": "code", "source": ["x ", "= 1"]}], "metadata": []},
    ],
)
def test_odd_notebooks_are_read(tmp_path: Path, content: dict[str, Any]) -> None:
    assert notebook.read(written(tmp_path, content)).cells[0] == "x = 1"


@pytest.mark.parametrize("level", [2**31, 10**40, -1, 0, 2.0, "x", None, [1]])
def test_a_heading_of_an_odd_level_costs_neither_cells_nor_memory(
    level: Any, tmp_path: Path
) -> None:
    heading = {"cell_type": "heading", "level": level, "source": "A heading", "metadata": {}}
    code = {"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []}
    content = {"nbformat": 3, "metadata": {}, "worksheets": [{"cells": [heading, code]}]}
    cells = notebook.load(written(tmp_path, content))
    assert [c["source"] for c in cells][1] == "x = 1"
    assert len(cells[0]["source"]) < 20


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    assert notebook.read(written(tmp_path, "\ufeff" + json.dumps({"cells": [CODE]}))).cells


def answer(id: str, text: str) -> dict[str, Any]:
    metadata = {"nbgrader": {"grade_id": id}}
    return {"cell_type": "markdown", "source": text, "metadata": metadata}


def test_answers_are_found_by_id_and_the_longest_counts(tmp_path: Path) -> None:
    cells = [answer("beta-zero-answer", "YOUR ANSWER HERE"), answer("beta-zero-answer", "one two")]
    found = notebook.read(written(tmp_path, {"cells": cells})).answers
    assert found == {"beta-zero-answer": "one two"}


@given(st.sampled_from(ANSWERS), st.integers(0, 400))
def test_limits_are_inclusive(answer: Any, count: int) -> None:
    status = notebook.answer_status(answer, " word\n" * count)
    expected = "over-limit" if count > answer.limit else "manual" if count else "not-attempted"
    assert status == expected


def test_the_cells_behind_a_definition_are_found_however_many_name_one_another() -> None:
    chain = [f"def a{n}(): a{n + 1}" for n in reversed(range(5000))]
    cells = ["def f(): a0()", "def g(): a0()", *chain]
    assert {*cells_behind("f", cells)} == {"def f(): a0()", *chain}
    assert cells_behind("a4999", cells) == [chain[0]]
    assert cells_behind("h", cells) == []


@pytest.mark.parametrize(
    "cell",
    [
        {"cell_type": "Code", "source": "x = 1"},
        {"source": "x = 1", "outputs": []},
        {"cell_type": "code", "input": "x = 1"},
        {"cell_type": "code", "source": "x = 1", "execution_count": 10**3},
    ],
)
def test_cells_that_say_their_kind_or_source_otherwise_are_read(
    tmp_path: Path, cell: dict[str, Any]
) -> None:
    text = json.dumps({"cells": [cell]}).replace("1000", "9" * 5000)
    assert notebook.read(written(tmp_path, text)).cells == ["x = 1"]
