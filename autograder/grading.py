"""From the results of checks to a grade: sums, statuses, and the JSON of a grading run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autograder.contract import ANSWERS, TASKS, Task
from autograder.notebook import Notebook, answer_status, words
from autograder.outcomes import NotAttempted, Raised, Unchecked, Wrong, printable

FAULT = "The grader itself failed on this check, so it costs nothing; please report it: "


@dataclass(frozen=True)
class Result:
    """How one check ended; outcome: passed, wrong, unchecked, not-attempted or fault."""

    task: str
    id: str
    points: float
    outcome: str
    message: str = ""
    misconception: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the points are given; a fault of the grader never costs a student any."""
        return self.outcome in ("passed", "fault")

    @classmethod
    def of(
        cls, task: str, id: str, points: float, error: BaseException | None, remark: str = ""
    ) -> Result:
        """The result of a check that ended with `error`, or well, with what is to be said then."""
        if error is None:
            return cls(task, id, points, "passed", printable(remark))
        error = _verdict_within(error)
        if not isinstance(error, Wrong):
            text = printable(f"{FAULT}{type(error).__name__}: {error}")
            return cls(task, id, points, "fault", text)
        outcome = "unchecked" if isinstance(error, Unchecked) else "wrong"
        if isinstance(error, NotAttempted):
            outcome = "not-attempted"
        slug = error.misconception or (error.likely if isinstance(error, Raised) else None)
        return cls(task, id, points, outcome, printable(error.message), slug)


def _verdict_within(error: BaseException) -> BaseException:
    """The verdict whose cause was being looked for when the grader failed, if there was one."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, Wrong):
        found = found.__context__
    return error if found is None else found


@dataclass
class Grade:
    """The results of one notebook."""

    notebook: Notebook
    results: list[Result] = field(default_factory=list)

    def of_task(self, task: Task) -> list[Result]:
        """The results of one task."""
        return [r for r in self.results if r.task == task.id]

    def score(self, task: Task) -> float:
        """The points given for one task: the sum over its checks."""
        return sum(r.points for r in self.of_task(task) if r.passed)

    @property
    def total(self) -> float:
        """The points given for all tasks."""
        return sum(self.score(task) for task in TASKS)

    @property
    def faults(self) -> list[Result]:
        """Checks in which the grader itself failed."""
        return [r for r in self.results if r.outcome == "fault"]

    def status(self, task: Task) -> str:
        """passed, partial, failed, error or not-attempted; manual where the grader itself failed.

        Its points are given then, but it may be the work that made it fail: a person is to look.
        """
        results = self.of_task(task)
        if any(r.outcome == "fault" for r in results):
            return "manual"
        if results and all(r.passed for r in results):
            return "passed"
        if self.score(task) > 0:
            return "partial"
        outcomes = {r.outcome for r in results}
        if outcomes <= {"not-attempted"}:
            return "not-attempted"
        return "error" if outcomes <= {"unchecked", "not-attempted"} else "failed"

    def as_json(self) -> dict[str, Any]:
        """The grading run as the contract has it."""
        return {
            "schema": 1,
            "notebook": self.notebook.name,
            "score": float(self.total),
            "max_score": float(sum(task.points for task in TASKS)),
            "tasks": [self._task_json(task) for task in TASKS],
            "answers": self._answers_json(),
        }

    def _task_json(self, task: Task) -> dict[str, Any]:
        checks = [
            {
                "id": r.id,
                "points": float(r.points),
                "passed": r.passed,
                "message": r.message,
                "misconception": r.misconception,
            }
            for r in self.of_task(task)
        ]
        return {
            "id": task.id,
            "score": float(self.score(task)),
            "max_score": float(task.points),
            "status": self.status(task),
            "checks": checks,
        }

    def _answers_json(self) -> list[dict[str, Any]]:
        found = []
        for answer in ANSWERS:
            text = self.notebook.answers.get(answer.id, "")
            found.append(
                {
                    "id": answer.id,
                    "max_score": float(answer.points),
                    "words": words(text),
                    "limit": answer.limit,
                    "status": answer_status(answer, text),
                }
            )
        return found
