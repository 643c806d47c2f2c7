"""The main job on real input, as `make demo` runs it: `python -m tools.demo`.

Builds the notebook, releases it with nbgrader, and grades three submissions with the
command that instructors use: perfect work, a student's, and the untouched release.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from autograder import sandbox
from tests import corpus

ROOT = Path(__file__).resolve().parent.parent
# The environment's programs come first: nbgrader calls its helpers by name.
SEARCH_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
ENVIRONMENT = {**os.environ, "PATH": SEARCH_PATH}


def prepare(console: Console, title: str, *command: str) -> None:
    """Run a command whose output matters only if it fails."""
    started = time.monotonic()
    with console.status(f"{title} …"):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{title}: exit status {done.returncode}")
    console.print(f"{title}: {' '.join(command)}  ({time.monotonic() - started:.1f} s)")


def grade(console: Console, title: str, folder: Path, notebook: str, options: list[str]) -> None:
    """Grade one notebook of a folder and show its score table."""
    console.print()
    console.rule(f"[bold]{title}", align="left")
    command = ["autograder", "grade", notebook, *options]
    console.print(f"$ {' '.join(command)}", style="dim")
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=False)
    if done.returncode:
        sys.exit(f"{title}: exit status {done.returncode}")
    console.print(f"graded in {time.monotonic() - started:.1f} s", style="dim")


def main() -> None:
    """Build, release, grade."""
    console = Console(highlight=False, soft_wrap=True)
    unboxed = sandbox.missing()
    if unboxed:
        console.print(f"Without a sandbox: {unboxed}.")
        console.print("The demo's submissions are the project's own, so they run unboxed.\n")
    options = ["--unboxed"] if unboxed else []

    prepare(console, "Notebook built", "python", "-m", "solution.notebook")
    release = ("nbgrader", "generate_assignment", "vae", "--force")
    prepare(console, "Assignment released", *release)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for work in ("perfect", "student"):
            corpus.write(corpus.submission(work), folder / f"{work}.ipynb")
        grade(console, "Perfect work", folder, "perfect.ipynb", options)
        grade(console, "A student's work", folder, "student.ipynb", options)
    grade(console, "The release, untouched", ROOT, "release/vae/vae.ipynb", options)


if __name__ == "__main__":
    main()
