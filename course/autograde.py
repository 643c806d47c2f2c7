"""`nbgrader autograde` with this project's verdicts: every submission gets one, nothing is run.

nbgrader's own converter executes notebooks in a kernel and stops at what it does not expect.
This one has the class graded beforehand, in sandboxes, and writes what came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader import converters, utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata
from sqlalchemy.exc import SAWarning
from traitlets import Bool, Integer, List

from autograder import sandbox, weights_file
from autograder.notebook import NotebookError, load, locate_answers, words
from autograder.outcomes import printable
from course import submitted, verdicts
from course.rebuild import Graded, rebuild
from course.submitted import Submission
from course.verdicts import Options, Verdict


class Autograde(converters.Autograde):  # type: ignore[misc]
    """Grades a class and books it."""

    unboxed = Bool(False, help="Run submissions without the sandbox.").tag(config=True)
    jobs = Integer(0, help="Notebooks graded side by side; 0: one a core.").tag(config=True)
    seed = Integer(None, allow_none=True, help="The seed of all draws.").tag(config=True)
    autograde_preprocessors = List([AssignLatePenalties, CheckCellMetadata]).tag(config=True)

    def init_notebooks(self) -> None:
        """Every submission folder, with the notebooks that it should hold."""
        self._cells = self._released()
        root = Path(self.coursedir.root)
        wanted = self._format_source(self.coursedir.assignment_id, self.coursedir.student_id)
        pattern = str(Path(wanted).relative_to(root))
        folders = [
            path
            for path in sorted(root.glob(pattern))
            if path.is_dir() and not any(p.startswith(".") for p in path.relative_to(root).parts)
        ]
        self.notebooks: list[str] = []
        self._students: dict[Path, str] = {}
        self.assignments = {
            str(folder): [str(folder / f"{name}.ipynb") for name in self._cells]
            for folder in folders
        }
        if not folders:
            message = f"No submissions were found that match {pattern}"
            self.log.error(message)
            raise NbGraderException(message)
        self._refuse_without_sandbox()

    def _refuse_without_sandbox(self) -> None:
        reason = None if self.unboxed else sandbox.missing()
        if reason is not None:
            message = (
                f"Nothing was graded, because {reason}; --Autograde.unboxed=True runs the "
                "students' code without protection"
            )
            self.log.error(message)
            raise NbGraderException(message)

    def _released(self) -> dict[str, list[Graded]]:
        """The gradebook's cells of every notebook that holds tasks of the homework."""
        assignment_id = self.coursedir.assignment_id
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            try:
                assignment = gradebook.find_assignment(assignment_id)
            except MissingEntry:
                assignment = None
            notebooks = [] if assignment is None else assignment.notebooks
            made = {notebook.name: _graded_cells(notebook) for notebook in notebooks}
            others = [each.name for each in gradebook.assignments if each.name != assignment_id]
        made = {n: c for n, c in made.items() if any(verdicts.known_task(cell.id) for cell in c)}
        if not made:
            message = (
                f"The gradebook knows no task of the homework in '{assignment_id}'; "
                f"run `nbgrader generate_assignment {assignment_id}` first"
            )
            if others:
                message += (
                    f", or did you mean `nbgrader autograde {_nearest(assignment_id, others)}`?"
                )
            self.log.error(message)
            raise NbGraderException(message)
        return made

    def convert_notebooks(self) -> None:
        """Grade what is new or has changed, on all cores, and book it one by one."""
        for folder in [f for f in self.assignments if "\n" in f]:  # nbgrader reads none of them
            message = f"{printable(folder)}: not graded, because of a line break in its name"
            self.log.error("%s; rename it", message)
            del self.assignments[folder]
        self._booked = self._booked_students()
        self._found: dict[str, Submission] = {}
        self._stamps: dict[str, str] = {}
        for paths in self.assignments.values():
            for path in map(Path, paths):
                found = submitted.find(path.parent, path.stem)
                self._found[str(path)] = found
                self._stamps[str(path)] = self._stamp(found, path.stem)
        due = [
            notebook
            for folder, paths in self.assignments.items()
            if self._is_due(Path(folder))
            for path in paths
            for notebook in self._found[path].notebooks
        ]
        store = Path(self.coursedir.root, ".autograder", "verdicts")
        options = Options(store, self.jobs, self.unboxed, self.seed)
        self._verdicts = verdicts.grade_all(due, options, self.log.info)
        super().convert_notebooks()

    def _stamp(self, found: Submission, name: str) -> str:
        """A hash of all that the autograded copy is made of."""
        made = hashlib.sha256(verdicts.grader_version().encode())
        made.update(repr((self._cells[name], self.unboxed, self.seed, found.problem)).encode())
        made.update(repr(submitted.timestamp(found.folder)).encode())
        for path in [*found.notebooks, *submitted.kept_files(found)]:
            made.update(str(path.relative_to(found.folder)).encode("utf-8", "replace") + b"\0")
            with contextlib.suppress(OSError), path.open("rb") as file:
                made.update(hashlib.file_digest(file, "sha256").digest())
        for notebook in found.notebooks:
            made.update(hashlib.sha256(weights_file.content(notebook.parent) or b"").digest())
        return made.hexdigest()

    def _is_due(self, folder: Path) -> bool:
        student = self._student(folder)
        if student in (self.coursedir.student_id_exclude or "").split(","):
            return False
        if self.force:
            return True
        copies = Path(self._format_copies(student))
        return (
            any(
                _stamp_of(copies / f"{name}.ipynb") != self._stamps[str(folder / f"{name}.ipynb")]
                for name in self._cells
            )
            or student not in self._booked
        )

    def _booked_students(self) -> set[str]:
        assignment_id = self.coursedir.assignment_id
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            return {each.student.id for each in gradebook.assignment_submissions(assignment_id)}

    def _student(self, folder: Path) -> str:
        if folder not in self._students:
            name = str(folder / f"{next(iter(self._cells))}.ipynb")
            told = self.init_single_notebook_resources(name)
            self._students[folder] = str(told["nbgrader"]["student"])
        return self._students[folder]

    def _format_copies(self, student: str) -> str:
        return os.path.normpath(str(self._format_dest(self.coursedir.assignment_id, student)))

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        """Whether this submission is to be booked; if so, its earlier copy is removed."""
        copies = Path(self._format_copies(student_id))
        if not self._is_due(Path(self._format_source(assignment_id, student_id))):
            self.log.info("Nothing has changed: %s", copies)
            return False
        self._earlier = {name: _answers(copies / f"{name}.ipynb") for name in self._cells}
        if copies.exists():
            utils.rmtree(str(copies))
        return True

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Enter the student and the submission; keep documents, pictures and the time."""
        folder = Path(self._format_source(assignment_id, student_id))
        copies = Path(self._format_dest(assignment_id, student_id))
        copies.mkdir(parents=True)
        told = submitted.timestamp(folder)
        arguments: dict[str, Any] = {}
        if told is not None:
            try:
                arguments["timestamp"] = utils.parse_utc(told)
                (copies / "timestamp.txt").write_text(told, encoding="utf-8")
            except Exception:  # whatever a date can be wrong by
                self.log.warning("%s: timestamp.txt holds no time, so it is ignored", folder)
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            gradebook.update_or_create_student(student_id)
            with warnings.catch_warnings():  # nbgrader looks rows up before it has added them all
                warnings.filterwarnings("ignore", "Object of type <Submitted", SAWarning)
                booked = gradebook.update_or_create_submission(
                    assignment_id, student_id, **arguments
                )
            if booked.total_seconds_late > 0:
                self.log.warning("%s is %s seconds late", booked, booked.total_seconds_late)
        for path in submitted.kept_files(self._found[self.notebooks[0]]):
            target = copies / path.relative_to(folder)
            made = {f"{name}{kind}" for name in self._cells for kind in (".ipynb", ".html")}
            if made & set(target.parts):
                continue  # a folder where the notebook's copy goes, or its feedback
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
            except OSError as error:
                self.log.warning("%s: not copied (%s)", path, error.strerror)

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """Book the verdict and write the copy that formgrader and feedback show."""
        resources = self.init_single_notebook_resources(notebook_filename)
        name = resources["nbgrader"]["notebook"]
        found = self._found[notebook_filename]
        cells, verdict, notes = self._chosen(found, f"{name}.ipynb")
        for note in notes:
            self.log.warning("%s: %s", printable(notebook_filename), note)
        self._log_faults(notebook_filename, verdict)
        node = self._rebuilt(cells, name, verdict, notes)
        node.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        if not verdict.fault:  # or else the next run tries again
            node.metadata["autograder"] = {"stamp": self._stamps[notebook_filename]}
        self._book(resources["nbgrader"], cells, verdict)
        self._sanitizing = False
        try:
            self._init_preprocessors()
            output, resources = self.exporter.from_notebook_node(node, resources)
            self.write_single_notebook(output, resources)
        finally:
            self._sanitizing = True

    def _rebuilt(
        self, cells: list[dict[str, Any]], name: str, verdict: Verdict, notes: list[str]
    ) -> NotebookNode:
        """The copy; one without the student's cells where these cannot be shown."""
        try:
            return rebuild(cells, self._cells[name], verdict, notes)
        except Exception:
            self.log.exception("The cells of this notebook cannot be shown, its grade stands")
            note = "Your cells cannot be shown here; they were graded all the same."
            return rebuild([], self._cells[name], verdict, [*notes, note])

    def _chosen(
        self, found: Submission, name: str
    ) -> tuple[list[dict[str, Any]], Verdict, list[str]]:
        """The notebook that counts: the best of those handed in."""
        if not found.notebooks:
            return [], Verdict({}, reason=found.problem), [found.problem]
        ranked = sorted(found.notebooks, key=lambda path: -self._verdicts[path].total)
        best = ranked[0]
        verdict = self._verdicts[best]
        shown = printable(str(best.relative_to(found.folder)))
        notes = [verdict.reason or verdict.fault] if verdict.reason or verdict.fault else []
        if len(ranked) > 1:
            notes.append(f"{len(ranked)} notebooks were handed in; `{shown}` counts, the best.")
        elif shown != name:
            notes.append(f"`{shown}` was graded; the notebook should be called {name}.")
        try:
            return load(best), verdict, notes
        except NotebookError:
            return [], verdict, notes

    def _log_faults(self, filename: str, verdict: Verdict) -> None:
        for task, check in verdict.broken():
            self.log.error("%s: %s/%s: %s", filename, task, check["id"], check["message"])

    def _book(self, where: dict[str, str], cells: list[dict[str, Any]], verdict: Verdict) -> None:
        """Write scores and remarks; points, comments and extra credit given by hand stay."""
        answers = {id: located.text for id, located in locate_answers(cells).items()}
        earlier = self._earlier[where["notebook"]]
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            booked = gradebook.find_submission_notebook(
                where["notebook"], where["assignment"], where["student"]
            )
            for grade in booked.grades:
                before = grade.auto_score
                if verdicts.known_task(grade.name):
                    share = verdict.share(grade.name)
                    grade.auto_score = _points(share, grade.max_score)
                    changed = grade.auto_score != before
                else:
                    text = answers.get(grade.name, "")
                    grade.auto_score = None if text or verdict.fault else 0.0
                    changed = text != earlier.get(grade.name)
                by_hand = grade.manual_score is not None
                grade.needs_manual_grade = changed if by_hand else grade.auto_score is None
            for comment in booked.comments:
                comment.auto_comment = _remark(comment.name, answers, verdict)
            gradebook.db.commit()


def _nearest(name: str, names: list[str]) -> str:
    """The name that is most like another."""
    return max(names, key=lambda each: SequenceMatcher(None, name, each).ratio())


def _points(share: float | None, most: float) -> float | None:
    return None if share is None else min(max(share, 0.0), 1.0) * most


def _remark(name: str, answers: dict[str, str], verdict: Verdict) -> str | None:
    """What the program has to say about a cell in which students write."""
    if verdict.reason:
        return verdict.reason
    limit = verdicts.answer_limit(name)
    if limit is None:
        return None
    count = words(answers.get(name, ""))
    if count == 0:
        return "No response."
    return f"{count} words; at most {limit} were asked for." if count > limit else None


def _graded_cells(notebook: Any) -> list[Graded]:
    points = {cell.name: float(cell.max_score) for cell in notebook.grade_cells}
    solutions = {cell.name for cell in notebook.solution_cells}
    return [
        Graded(
            cell.name,
            cell.cell_type,
            cell.source,
            cell.name in solutions,
            points.get(cell.name),
            cell.checksum,
        )
        for cell in notebook.source_cells
    ]


def _stamp_of(copy: Path) -> str | None:
    try:
        return str(json.loads(copy.read_text(encoding="utf-8"))["metadata"]["autograder"]["stamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answers(copy: Path) -> dict[str, str]:
    """The answers in an earlier autograded copy."""
    try:
        return {id: located.text for id, located in locate_answers(load(copy)).items()}
    except NotebookError:
        return {}
