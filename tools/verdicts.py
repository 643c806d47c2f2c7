"""Grade all student work of the project and write docs/verdicts.md: `python -m tools.verdicts`.

Results are kept in .verdicts/, by what was graded and by the grader's own files, so that a run
that was stopped goes on where it was. Ctrl-C ends it once the gradings under way are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cached_property, partial
from multiprocessing.connection import wait
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from tests import corpus
from tests.combinations import combinations
from tests.corpus import Variant
from tests.grading import grade
from tests.mutants import REFERENCE, Mutant, mutants
from tools import verdicts_report
from tools.verdicts_report import Verdict

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".verdicts"
TARGET = ROOT / "docs" / "verdicts.md"
WHOLE = ("perfect", "functional", "eccentric", "student")
SECONDS = 15.0  # for one definition or answer; what never ends is ended then
# Then the processes start afresh, since they grow by some megabytes a grading. The pool's own
# max_tasks_per_child hangs in Python 3.11 (python/cpython#115634).
GRADINGS = 100
SEEDS = 12  # of each of 25 notebooks: 300 gradings
# A method of the class may cost its own task only, so all tasks of the class are graded.
OF_THE_CLASS = ("vae-forward", "vae-loss", "vae-reconstruct")


@dataclass(frozen=True)
class Job:
    """One notebook to grade, for some tasks or all; kind and name say what it is."""

    kind: str
    name: str
    make: Callable[[], NotebookNode]
    tasks: tuple[str, ...] = ()
    seed: int = 1
    learning: bool = False

    @cached_property
    def notebook(self) -> str:
        """The notebook as JSON text."""
        text: str = nbformat.writes(self.make())
        return text

    def file(self, folder: Path) -> Path:
        """Where its verdict is kept."""
        told = json.dumps([self.notebook, self.tasks, self.seed, self.learning, SECONDS])
        return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"

    def kept(self, folder: Path) -> Verdict | None:
        """The verdict, if it was graded before."""
        file = self.file(folder)
        if not file.is_file():
            return None
        return Verdict(self.kind, self.name, **json.loads(file.read_text(encoding="utf-8")))


def grader_hash() -> str:
    """A hash of the grader's own files."""
    files = [f for f in (ROOT / "autograder").rglob("*") if f.is_file() and f.suffix != ".pyc"]
    told = hashlib.sha256()
    for file in sorted([*files, ROOT / "tests" / "grading.py"]):
        told.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return told.hexdigest()[:16]


def perform(job: Job, folder: Path) -> None:
    """Grade one notebook and keep its verdict."""
    started = time.monotonic()
    node = nbformat.reads(job.notebook, as_version=4)
    made = grade(node, seed=job.seed, tasks=job.tasks, seconds=SECONDS, learning=job.learning)
    checks = [{**asdict(result), "passed": result.passed} for result in made.results]
    told = {"checks": checks, "seconds": round(time.monotonic() - started, 2)}
    file = job.file(folder)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(told), encoding="utf-8")
    unfinished.replace(file)


def perform_all(jobs: list[Job], folder: Path, processes: int) -> None:
    """Grade what was not graded before, side by side; KeyboardInterrupt loses nothing done."""
    todo = [job for file, job in {j.file(folder): j for j in jobs}.items() if not file.is_file()]
    random.Random(0).shuffle(todo)  # so that the time left can be told early
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("notebooks graded", total=len(jobs))
        progress.advance(bar, len(jobs) - len(todo))
        for start in range(0, len(todo), GRADINGS):
            batch = todo[start : start + GRADINGS]
            _side_by_side(batch, folder, processes, lambda: progress.advance(bar))


def _side_by_side(
    jobs: list[Job], folder: Path, processes: int, advance: Callable[[], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_prepare)
    try:
        for done in as_completed([pool.submit(perform, job, folder) for job in jobs]):
            done.result()
            advance()
    finally:  # what is under way is finished and kept, what waits is dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare() -> None:
    """Of a process that grades: Ctrl-C is the parent's business, and nobody outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def tasks_of(mutant: Mutant) -> tuple[str, ...]:
    """The tasks that a mutant may show up in."""
    return OF_THE_CLASS if mutant.task in OF_THE_CLASS else (mutant.task,)


def mutant_jobs() -> Iterator[Job]:
    """The reference with one change, graded in the tasks that share the changed class."""
    for mutant in mutants():
        yield Job("mutant", mutant.name, mutant.notebook, tasks_of(mutant))


def corpus_jobs() -> Iterator[Job]:
    """Whole notebooks, mistakes, accidents and variants, graded in all tasks."""
    for name, make in _whole().items():
        yield Job("whole", name, make)
    listed: dict[str, Sequence[Variant]] = {
        "mistake": corpus.mistakes(),
        "accident": corpus.accidents(),
        "variant": corpus.variants(),
    }
    for kind, work in listed.items():
        for piece in work:
            learning = _shows_in_learning(piece)
            yield Job(kind, f"{piece.group}/{piece.name}", piece.notebook, learning=learning)


def _shows_in_learning(piece: Variant) -> bool:
    """Whether it takes a learning run, which is left out elsewhere, to see a mistake."""
    return getattr(piece, "misconception", None) == "does-not-learn"


def combination_jobs() -> Iterator[Job]:
    """Pairs and triples of mistakes, graded in all tasks."""
    for combination in combinations():
        learning = any(map(_shows_in_learning, combination.parts))
        yield Job("combination", combination.name, combination.notebook, learning=learning)


def flake_jobs() -> Iterator[Job]:
    """Whole notebooks and twenty mistakes with many seeds."""
    mistakes = corpus.mistakes()
    chosen = {f"{m.group}/{m.name}": m.notebook for m in mistakes[:: len(mistakes) // 20][:20]}
    for name, make in {**_whole(), **chosen}.items():
        for seed in range(1, SEEDS + 1):
            yield Job("seeded", f"{name}#{seed}", make, seed=seed)


def _whole() -> dict[str, Callable[[], NotebookNode]]:
    reference = partial(nbformat.read, REFERENCE, as_version=4)
    return {"reference": reference, **{name: partial(corpus.submission, name) for name in WHOLE}}


KINDS = {
    "mutants": mutant_jobs,
    "corpus": corpus_jobs,
    "combinations": combination_jobs,
    "flakes": flake_jobs,
}
USUAL = ("mutants", "corpus", "combinations")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.verdicts", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that grade")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=USUAL, help="what to grade")
    parser.add_argument("--flakes", action="store_true", help="25 notebooks with 12 seeds, too")
    parser.add_argument("--match", default="*", help="grade only names like this shell pattern")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where results are kept")
    return parser.parse_args()


def chosen_jobs(kinds: Iterable[str], pattern: str = "*") -> list[Job]:
    """The jobs of some kinds whose names match a pattern."""
    return [job for kind in kinds for job in KINDS[kind]() if fnmatch(job.name, pattern)]


def report(jobs: Iterable[Job], folder: Path) -> str:
    """The report on those jobs that have been graded."""
    verdicts = [job.kept(folder) for job in jobs]
    return verdicts_report.markdown(v for v in verdicts if v is not None)


def main() -> None:
    """Grade; then write the report, or show it where only part was asked for."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.kept / grader_hash()
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [*options.only, *(["flakes"] if options.flakes else [])]
    jobs = chosen_jobs(dict.fromkeys(kinds), options.match)
    try:
        perform_all(jobs, folder, options.jobs)
    except KeyboardInterrupt:
        sys.exit("stopped; what was graded is kept, and the next run goes on from there")
    if options.match == "*" and set(USUAL) <= set(kinds):
        TARGET.write_text(report(chosen_jobs(KINDS), folder), encoding="utf-8")
    else:
        print(report(jobs, folder))


if __name__ == "__main__":
    main()
