"""Make the project's virtual environment from requirements.lock.

Run with the interpreter that the environment is to use; needs the standard
library alone. `make` calls it, once per change of the lock.
"""

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
OLDEST_PYTHON = (3, 11)


class Progress:
    """One line that says how far a long command is: live in a terminal, now and then in a log."""

    def __init__(self) -> None:
        self.say: Callable[[], str] = lambda: ""
        self._live = sys.stdout.isatty()
        self._started = time.monotonic()
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._ticker.join()
        if self._live:
            print("\r\033[K", end="", flush=True)

    def tell(self, text: str) -> None:
        """Show `text` until something else is to be shown."""
        self.say = lambda: text

    @property
    def seconds(self) -> int:
        return int(time.monotonic() - self._started)

    def _tick(self) -> None:
        while not self._done.wait(0.2 if self._live else 15):
            line = f"  {self.seconds:3d} s  {self.say()[:70]}"
            print(f"\r\033[K{line}" if self._live else line, end="" if self._live else "\n")
            sys.stdout.flush()


def pip(python: Path, *arguments: str, progress: Progress, packages: int) -> None:
    """Run pip install, telling `progress` how far it is; on failure exit with pip's last words."""
    options = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    process = subprocess.Popen(
        [str(python), "-m", "pip", "install", *options, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    last_words: deque[str] = deque(maxlen=15)
    found = 0
    for line in process.stdout:
        first, _, rest = line.strip().partition(" ")
        if line.startswith(("Collecting", "Requirement already satisfied")):
            found += 1
            continue
        last_words.append(line)
        if first == "Downloading":
            progress.tell(f"{found} of {max(found, packages)} packages found; {rest}")
        elif first == "Installing":
            progress.say = partial(installed, python.parent.parent, max(found, packages))
    if process.wait():
        sys.exit("".join(last_words) + "The environment could not be made: pip failed as above.")


def installed(venv: Path, packages: int) -> str:
    """How many packages pip has unpacked: it is silent while it installs."""
    done = len(list(venv.glob("lib/python*/site-packages/*.dist-info")))
    return f"{min(done, packages)} of {packages} packages installed"


def main() -> None:
    """Make the environment named on the command line, or complete one that was interrupted."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit("Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python3")
    venv = ROOT / sys.argv[1]
    python = venv / "bin" / "python"
    packages = sum("==" in line for line in LOCK.read_text().splitlines())

    print(f"Setting up {venv.name} from {LOCK.name}: {packages} packages, PyTorch among them.")
    print("This happens once and takes a minute or two, longer where PyTorch is downloaded.")
    with Progress() as progress:
        progress.tell(f"making {venv.name}")
        if subprocess.run([sys.executable, "-m", "venv", str(venv)]).returncode:
            sys.exit("Python's venv module is incomplete (Debian: apt-get install python3-venv).")
        pip(python, "--requirement", str(LOCK), progress=progress, packages=packages)
        progress.tell("installing the project itself")
        pip(
            python,
            *("--no-build-isolation", "--no-deps", "--editable", "."),
            progress=progress,
            packages=1,
        )
    print(f"{venv.name} is ready after {progress.seconds} s.")


if __name__ == "__main__":
    main()
