"""What a student handed in: the notebooks to grade and the files to keep, whatever lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOTEBOOKS = 5  # graded of one submission at most
DEPTH = 20  # folders within folders
ENTRIES = 5_000  # looked at in one submission
KEPT_SUFFIXES = {".pdf", ".png", ".jpg", ".jpeg"}
KEPT_FILES = 20
KEPT_BYTES = 20 << 20
_LEFT_OUT = {"__pycache__", "autograder", "data"}  # what the homework itself puts there


@dataclass(frozen=True)
class Submission:
    """One student's folder; problem: why it holds no notebook, or nothing."""

    folder: Path
    notebooks: tuple[Path, ...]
    problem: str = ""


def find(folder: Path, name: str) -> Submission:
    """The notebooks of a submission, NAME.ipynb first; links and special files are none."""
    expected = folder / f"{name}.ipynb"
    found = [path for path in _files(folder) if path.suffix.lower() == ".ipynb"]
    found.sort(key=lambda path: (path != expected, len(path.parts), path.name))
    return Submission(folder, tuple(found[:NOTEBOOKS]), "" if found else _problem(expected))


def _problem(expected: Path) -> str:
    if expected.is_symlink():
        return f"{expected.name} is a link to another file; hand in the notebook itself."
    if expected.is_dir():
        return f"{expected.name} is a folder; hand in the notebook itself."
    if expected.exists():
        return f"{expected.name} is not a regular file; hand in the notebook itself."
    return f"No notebook was handed in; {expected.name} is missing."


def kept_files(submission: Submission) -> list[Path]:
    """Documents and pictures for whoever grades; nothing that a browser would run."""
    files = (path for path in _files(submission.folder) if path.suffix.lower() in KEPT_SUFFIXES)
    return [path for path in files if path.stat().st_size <= KEPT_BYTES][:KEPT_FILES]


def timestamp(folder: Path) -> str | None:
    """The text of timestamp.txt, which nbgrader's collecting writes, or None."""
    path = folder / "timestamp.txt"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 100:
        return None
    return path.read_text(encoding="utf-8", errors="replace").strip() or None


def _files(folder: Path) -> Iterator[Path]:
    """Regular files, in a fixed order; links are not followed."""
    seen = 0
    for place, folders, names in os.walk(folder):
        deep = len(Path(place).relative_to(folder).parts) >= DEPTH
        kept = () if deep else (f for f in folders if f not in _LEFT_OUT and f[0] != ".")
        folders[:] = sorted(kept)
        for name in sorted(names):
            seen += 1
            path = Path(place, name)
            if seen > ENTRIES:
                return
            if not name.startswith(".") and _is_regular(path):
                yield path


def _is_regular(path: Path) -> bool:
    try:
        return path.is_file() and not path.is_symlink()
    except OSError:  # in a folder that may be listed, but not searched
        return False
