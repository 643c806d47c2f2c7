"""Measure speed: `python -m benchmarks [--rounds N] [--stock MNIST] [--out FILE]`.

Everything is measured in turn, round by round, and told as the median of the rounds' ratios:
what else the machine does meets both sides alike.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import torch
from rich.progress import Progress
from torch import nn
from torch.utils.data import TensorDataset

from autograder import learning, processes, referee
from autograder.digit_files import digits
from autograder.grading import Grade
from autograder.notebook import Notebook, read
from autograder.run import Run, perform
from autograder.submission import Submission
from solution.data import make_data_loader, unpack_digits
from solution.models import VAE
from solution.training import train_vae
from tests.mutants import REFERENCE

BARE = "import torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
STEPS, BATCH, NZ = 60, 64, 64
ENOUGH = 60  # times as long as a grading; the goal of stock execution is 50
TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def run(*command: str) -> None:
    """Run a command, quietly; raises where it fails."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def grade_command(notebook: Path, *options: str) -> None:
    """`autograder grade`."""
    run(sys.executable, "-P", "-m", "autograder", "grade", str(notebook), *options)


def cpu_of(process: int) -> float:
    """CPU seconds of a process and all that it started, running or waited for."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        started = [pid for task in tasks for pid in (task / "children").read_text().split()]
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_of(int(pid)) for pid in started)


class Metered(Submission):
    """A submission that notes the CPU seconds of its workers as they are closed."""

    spent = 0.0

    def close(self) -> None:
        """As ever."""
        if self._worker is not None:
            Metered.spent += sum(map(cpu_of, {self._worker.number, self._worker.process.pid}))
        super().close()


def cpu_of_grading(notebook: Notebook) -> float:
    """CPU seconds of all processes for one more notebook in this process."""
    Metered.spent, begun = 0.0, time.process_time() + cpu_of_helpers()
    submission = Metered(notebook.cells, boxed=True)
    perform(Run(Grade(notebook), submission, seed=1, learning=False))
    submission.close()
    return time.process_time() + cpu_of_helpers() - begun + Metered.spent


def cpu_of_helpers() -> float:
    """CPU seconds of the referee and the fork server so far."""
    helpers = (referee._referee.process, processes.forkserver.process)
    return sum(cpu_of(process.pid) for process in helpers if process is not None)


def cpu_of_start(notebook: Notebook) -> float:
    """CPU seconds of the notebook's worker, started by itself, until its cells were executed."""
    kept, processes.forkserver = processes.forkserver, processes.ForkServer()
    try:
        submission, Metered.spent = Metered(notebook.cells, boxed=True), 0.0
        _ = submission.definitions
        submission.close()
    finally:
        processes.forkserver = kept
    return Metered.spent


def some_digits() -> torch.Tensor:
    """Enough digits for STEPS batches."""
    return digits("train")[: STEPS * BATCH]


def train_reference() -> None:
    """STEPS steps of the reference's loop."""
    images = some_digits()
    loader = make_data_loader(TensorDataset(images, torch.zeros(len(images))), BATCH)
    train_vae(VAE(NZ, 1e-4), loader, 1, 1e-3, "cpu")


def train_bare() -> None:
    """The same steps, on tensors in memory, with nothing around them."""
    images, model = some_digits(), VAE(NZ, 1e-4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for chosen in torch.randperm(len(images)).split(BATCH):
        x = images[chosen]
        mean, log_sigma = model.encoder(x).chunk(2, 1)
        z = mean + log_sigma.exp() * torch.randn_like(mean)
        kl = ((mean.square() + (2 * log_sigma).exp() - 1) / 2 - log_sigma).sum(1).mean()
        loss = nn.functional.mse_loss(model.decoder(z), x) + 1e-4 * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(rounds: int) -> list[tuple[str, str, str]]:
    """What was measured, how it came out, and the goal."""
    parsed = read(REFERENCE)
    told: dict[str, list[float]] = {}

    def note(name: str, value: float) -> float:
        told.setdefault(name, []).append(value)
        return value

    with tempfile.TemporaryDirectory() as folder, Progress() as bar:
        notebook = Path(folder) / "vae.ipynb"
        shutil.copy(REFERENCE, notebook)
        torch.set_num_threads(1)
        for _ in range(2):  # what comes once: here, and in the fork server
            cpu_of_grading(parsed)
        train_bare()
        for _ in bar.track(range(rounds), description="rounds"):
            bare = note("bare", seconds_of(lambda: run(sys.executable, "-c", BARE)))
            quick = seconds_of(lambda: grade_command(notebook, "--no-learning"))
            note("grade", quick)
            note("grade ratio", quick / bare)
            note("learning", seconds_of(lambda: grade_command(notebook)))
            start = note("start", cpu_of_start(parsed))
            more = note("more", cpu_of_grading(parsed))
            note("more ratio", more / start)
            note("step ratio", seconds_of(train_reference) / seconds_of(train_bare))
    middle = {name: statistics.median(values) for name, values in told.items()}
    return [
        (
            "`autograder grade --no-learning` against a bare `import torch` and first `Adam`",
            f"{middle['grade ratio']:.2f} ({middle['grade']:.1f} s, {middle['bare']:.1f} s)",
            "at most 2",
        ),
        ("`autograder grade`, with learning", f"{middle['learning']:.1f} s", "at most 25 s"),
        (
            "CPU seconds of one more notebook in a warm grader against a cold start of its worker,"
            " cells executed",
            f"{middle['more ratio']:.2f} ({middle['more']:.1f} s, {middle['start']:.1f} s)",
            "at most 2.5",
        ),
        (
            "a training step of the reference against a bare loop on tensors in memory",
            f"{middle['step ratio']:.3f}",
            "at most 1.1",
        ),
    ]


def stock_seconds(digits: Path, enough: float) -> tuple[float, bool]:
    """Seconds that executing the finished notebook takes, as stock `nbgrader autograde` does.

    digits: a folder with MNIST's four gzipped files. enough: seconds after which a cell, one that
    trains, is stopped, and the rest left out; then the second is false.
    """
    from nbclient.exceptions import CellTimeoutError
    from nbconvert.preprocessors import ExecutePreprocessor

    node = nbformat.read(REFERENCE, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "autograder").symlink_to(Path(learning.__file__).parent)
        unpack_digits(digits, Path(folder) / "data")
        executor = ExecutePreprocessor(timeout=math.ceil(enough), kernel_name="python3")
        started = time.monotonic()
        try:
            executor.preprocess(node, {"metadata": {"path": folder}})
        except CellTimeoutError:
            return time.monotonic() - started, False
        return time.monotonic() - started, True


TEXT = """# How fast it is

Written by `python -m benchmarks` on {machine}, torch {torch}, {rounds} rounds. Both sides of a
ratio are measured in turn, and the median of the rounds' ratios is told; seconds are those of
this machine, which does other things as well.

| what | measured | goal |
| --- | --: | --: |
{rows}
"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--stock",
        type=Path,
        metavar="MNIST",
        help="execute the finished notebook, too, on the digits of this folder, until it is plain "
        "that it takes longer than the goal asks: a quarter of an hour",
    )
    parser.add_argument("--out", type=Path, help="a file for the table (default: print it)")
    options = parser.parse_args()
    rows = measure(options.rounds)
    if options.stock:
        ours = float(rows[1][1].split()[0])
        stock, whole = stock_seconds(options.stock, ENOUGH * ours)
        what = "executing the finished notebook on MNIST, as stock `nbgrader autograde` does,"
        told = f"{stock / ours:.0f} ({stock:.0f} s)"
        if not whole:
            told = f"more than {stock / ours:.0f} (stopped after {stock:.0f} s, while it trained)"
        rows.append((f"{what} against `autograder grade`", told, "at least 50"))
    table = "\n".join(f"| {what} | {found} | {goal} |" for what, found, goal in rows)
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    text = TEXT.format(machine=machine, torch=torch.__version__, rounds=options.rounds, rows=table)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
