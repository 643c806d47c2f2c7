"""Try tricks on this grader, on nbgrader and on otter-grader: `python -m tools.peers`.

The two others are installed in environments of their own, in .peers/. The table goes into
docs/security.md; it takes most of an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.progress import Progress

from tools.peers.graders import GRADERS, ROOT, Outcome
from tools.peers.tricks import TRICKS, Trick

TARGET = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- comparison -->", "<!-- end of comparison -->"
VERSIONS = {
    "nbgrader": ["nbgrader==0.9.6"],
    "otter": ["otter-grader==7.0.0", "ipykernel"],
}


def prepare() -> None:
    """Make the environments of the others, once."""
    version = torch.__version__.partition("+")[0]
    for name, packages in VERSIONS.items():
        place = ROOT / ".peers" / name
        if not (place / "ready").is_file():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            pip = [str(place / "bin" / "pip"), "install", "-q", f"torch=={version}", *packages]
            subprocess.run(pip, check=True)
            (place / "ready").touch()


def told(outcome: Outcome) -> str:
    """One trick on one grader, in a word or two."""
    words = []
    if outcome.undeserved:
        words.append(f"{outcome.undeserved:g} points")
    if outcome.hung:
        words.append("hangs")
    if outcome.lost:
        words.append("honest work lost" if outcome.classmate else "the class's work lost")
    if outcome.escaped:
        words.append("escapes")
    return ", ".join(words) or "holds"


def table(rows: Iterable[tuple[Trick, dict[str, Outcome]]]) -> str:
    """The tricks by family, and the sums."""
    made = list(rows)
    lines = [f"| family | trick | {' | '.join(GRADERS)} |", f"| --- | --- {'| --- ' * 3}|"]
    lines += [
        f"| {trick.family} | {trick.name} | {' | '.join(told(o[g]) for g in GRADERS)} |"
        for trick, o in made
    ]
    sums = ["", f"Of {len(made)} tricks:", ""]
    for grader in GRADERS:
        all_of = [outcomes[grader] for _, outcomes in made]
        sums.append(
            f"- {grader}: undeserved points {sum(bool(o.undeserved) for o in all_of)}, honest work "
            f"without a grade or its points {sum(o.lost for o in all_of)}, hangs "
            f"{sum(o.hung for o in all_of)}, escapes {sum(o.escaped for o in all_of)}"
        )
    return "\n".join([*lines, *sums])


def measure(chosen: list[Trick]) -> list[tuple[Trick, dict[str, Outcome]]]:
    """Every trick on every grader."""
    rows = []
    with Progress() as progress:
        bar = progress.add_task("tricks", total=len(chosen) * len(GRADERS))
        for trick in chosen:
            outcomes = {}
            for name, grader in GRADERS.items():
                with tempfile.TemporaryDirectory() as folder:
                    outcomes[name] = grader(trick, Path(folder))
                progress.advance(bar)
            rows.append((trick, outcomes))
    return rows


def main() -> None:
    """Measure; write the table, or show it where only some tricks were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.peers", description=__doc__)
    parser.add_argument("--match", default="*", help="only tricks named like this shell pattern")
    options = parser.parse_args()
    prepare()
    chosen = [t for t in TRICKS if fnmatch(f"{t.family}: {t.name}", options.match)]
    made = table(measure(chosen))
    if options.match != "*":
        print(made)
        return
    text = TARGET.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    TARGET.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
