"""The parts of the nbgrader integration that need no class: answers, HTML, pictures, pages."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

from autograder.contract import ANSWERS
from autograder.grading import Grade, Result
from autograder.notebook import (
    Notebook,
    NotebookError,
    cells_of,
    locate_answers,
    parse,
    source,
    words,
)
from course import clean
from course.rebuild import Graded, rebuild
from course.settings import configure
from course.validate import Validator
from course.verdicts import Verdict, shown
from solution import notebook as built
from tests import classroom

RELEASE = classroom.ROOT / "release" / "vae" / "vae.ipynb"


def released() -> list[dict[str, Any]]:
    """The cells that students get."""
    cells: list[dict[str, Any]] = json.loads(RELEASE.read_text(encoding="utf-8"))["cells"]
    return cells


def anonymous(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells without any name."""
    return [{"cell_type": c["cell_type"], "source": source(c), "metadata": {}} for c in cells]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.id)
def test_every_question_stands_in_one_cell(answer: Any) -> None:
    assert sum(answer.question in " ".join(source(c).split()) for c in released()) == 1


def test_the_released_notebook_holds_no_answers_with_or_without_names() -> None:
    for cells in (released(), anonymous(released())):
        assert {id: words(found.text) for id, found in locate_answers(cells).items()} == {
            answer.id: 0 for answer in ANSWERS
        }


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.id)
@pytest.mark.parametrize("place", ["own cell", "new cell", "below the question", "two cells"])
def test_answers_without_names_are_found_below_their_question(answer: Any, place: str) -> None:
    cells = anonymous(released())
    asked = next(n for n, c in enumerate(cells) if answer.question in " ".join(source(c).split()))
    text = {"cell_type": "markdown", "metadata": {}}
    if place == "own cell":
        cells[asked + 1]["source"] = "my words"
    elif place == "new cell":
        cells.insert(asked + 1, {**text, "source": "my words"})
    elif place == "below the question":
        cells[asked]["source"] += "\n\nmy words"
    else:
        cells[asked + 1 : asked + 2] = [{**text, "source": "my"}, {**text, "source": "words"}]
    found = {id: located.text.split() for id, located in locate_answers(cells).items()}
    assert found.pop(answer.id) == ["my", "words"]
    assert not any(found.values())


def test_an_answer_beside_its_empty_cell_counts() -> None:
    cells = released()
    index = next(n for n, c in enumerate(cells) if c["id"] == "beta-ten-answer")
    cells.insert(index + 1, {"cell_type": "markdown", "source": "in a new cell", "metadata": {}})
    assert locate_answers(cells)["beta-ten-answer"].text == "in a new cell"


def test_nbformat_3_is_read_and_what_is_broken_refused() -> None:
    old = json.loads(classroom.other_format(3))
    new = json.loads(classroom.other_format(4))
    assert parse(old, Path("x")) == parse(new, Path("x"))
    with pytest.raises(NotebookError, match="old format"):
        cells_of({"nbformat": 3, "worksheets": [3]}, Path("x"))


@pytest.mark.parametrize(
    "text",
    [
        "$a < b$ and $c > d$",
        "a < b, `x < y` & *c*",
        "```python\nif a<b: pass\n```",
        "line<br>break, H<sub>2</sub>O",
        "1. one\n2. two\n\n> quote\n\n| a | b |\n| - | - |\n| 1 | 2 |",
    ],
)
def test_ordinary_markdown_is_left_alone(text: str) -> None:
    assert clean.markup(text) == text


@pytest.mark.parametrize(
    "text",
    [
        classroom.EVIL,
        '<abbr title="a\n\n<img src=x onerror=alert(1)>">',
        "<b onclick=alert(1)>x</b>",
        "<scr<b>ipt>alert(1)</scr</b>ipt>",
        "[x](javascript:alert(1)) ![y](https://evil.example/z.png)",
        "<br/onload=alert(1)>",
        "```<script>alert(1)</script>```",
        "$<script>alert(1)</script>$",
    ],
)
def test_markdown_never_makes_live_html(text: str) -> None:
    for made in (clean.rendered(text), clean.rendered(clean.markup(text))):
        assert classroom.dangers(made) == []


def test_pictures_are_shrunk_before_they_are_left_out() -> None:
    holders = [{"image/png": classroom.picture(400)} for _ in range(3)]
    assert clean.fit_pictures(holders, 500_000) == 0
    assert [set(holder) for holder in holders] == [{"image/jpeg"}] * 3
    assert clean.fit_pictures(holders, 1000) == 3
    assert all("see the submitted file" in holder["text/plain"] for holder in holders)


def test_only_pictures_pass_as_pictures() -> None:
    fake = base64.b64encode(b"<svg onload=alert(1)>").decode()
    assert clean.image("image/png", fake) is None
    assert clean.image("image/png", '"><script>') is None
    assert clean.image("image/png", classroom.picture(4)) is not None


@pytest.mark.parametrize("kind", ["image/png", "image/gif", None])
def test_a_pasted_picture_that_is_missing_hides_nothing_else(kind: str | None) -> None:
    text = "Before. ![pasted](attachment:a.png) After."
    cell: dict[str, Any] = {"cell_type": "markdown", "source": text}
    if kind is not None:
        cell["attachments"] = {"a.png": {kind: classroom.picture(4)}}
    (made,) = rebuild([cell], [], Verdict({}), []).cells
    shown = clean.rendered(made.source, made.get("attachments"))
    assert "Before." in shown
    assert "After." in shown
    assert ("data:image/png" in shown) is (kind == "image/png")


def test_lone_surrogates_do_not_stop_a_copy_from_being_written() -> None:
    cells: list[dict[str, Any]]
    cells = [{"cell_type": kind, "source": "\ud83d"} for kind in ("code", "markdown", "raw")]
    half = {"text/html": "<b>\ud800</b>"}, {"image/svg+xml": "<svg>\ud800</svg>"}
    cells[0]["outputs"] = [{"output_type": "display_data", "data": data} for data in half]
    cells[1]["attachments"] = {"\ud800.png": {"image/png": classroom.picture(4)}}
    notebook = rebuild(cells, [], Verdict({}), [])
    assert json.dumps(notebook, ensure_ascii=False).encode()


def test_validating_cuts_no_reason() -> None:
    reason = f"encoder: {'no ' * 60}\n  more"
    assert Validator()._indent(reason).splitlines() == [f"    {r}" for r in reason.splitlines()]


def page(resources: dict[str, Any]) -> str:
    """An answer as formgrader or feedback shows it."""
    config = Config()
    configure(config, classroom.ROOT)
    answer = Graded("beta-ten-answer", "markdown", "", True, 3.0, None)
    notebook = rebuild([], [answer], Verdict({}, reason="None."), [])
    shown: str = HTMLExporter(config=config).from_notebook_node(notebook, resources)[0]
    return shown


def test_formgrader_shows_the_marking_scheme_and_feedback_does_not() -> None:
    where = {"submission_id": "1", "assignment_id": "vae", "notebook_id": "vae"}
    assert "posterior collapse" in page(where)
    assert "Marking scheme" in page(where)
    assert "posterior collapse" not in page({"nbgrader": {"notebook": "vae"}})
    assert "posterior collapse" in built.build()


def test_a_task_in_which_the_grader_failed_is_left_to_a_person() -> None:
    grade = Grade(Notebook("vae.ipynb", []))
    grade.results += [
        Result.of("encoder", "codes", 2.0, RuntimeError("no answer"), ""),
        Result.of("encoder", "layers", 3.0, None, ""),
        Result.of("decoder", "layers", 5.0, None, "A remark is no failure."),
    ]
    told = {task["id"]: task for task in grade.as_json()["tasks"]}
    verdict = Verdict(told)
    assert verdict.share("encoder") is None
    assert verdict.share("decoder") == 5 / told["decoder"]["max_score"]
    assert [(task, check["id"]) for task, check in verdict.broken()] == [("encoder", "codes")]
    text = " ".join(shown(verdict, "encoder").split())
    assert text.startswith("encoder: not graded yet.")
    assert shown(verdict, "decoder", 1.0).startswith("decoder: 1.66667 of 1 point (")
    assert "RuntimeError: no answer" in text
