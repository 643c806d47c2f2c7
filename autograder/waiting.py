"""How long processes have waited for a core: a busy machine must not make code look slow."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE = 4.0  # times as long, at most, where the machine is busy with other things
PROC = Path("/proc")


def waited(process: int) -> float:
    """Seconds that a process, or one that it started, has been ready to run but had no core.

    The longest of any of their threads; 0 where the system does not tell (other than Linux).
    """
    longest = 0.0
    for thread in _threads(process):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end at any time
            nanoseconds = int((thread / "schedstat").read_text().split()[1])
            longest = max(longest, nanoseconds / 1e9)
        with contextlib.suppress(OSError, ValueError):
            started = (thread / "children").read_text().split()
            longest = max([longest, *(waited(int(child)) for child in started)])
    return longest


def _threads(process: int) -> list[Path]:
    try:
        return list((PROC / str(process) / "task").iterdir())
    except OSError:
        return []


class Clock:
    """Calls `ring` when something runs for too long; a read that blocks cannot look itself.

    waited: seconds that what is timed has waited for a core so far; these are added, up to
    PATIENCE times what was allowed.
    """

    def __init__(self, ring: Callable[[], None], waited: Callable[[], float]) -> None:
        self.ring, self.waited, self.stopped = ring, waited, False
        self.begun, self.deadline, self.latest = math.inf, math.inf, math.inf
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """Ring if the block takes longer than `seconds`."""
        self.stopped = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        self.begun = time.monotonic()
        self.latest = self.begun + PATIENCE * seconds
        self.deadline = self.begun + seconds
        try:
            yield
        finally:
            self.begun = self.deadline = math.inf

    def _watch(self) -> None:
        noted, before = 0.0, 0.0  # of what has been running for a while: its start, its waiting
        while not self.stopped:
            time.sleep(0.2)
            now, begun = time.monotonic(), self.begun
            if now < begun + 1.0:
                continue
            if noted != begun:
                noted, before = begun, self.waited()
            if now > self.deadline:
                added, before = self.waited() - before, self.waited()
                if added > 0.01 and now < self.latest:
                    self.deadline = min(now + added, self.latest)
                else:
                    self.deadline = math.inf
                    self.ring()
