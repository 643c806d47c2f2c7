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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from multiprocessing.connection import wait
from pathlib import Path

import nbformat
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
SEEDS = 12  # of each of 25 notebooks: 300 gradings
# A method of the class may cost its own task only, so all tasks of the class are graded.
OF_THE_CLASS = ("vae-forward", "vae-loss", "vae-reconstruct")


@dataclass(frozen=True)
class Job:
    """One notebook to grade, for some tasks or all; kind and name say what it is."""

    kind: str
    name: str
    notebook: str
    tasks: tuple[str, ...] = ()
    seed: int = 1

    @property
    def file(self) -> Path:
        """Where its verdict is kept."""
        told = json.dumps([self.notebook, self.tasks, self.seed, SECONDS])
        return KEPT / grader_hash() / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"

    def kept(self) -> Verdict | None:
        """The verdict, if it was graded before."""
        if not self.file.is_file():
            return None
        return Verdict(self.kind, self.name, **json.loads(self.file.read_text(encoding="utf-8")))


def grader_hash() -> str:
    """A hash of the grader's own files."""
    global _grader_hash
    if not _grader_hash:
        files = [f for f in (ROOT / "autograder").rglob("*") if f.suffix in (".py", ".gz", ".ini")]
        told = hashlib.sha256()
        for file in sorted([*files, ROOT / "tests" / "grading.py"]):
            told.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
        _grader_hash = told.hexdigest()[:16]
    return _grader_hash


_grader_hash = ""


def perform(job: Job) -> None:
    """Grade one notebook and keep its verdict."""
    started = time.monotonic()
    node = nbformat.reads(job.notebook, as_version=4)
    made = grade(node, seed=job.seed, tasks=job.tasks, seconds=SECONDS)
    checks = [{**asdict(result), "passed": result.passed} for result in made.results]
    told = {"checks": checks, "seconds": round(time.monotonic() - started, 2)}
    unfinished = job.file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(told), encoding="utf-8")
    unfinished.replace(job.file)


def perform_all(jobs: list[Job], processes: int, console: Console) -> None:
    """Grade what was not graded before, side by side; KeyboardInterrupt loses nothing done."""
    (KEPT / grader_hash()).mkdir(parents=True, exist_ok=True)
    todo = list({job.file: job for job in jobs if not job.file.is_file()}.values())
    random.Random(0).shuffle(todo)  # so that the time left can be told early
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_prepare)
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("notebooks graded", total=len(jobs))
            progress.advance(bar, len(jobs) - len(todo))
            for done in as_completed([pool.submit(perform, job) for job in todo]):
                done.result()
                progress.advance(bar)
    finally:
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


def _text(node: nbformat.NotebookNode) -> str:
    text: str = nbformat.writes(node)
    return text


def tasks_of(mutant: Mutant) -> tuple[str, ...]:
    """The tasks that a mutant may show up in."""
    return OF_THE_CLASS if mutant.task in OF_THE_CLASS else (mutant.task,)


def mutant_jobs() -> Iterator[Job]:
    """The reference with one change, graded in the tasks that share the changed class."""
    for mutant in mutants():
        yield Job("mutant", mutant.name, _text(mutant.notebook()), tasks_of(mutant))


def corpus_jobs() -> Iterator[Job]:
    """Whole notebooks, mistakes, accidents and variants, graded in all tasks."""
    yield Job("whole", "reference", REFERENCE.read_text(encoding="utf-8"))
    for name in WHOLE:
        yield Job("whole", name, _text(corpus.submission(name)))
    listed: dict[str, Sequence[Variant]] = {
        "mistake": corpus.mistakes(),
        "accident": corpus.accidents(),
        "variant": corpus.variants(),
    }
    for kind, work in listed.items():
        for piece in work:
            yield Job(kind, f"{piece.group}/{piece.name}", _text(piece.notebook()))


def combination_jobs() -> Iterator[Job]:
    """Pairs and triples of mistakes, graded in all tasks."""
    for combination in combinations():
        yield Job("combination", combination.name, _text(combination.notebook()))


def flake_jobs() -> Iterator[Job]:
    """Whole notebooks and twenty mistakes with many seeds."""
    mistakes = corpus.mistakes()
    step = len(mistakes) // 20
    chosen = {f"{m.group}/{m.name}": m.notebook() for m in mistakes[::step][:20]}
    chosen |= {name: corpus.submission(name) for name in WHOLE}
    chosen["reference"] = nbformat.read(REFERENCE, as_version=4)
    for name, node in chosen.items():
        for seed in range(1, SEEDS + 1):
            yield Job("seeded", f"{name}#{seed}", _text(node), seed=seed)


KINDS = {
    "mutants": mutant_jobs,
    "corpus": corpus_jobs,
    "combinations": combination_jobs,
    "flakes": flake_jobs,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.verdicts", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that grade")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS), help="kinds")
    parser.add_argument("--match", default="*", help="names, as a shell pattern; writes no file")
    parser.add_argument("--no-flakes", action="store_true", help="leave out the many seeds")
    return parser.parse_args()


def chosen_jobs(kinds: Iterable[str], pattern: str) -> list[Job]:
    """The jobs of some kinds whose names match a pattern."""
    return [job for kind in kinds for job in KINDS[kind]() if fnmatch(job.name, pattern)]


def main() -> None:
    """Grade, then write or show the report."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True)
    jobs = chosen_jobs(options.only, options.match)
    try:
        perform_all(jobs, options.jobs, console)
    except KeyboardInterrupt:
        sys.exit("stopped; what was graded is kept, and the next run goes on from there")
    report = verdicts_report.markdown([v for job in jobs if (v := job.kept()) is not None])
    if options.match == "*" and set(options.only) == set(KINDS):
        TARGET.write_text(report, encoding="utf-8")
        console.print(f"wrote {TARGET.relative_to(ROOT)}")
    else:
        print(report)


if __name__ == "__main__":
    main()
