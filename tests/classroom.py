"""A course folder with a class that hands in all sorts of things, for the tests of nbgrader."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup

from autograder import sandbox
from autograder.contract import ANSWERS, TASKS
from autograder.notebook import grade_id
from solution import notebook as built
from tests import corpus

ROOT = Path(__file__).resolve().parents[1]
Cells = list[dict[str, Any]]


def complete() -> dict[str, Any]:
    """The homework with every task solved and every answer given, as JSON."""
    content: dict[str, Any] = json.loads(built.build())
    for cell in content["cells"]:
        if grade_id(cell) in {answer.id for answer in ANSWERS}:
            cell["source"] = f"My answer to {grade_id(cell)}."
    return content


def edited(change: Callable[[Cells], object]) -> str:
    """The complete homework after a change to its cells, which may also return new ones."""
    content = complete()
    made = change(content["cells"])
    if isinstance(made, list):
        content["cells"] = made
    return json.dumps(content)


def _graded(cells: Cells) -> Cells:
    return [cell for cell in cells if "nbgrader" in cell["metadata"]]


def _tests(cells: Cells) -> Cells:
    return [cell for cell in cells if grade_id(cell) in {task.id for task in TASKS}]


def _answers(cells: Cells) -> Cells:
    return [cell for cell in cells if grade_id(cell) in {answer.id for answer in ANSWERS}]


def duplicated(cells: Cells) -> Cells:
    return cells + copy.deepcopy(_graded(cells))


def deleted(cells: Cells) -> Cells:
    gone = _tests(cells) + _answers(cells)
    return [cell for cell in cells if cell not in gone]


def reordered(cells: Cells) -> Cells:
    moved = _tests(cells) + _answers(cells)
    return moved[::-1] + [cell for cell in cells if cell not in moved]


def renamed(cells: Cells) -> None:
    for number, cell in enumerate(_graded(cells)):
        cell["metadata"]["nbgrader"]["grade_id"] = f"other-{number}"


def retyped(cells: Cells) -> None:
    for cell in _tests(cells):
        cell["cell_type"] = "markdown"
        cell.pop("outputs"), cell.pop("execution_count")
    for cell in _answers(cells):
        cell.update(cell_type="raw")


def raised_points(cells: Cells) -> None:
    for cell in _graded(cells):
        cell["metadata"]["nbgrader"]["points"] = 1000


def stripped(cells: Cells) -> None:
    for cell in cells:
        cell["metadata"] = {}
        cell.pop("id")


def broken_metadata(cells: Cells) -> None:
    wrong: list[Any] = [None, [], "text", {"grade_id": 3}, {"schema_version": 99, "grade": True}]
    for number, cell in enumerate(cells):
        cell["metadata"]["nbgrader"] = wrong[number % len(wrong)]
    cells[0]["metadata"] = []


def wordy(cells: Cells) -> None:
    _answers(cells)[1]["source"] = "word " * 151


def tagged(cells: Cells) -> None:
    for cell in cells:
        cell["metadata"]["tags"] = ["skip-execution", "remove_cell", "raises-exception"]


def changed_tests(cells: Cells) -> None:
    for cell in _tests(cells):
        cell["source"] = "print('all right')\n1000.0"


def other_format(number: int) -> str:
    content = complete()
    if number == 3:
        with_lists: str = nbformat.writes(
            nbformat.reads(json.dumps(content), as_version=4), version=3
        )
        return with_lists
    return json.dumps({**content, "nbformat": number, "nbformat_minor": 9})


def other_kernel() -> str:
    content = complete()
    content["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}
    return json.dumps(content)


MATHJAX = "https://cdnjs.cloudflare.com/"
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)></svg>"
    "<iframe src='javascript:alert(1)'></iframe><a href='javascript:alert(1)'>link</a>"
    "<style>body{display:none}</style><form action='https://evil.example'><input id='encoder'>"
    "</form><img src='https://evil.example/pixel.png'><div style='position:fixed' id='encoder'>"
)


def evil(cells: Cells) -> None:
    for kind in ("markdown", "raw"):
        cells.append({"cell_type": kind, "metadata": {"raw_mimetype": "text/html"}, "source": EVIL})
    links = "[a](javascript:alert(1)) ![b](javascript:alert(1)) <https://ok.example>"
    cells.append({"cell_type": "markdown", "metadata": {}, "source": f"# encoder\n\n{links}"})
    _answers(cells)[0]["source"] = f"My evil answer. {EVIL}"
    cells.append(
        {
            "cell_type": "code",
            "metadata": {"tags": ['"><script>alert(1)</script>']},
            "execution_count": None,
            "source": "# </pre><script>alert(1)</script>",
            "outputs": [
                _display({"text/html": EVIL}),
                _display({"text/markdown": EVIL}),
                _display({"text/latex": EVIL}),
                _display({"image/svg+xml": f"<svg>{EVIL}</svg>"}),
                _display({"application/javascript": "alert(1)"}),
                _display({"image/png": f'"><script>alert(1)</script>{EVIL}'}),
                _display({"application/vnd.jupyter.widget-view+json": {"model_id": EVIL}}),
                {"output_type": "stream", "name": "stdout", "text": EVIL},
                {"output_type": "error", "ename": EVIL, "evalue": EVIL, "traceback": [EVIL]},
            ],
        }
    )


def dangers(page: str) -> list[str]:
    """Markup in a page that acts, calls home or passes for a part of formgrader."""
    parsed = BeautifulSoup(page, "html.parser")
    found = [str(s) for s in parsed.find_all("script") if "mathjax" not in str(s).lower()]
    for tag in parsed.find_all(True):
        if tag.name in ("iframe", "form", "input", "object", "embed", "svg", "link", "base"):
            found.append(str(tag))
        if tag.name == "style" and "body{display:none}" in str(tag):
            found.append(str(tag))
        for name, told in tag.attrs.items():
            value = str(told)
            local = name != "src" or value.startswith(("data:image/", MATHJAX))
            named = name == "id" and value == "encoder"
            if name.startswith("on") or "javascript:" in value or not local or named:
                found.append(str(tag)[:500])
    return found


def _display(data: dict[str, Any]) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def picture(side: int) -> str:
    """A PNG of noise, which does not compress: about 4 * side * side characters."""
    import base64
    import io

    from PIL import Image

    made = io.BytesIO()
    noise = Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))
    noise.save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def huge(cells: Cells) -> None:
    pictures = [picture(400) for _ in range(3)] + [picture(40)]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = [
                *[_display({"image/png": p, "text/plain": "<Figure>"}) for p in pictures],
                {"output_type": "stream", "name": "stdout", "text": "<step>\n" * 200_000},
            ]
    for _ in range(2000):
        cells.append({"cell_type": "markdown", "metadata": {}, "source": "*a* <b>b</b> " * 50})
    code: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
    }
    cells.append({**code, "source": "x=[+-+-+-1,]\n" * 20_000})


# What the whole work of the task is worth, however it was handed in: name to notebook text.
COMPLETE: dict[str, Callable[[], str]] = {
    "complete": lambda: json.dumps(complete()),
    "duplicated": lambda: edited(duplicated),
    "deleted": lambda: edited(deleted),
    "reordered": lambda: edited(reordered),
    "renamed": lambda: edited(renamed),
    "retyped": lambda: edited(retyped),
    "raised-points": lambda: edited(raised_points),
    "stripped": lambda: edited(stripped),
    "broken-metadata": lambda: edited(broken_metadata),
    "wordy": lambda: edited(wordy),
    "tagged": lambda: edited(tagged),
    "changed-tests": lambda: edited(changed_tests),
    "other-kernel": other_kernel,
    "format-3": lambda: other_format(3),
    "format-5": lambda: other_format(5),
    "evil": lambda: edited(evil),
    "huge": lambda: edited(huge),
}
# What is not a notebook: name to text, None for what is made in `hand_in`.
NOTHING: dict[str, str | None] = {
    "invalid-json": "{not json",
    "empty-file": "",
    "no-cells": "{}",
    "folder": None,
    "missing": None,
    "link": None,
    "pipe": None,
}


def hand_in(folder: Path) -> None:
    """Fill submitted/ with the class; code of `evil` tries to leave a file in the course."""
    for name, text in COMPLETE.items():
        _put(folder, name, text())
    for name, content in NOTHING.items():
        target = _put(folder, name, content)
        if name == "folder":
            target.mkdir()
        elif name == "missing":
            (target.parent / "essay.txt").write_text("I did not do it in Python")
        elif name == "link":
            target.symlink_to(folder / "submitted" / "complete" / "vae" / "vae.ipynb")
        elif name == "pipe":
            os.mkfifo(target)
    corpus.write(corpus.submission("student"), _put(folder, "real-student", ""))
    shutil.copy(ROOT / "release/vae/vae.ipynb", _put(folder, "real-untouched", ""))
    _put_escape(folder)
    _several(folder)


def _put_escape(folder: Path) -> None:
    path = folder / "submitted" / "evil" / "vae" / "vae.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"][-1]["source"] += f"\nescaped = open({str(folder / 'escaped')!r}, 'w')"
    path.write_text(json.dumps(content), encoding="utf-8")


def _several(folder: Path) -> None:
    """An untouched notebook, the work under other names, and files that shadow modules."""
    target = _put(folder, "several", (ROOT / "release/vae/vae.ipynb").read_text(encoding="utf-8"))
    (target.parent / "vae (1).ipynb").write_text(json.dumps(complete()))
    other = _put(folder, "other-name", None).with_name("my homework.ipynb")
    other.write_text(json.dumps(complete()))
    shadows = _put(folder, "shadows", json.dumps(complete())).parent
    for name in ("torch.py", "conftest.py", "sitecustomize.py", "nbgrader_config.py", "evil.html"):
        (shadows / name).write_text("raise SystemExit('shadowed')")
    (shadows / "autograder").mkdir()
    (shadows / "autograder" / "__init__.py").write_text("raise SystemExit('shadowed')")
    (shadows / "passwords.pdf").symlink_to("/etc/passwd")
    (shadows / "problem_1_solution.pdf").write_bytes(b"%PDF-1.4 mine")
    (shadows / "timestamp.txt").write_text("yesterday, honestly")


def _put(folder: Path, name: str, text: str | None) -> Path:
    target = folder / "submitted" / name / "vae" / "vae.ipynb"
    target.parent.mkdir(parents=True)
    if text is not None:
        target.write_text(text, encoding="utf-8")
    return target


def make_course(folder: Path) -> None:
    """The project's own course folder, without what it generates."""
    shutil.copytree(ROOT / "assignment", folder / "assignment")
    shutil.copy(ROOT / "nbgrader_config.py", folder)


def _hashes(folder: Path) -> dict[Path, str]:
    """What lies under submitted/, by content."""
    files = [p for p in folder.glob("submitted/**/*") if p.is_file() and not p.is_symlink()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def graded_course(folder: Path) -> None:
    """Make the course, have the class hand in, and grade it; what nbgrader says is kept in logs."""
    make_course(folder)
    hand_in(folder)
    before = _hashes(folder)
    for step in ("generate_assignment", "autograde", "generate_feedback"):
        done = nbgrader(folder, step, "vae")
        (folder / f"{step}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        assert done.returncode == 0, done.stderr
    assert nbgrader(folder, "export").returncode == 0
    assert _hashes(folder) == before, "what was handed in stays as it is"


def part_of_class(course: Path, folder: Path, students: Iterable[str], settings: str = "") -> None:
    """A new course, not graded, with work of the graded class, whose verdicts are at hand."""
    make_course(folder)
    shutil.copytree(course / ".autograder", folder / ".autograder")
    for student in students:
        shutil.copytree(course / "submitted" / student, folder / "submitted" / student)
    config = folder / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8") + settings, encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """For a program that runs in a course folder: nobody's own settings of Jupyter."""
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "HOME": str(folder),
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": str(ROOT),
    }


def nbgrader(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of nbgrader's commands in a course folder; unboxed where there is no sandbox."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    if arguments[0] == "autograde" and sandbox.missing():
        command.append("--Autograde.unboxed=True")
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
