"""Draw the README's score table: `python -m tools.score_table` writes docs/score-table.svg."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from autograder import report
from tests import corpus
from tests.grading import grade

TARGET = Path(__file__).resolve().parent.parent / "docs" / "score-table.svg"


def main() -> None:
    """Grade the original homework's student and keep what a terminal would show."""
    made = grade(corpus.submission("student"), seed=1)
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    console.print(report.table(made))
    TARGET.write_text(
        console.export_svg(title="autograder grade vae.ipynb", unique_id="score-table"),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
