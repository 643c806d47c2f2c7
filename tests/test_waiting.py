"""The clock of a worker: a busy machine does not make its code slow."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autograder.waiting import PATIENCE, Clock, waited

SPIN = """
import os, time
os.sched_setaffinity(0, {%d})
end = time.time() + 60
while time.time() < end:
    pass
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's /proc")
def test_processes_that_share_a_core_wait() -> None:
    core = min(os.sched_getaffinity(0))
    both = [subprocess.Popen([sys.executable, "-c", SPIN % core]) for _ in range(2)]
    try:
        while any(waited(process.pid) < 0.2 for process in both):  # or it never ends
            assert all(process.poll() is None for process in both)
            time.sleep(0.05)
    finally:
        for process in both:
            process.kill()
            process.wait()


def test_a_process_that_is_gone_has_not_waited() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert waited(gone.pid) == 0


@pytest.mark.parametrize(("starved", "least"), [(0.0, 1.2), (0.9, 1.2 * PATIENCE * 0.8)])
def test_time_without_a_core_is_added(starved: float, least: float) -> None:
    begun, rung = time.monotonic(), threading.Event()
    clock = Clock(rung.set, lambda: starved * (time.monotonic() - begun))
    with clock.running(1.2):
        assert rung.wait()
    assert time.monotonic() - begun >= least
