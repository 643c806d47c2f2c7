"""From verdicts to docs/verdicts.md: kill rates, false failures, confusions, equivalents, times."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autograder.contract import BY_ID, TASKS
from tests import corpus, mutants
from tests.combinations import combinations
from tests.corpus import Mistake
from tests.mutants import Mutant

NO_CAUSE = "no cause"
# what an operator's mutants should be called, where the operator says it
CAUSES = {
    "learning-rate": "wrong-learning-rate",
    "optimiser": "wrong-optimizer",
    "epochs": "wrong-epochs",
}
HEAD = """# What the grader says of known work

Written by `make verdicts`, which grades the reference with every small change that
`tests/mutants.py` makes to its solution cells, the student work in `tests/submissions/`, and
draws of several mistakes in one notebook.

- A **mutant** is killed when it costs points in its own task and in no other. What survives is
  a hole, or is right after all: then `tests/submissions/equivalent.toml` says why.
- A **mistake** is graded right when it loses the points that its table says, and no others; it
  is named when every task that loses points names the expected cause.
"""


@dataclass(frozen=True)
class Verdict:
    """The checks of one graded notebook, and the seconds that they took."""

    kind: str
    name: str
    checks: list[dict[str, Any]]
    seconds: float

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The checks that cost points."""
        return [check for check in self.checks if not check["passed"]]

    @property
    def lost(self) -> dict[str, float]:
        """Points lost by task."""
        lost: dict[str, float] = defaultdict(float)
        for check in self.failed:
            lost[check["task"]] += check["points"]
        return dict(lost)

    @property
    def faults(self) -> list[str]:
        """What the grader itself could not do, checks that are missing included."""
        faults = [c["message"] for c in self.checks if c["outcome"] == "fault"]
        points = Counter[str]()
        for check in self.checks:
            points[check["task"]] += check["points"]
        short = [task for task, worth in points.items() if worth != BY_ID[task].points]
        faults += [f"checks of {task} are missing" for task in short]
        return faults if self.checks else ["nothing was checked"]

    def named(self, task: str) -> set[str]:
        """The causes that a task's failed checks name."""
        return {c["misconception"] or NO_CAUSE for c in self.failed if c["task"] == task}

    def told(self) -> str:
        """Which checks failed, and the cause of each, in one line."""
        return ", ".join(
            f"{c['task']}/{c['id']} ({c['misconception'] or NO_CAUSE})" for c in self.failed
        )


@dataclass(frozen=True)
class Judged:
    """A mutant and what became of it: killed, survived, equivalent, elsewhere or fault."""

    mutant: Mutant
    verdict: Verdict
    reason: str | None  # why it is equivalent

    @property
    def fate(self) -> str:
        """How the grader did on this mutant."""
        if self.verdict.faults:
            return "fault"
        if set(self.verdict.lost) - {self.mutant.task}:
            return "elsewhere"
        if self.mutant.task in self.verdict.lost:
            return "killed" if self.reason is None else "false failure"
        return "survived" if self.reason is None else "equivalent"


class Results:
    """The verdicts beside the work that they are about."""

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self.by_kind: dict[str, dict[str, Verdict]] = defaultdict(dict)
        for verdict in verdicts:
            self.by_kind[verdict.kind][verdict.name] = verdict
        graded = self.by_kind["mutant"]
        reasons = mutants.equivalents()
        self.mutants = [
            Judged(m, graded[m.name], reasons.get(m.name))
            for m in (mutants.mutants() if graded else [])
            if m.name in graded
        ]
        self.mistakes = [*self._listed("mistake", corpus.mistakes())]
        self.mistakes += self._listed("accident", corpus.accidents())

    def _listed(self, kind: str, work: list[Mistake]) -> list[tuple[Mistake, Verdict]]:
        graded = self.by_kind[kind]
        named = [(m, f"{m.group}/{m.name}") for m in work]
        return [(m, graded[name]) for m, name in named if name in graded]

    def fates(self, fate: str) -> list[Judged]:
        """The mutants of one fate."""
        return [judged for judged in self.mutants if judged.fate == fate]


def is_right(mistake: Mistake, verdict: Verdict) -> bool:
    """Whether a mistake lost exactly its points."""
    return not verdict.faults and verdict.lost == dict(mistake.lost)


def is_named(mistake: Mistake, verdict: Verdict) -> bool:
    """Whether every task that a mistake costs points in names its cause."""
    return all(mistake.misconception in verdict.named(task) for task in mistake.lost)


def markdown(verdicts: Iterable[Verdict]) -> str:
    """The whole report; sections without results are left out."""
    results = Results(verdicts)
    sections = [HEAD, *(section(results) for section in SECTIONS)]
    return "\n".join(section for section in sections if section)


def table(title: str, head: str, rows: Sequence[Sequence[object]], words: str = "") -> str:
    """A section with a table; columns that start with # are numbers."""
    if not rows:
        return ""
    columns = head.split(" | ")
    lines = [f"## {title}", "", *([words, ""] if words else [])]
    lines.append("| " + " | ".join(c.removeprefix("#") for c in columns) + " |")
    lines.append("| " + " | ".join("--:" if c[0] == "#" else "---" for c in columns) + " |")
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def rate(part: int, whole: int) -> str:
    """A share in per cent, rounded down so that 100 % means all."""
    return f"{int(1000 * part / whole) / 10:g} %" if whole else ""


def _kills(title: str, first: str, groups: dict[str, list[Judged]]) -> str:
    rows = []
    for name, group in groups.items():
        fates = Counter(judged.fate for judged in group)
        alive = len(group) - fates["equivalent"] - fates["false failure"]
        hit = [j for j in group if j.fate == "killed"]
        caused = sum(NO_CAUSE not in j.verdict.named(j.mutant.task) for j in hit)
        open_ = alive - fates["killed"]
        row = (name, len(group), len(group) - alive, fates["killed"], open_)
        rows.append((*row, rate(fates["killed"], alive), rate(caused, len(hit))))
    head = f"{first} | #mutants | #equivalent | #killed | #open | #kill rate | #cause named"
    return table(title, head, rows)


def _grouped(results: Results, key: Callable[[Judged], str]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for judged in results.mutants:
        groups[key(judged)].append(judged)
    return {**groups, "all": results.mutants} if groups else {}


def _by_task(results: Results) -> str:
    groups = _grouped(results, lambda judged: judged.mutant.task)
    return _kills("Mutants by task", "task", groups)


def _by_operator(results: Results) -> str:
    groups = _grouped(results, lambda judged: judged.mutant.operator)
    order = [name for name in (*mutants.OPERATORS, "all") if name in groups]
    return _kills("Mutants by operator", "operator", {name: groups[name] for name in order})


def _mistakes_by(title: str, groups: dict[str, list[tuple[Mistake, Verdict]]]) -> str:
    rows = []
    for name, group in groups.items():
        right = sum(is_right(*pair) for pair in group)
        expected = [pair for pair in group if pair[0].misconception]
        named = sum(is_named(*pair) for pair in expected)
        rows.append((name, len(group), rate(right, len(group)), rate(named, len(expected))))
    return table(title, "of | #mistakes | #right points | #named", rows)


def _mistakes_by_task(results: Results) -> str:
    groups: dict[str, list[tuple[Mistake, Verdict]]] = {task.id: [] for task in TASKS}
    for mistake, verdict in results.mistakes:
        groups.setdefault(mistake.group, []).append((mistake, verdict))
    groups["all"] = results.mistakes
    return _mistakes_by("Mistakes by task", {k: v for k, v in groups.items() if v})


def _mistakes_by_cause(results: Results) -> str:
    groups: dict[str, list[tuple[Mistake, Verdict]]] = defaultdict(list)
    for mistake, verdict in results.mistakes:
        groups[mistake.misconception or NO_CAUSE].append((mistake, verdict))
    return _mistakes_by("Mistakes by misconception", dict(sorted(groups.items())))


def _mistakes_missed(results: Results) -> str:
    rows = []
    for mistake, verdict in results.mistakes:
        right = is_right(mistake, verdict)
        if right and (not mistake.misconception or is_named(mistake, verdict)):
            continue
        expected = f"{_points(dict(mistake.lost))} ({mistake.misconception or NO_CAUSE})"
        rows.append((f"`{mistake.group}/{mistake.name}`", expected, verdict.told()))
    words = "Mistakes that lost other points than they should, or whose cause was not named."
    head = "mistake | should lose | the grader said"
    return table("Mistakes missed", head, rows or [("none", "", "")], words)


def _diagnoses(results: Results) -> list[tuple[str, set[str]]]:
    """Expected cause and named causes, of every task that lost points with a known cause."""
    known = [
        (mistake.misconception, verdict.named(task))
        for mistake, verdict in results.mistakes
        for task in mistake.lost
        if mistake.misconception
    ]
    return known + [
        (CAUSES[j.mutant.operator], j.verdict.named(j.mutant.task))
        for j in results.fates("killed")
        if j.mutant.operator in CAUSES
    ]


def _counted(slugs: Iterable[str]) -> str:
    return ", ".join(f"{slug} {times}" for slug, times in sorted(Counter(slugs).items()))


def _confusions(results: Results) -> str:
    by_cause: dict[str, list[set[str]]] = defaultdict(list)
    for expected, named in _diagnoses(results):
        by_cause[expected].append(named)
    rows = []
    for cause, told in sorted(by_cause.items()):
        missed = [slug for named in told if cause not in named for slug in named]
        more = [s for named in told if cause in named for s in named - {cause, NO_CAUSE}]
        hits = sum(cause in named for named in told)
        rows.append((cause, len(told), hits, _counted(missed), _counted(more)))
    words = (
        "Expected and named causes of mistakes, and of mutants by learning rate, optimiser and "
        "epochs."
    )
    head = "expected | #tasks | #named | named instead | named as well"
    return table("Diagnoses", head, rows, words)


def _false_failures(results: Results) -> str:
    whole = [*results.by_kind["whole"].values(), *results.by_kind["seeded"].values()]
    losing = corpus.expected("student").lost
    rows = []
    for kind, graded in (
        ("whole notebooks", [v for v in whole if not v.name.startswith("student")]),
        ("other spellings", list(results.by_kind["variant"].values())),
        ("equivalent mutants", [j.verdict for j in results.mutants if j.reason]),
    ):
        graded = [v for v in graded if v.kind != "seeded" or "/" not in v.name]
        wrong = [v for v in graded if v.lost or v.faults]
        told = "; ".join(f"`{v.name}`: {v.told() or v.faults[0]}" for v in wrong)
        if graded:
            rows.append((kind, len(graded), len(wrong), told))
    for verdict in whole:
        if verdict.name == "student":
            right = verdict.lost == dict(losing)
            rows.append(("the student's notebook", 1, int(not right), "" if right else "points"))
    words = "Right work that lost points."
    return table("False failures", "work | #graded | #false failures | which", rows, words)


def _combined(results: Results) -> str:
    graded = results.by_kind["combination"]
    rows, right, named, count = [], 0, 0, 0
    for made in combinations() if graded else []:
        if made.name not in graded:
            continue
        verdict = graded[made.name]
        exact = not verdict.faults and verdict.lost == made.lost
        unnamed = [t for t, slug in made.causes.items() if slug not in verdict.named(t)]
        count, right, named = count + 1, right + exact, named + (not unnamed)
        if not exact or unnamed:
            rows.append((made.name, _points(made.lost), _points(verdict.lost), ", ".join(unnamed)))
    words = (
        f"{count} pairs and triples of mistakes from different tasks: {right} lost exactly the "
        f"union of their points, {named} named every cause. The others:"
    )
    head = "mistakes | points to lose | points lost | not named in"
    return table("Combinations", head, rows or [("none", "", "", "")], words) if count else ""


def _points(lost: dict[str, float]) -> str:
    return ", ".join(f"{task} {points:g}" for task, points in sorted(lost.items()))


def _flakes(results: Results) -> str:
    graded: dict[str, list[Verdict]] = defaultdict(list)
    for name, verdict in results.by_kind["seeded"].items():
        graded[name.partition("#")[0]].append(verdict)
    if not graded:
        return ""
    rows = []
    for name, verdicts in graded.items():
        seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for check in (check for verdict in verdicts for check in verdict.checks):
            outcome = f"{check['outcome']}, {check['misconception'] or NO_CAUSE}"
            seen[check["task"], check["id"]][outcome] += 1
        for (task, id), outcomes in seen.items():
            if len(outcomes) > 1:
                rows.append((name, f"{task}/{id}", _counted(outcomes.elements())))
    total = len(results.by_kind["seeded"])
    words = f"{total} gradings of {len(graded)} notebooks, with other draws each; what differed:"
    head = "notebook | check | outcomes, and how often"
    return table("Draws", head, rows or [("nothing", "", "")], words)


def _open(results: Results) -> str:
    rows = [
        (f"`{j.mutant.name}`", judged, f"<code>{_inline(j.mutant.change)}</code>", j.verdict.told())
        for judged in ("survived", "elsewhere", "fault", "false failure")
        for j in results.fates(judged)
    ]
    words = "Mutants that are neither killed nor equivalent."
    return table("Open", "mutant | fate | change | the grader said", rows, words)


def _inline(change: str) -> str:
    lines = [line.replace("|", "\\|").replace("<", "&lt;") for line in change.splitlines()]
    return "<br>".join(f"{line[0]} {line[2:].strip()}" for line in lines)


def _equivalent(results: Results) -> str:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for judged in results.mutants:
        if judged.reason:
            by_reason[judged.reason].append(f"`{judged.mutant.name}`")
    rows = [(reason, len(names), " ".join(names)) for reason, names in by_reason.items()]
    return table("Equivalent mutants", "reason | #mutants | which", rows)


def _seconds(results: Results) -> str:
    rows = []
    for kind, graded in results.by_kind.items():
        seconds = sorted(verdict.seconds for verdict in graded.values())
        if seconds:
            slow = seconds[int(0.95 * (len(seconds) - 1))]
            middle = statistics.median(seconds)
            rows.append((kind, len(seconds), *(f"{s:.1f}" for s in (middle, slow, seconds[-1]))))
    words = "Mutants are graded in the tasks that share the changed definition, the rest in all."
    return table("Seconds a notebook", "kind | #graded | #median | #95 % | #longest", rows, words)


SECTIONS = (
    _by_task,
    _by_operator,
    _mistakes_by_task,
    _mistakes_by_cause,
    _mistakes_missed,
    _confusions,
    _false_failures,
    _combined,
    _flakes,
    _open,
    _equivalent,
    _seconds,
)
