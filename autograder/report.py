"""The score table that people see."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autograder.contract import ANSWERS, TASKS, Task
from autograder.grading import Grade, Result
from autograder.notebook import answer_status, words

_STYLES = {
    "passed": "green",
    "partial": "yellow",
    "failed": "red",
    "error": "red",
    "not-attempted": "dim",
    "over-limit": "yellow",
    "manual": "cyan",
}


def table(grade: Grade, tasks: tuple[Task, ...] = TASKS, answers: bool = True) -> Table:
    """Tasks, points and causes; then the written answers and their lengths."""
    made = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
    made.add_column("task", no_wrap=True)
    made.add_column("points", justify="right", no_wrap=True)
    made.add_column("status", no_wrap=True)
    made.add_column("why", overflow="fold")
    for task in tasks:
        status = grade.status(task)
        points = f"{grade.score(task):g} / {task.points:g}"
        made.add_row(task.id, points, Text(status, _STYLES[status]), _causes(grade.of_task(task)))
    if answers:
        _add_answers(made, grade)
    total = sum(task.points for task in tasks)
    reached = sum(grade.score(task) for task in tasks)
    made.add_section()
    made.add_row("total", f"{reached:g} / {total:g}", "", "", style="bold")
    return made


def _add_answers(made: Table, grade: Grade) -> None:
    made.add_section()
    for answer in ANSWERS:
        text = grade.notebook.answers.get(answer.id, "")
        status = answer_status(answer, text)
        shown = f"- / {answer.points:g}"
        length = f"{words(text)} of at most {answer.limit} words; graded by a person"
        if not words(text):
            length = f"nothing is written; at most {answer.limit} words are asked for"
        made.add_row(answer.id, shown, Text(status, _STYLES[status]), Text(length))


def _causes(results: list[Result]) -> Text:
    """The distinct messages of the checks, each with its cause in brackets."""
    lines: dict[str, None] = {}
    for result in results:
        if result.message:
            cause = f"[{result.misconception}] " if result.misconception else ""
            lines[cause + result.message] = None
    return Text("\n".join(lines))


def show(grade: Grade, file: TextIO, tasks: tuple[Task, ...] = TASKS, answers: bool = True) -> None:
    """Print the table."""
    console = Console(file=file, highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = max(console.width, 110)
    console.print(table(grade, tasks, answers))
