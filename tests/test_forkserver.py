"""Workers that are forked: they find what others find, and nothing of one another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder import processes
from autograder.outcomes import Stopped
from autograder.submission import Submission
from tests.system import ROOT, as_ordinary_user, heed_ctrl_c
from tests.test_sandbox import PREAMBLE, asked

pytestmark = pytest.mark.usefixtures("box")
ALONE = ("what holds the box", "the worker", "its session")  # processes, where there is no other
ONE = "def sample_images(): return 1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[processes.ForkServer]:
    """A fork server of the test's own, which forks the first worker, too."""
    made = processes.ForkServer()
    made.asked = True
    monkeypatch.setattr(processes, "forkserver", made)
    yield made
    made.close()


SEEN = """
import resource
from pathlib import Path
def status():
    lines = Path("/proc/self/status").read_text().splitlines()
    kept = ("Cap", "NoNewPrivs", "Seccomp", "Groups", "Umask", "SigIgn", "Threads", "NStgid")
    return [line for line in lines if line.startswith(kept)]
def mounts():
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(" ".join(line.split()[3:6]) + line.partition(" - ")[2] for line in lines)
def opened():
    found = [Path(f"/proc/self/fd/{n}") for n in range(256)]
    return [os.readlink(f).partition(":")[0] for f in found if os.path.lexists(f)]
def limits():
    own = ("RLIMIT_AS", "RLIMIT_NPROC")  # beyond what is in use
    names = [n for n in dir(resource) if n.startswith("RLIMIT") and n not in own]
    return {n: list(resource.getrlimit(getattr(resource, n))) for n in names}
def processes():
    return [Path(f"/proc/{p}/cmdline").read_bytes() for p in os.listdir("/proc") if p.isdigit()]
def sample_images():
    return {
        "status": status(), "mounts": mounts(), "opened": opened(), "limits": limits(),
        "files": {f: sorted(os.listdir(f)) for f in ("/", "/tmp", "/dev", "/grader", "/root")
                  if os.access(f, os.R_OK)},
        "environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path,
        "arguments": sys.argv, "modules": sorted(n for n in sys.modules if n not in
                                                 ("forkserver", "joining")),
        "processes": len(processes()), "group": Path("/proc/self/cgroup").read_text(),
        "leads": os.getpid() == os.getsid(0), "interfaces": os.listdir("/proc/self/net"),
        "written": "".join(l for l in open("/proc/self/maps") if "w" in l.split()[1][1]
                           and "s" in l.split()[1]),
    }
"""


def test_a_forked_worker_finds_what_one_finds_that_starts_by_itself(
    server: processes.ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: Any = asked(SEEN)
    assert not server.failed
    monkeypatch.setattr(processes.ForkServer, "start", lambda *_: None)
    alone: Any = asked(SEEN)
    assert {n: forked[n] for n in alone} == alone


LEFT = """
import multiprocessing.shared_memory as shared
held = []
def sample_images(what):
    if what == "leave":
        held.append(socket.socket(socket.AF_UNIX))
        held[0].bind(chr(0) + "left")
        held[0].listen()
        shared.SharedMemory("left", create=True, size=8)
        open("/tmp/left", "w").close()
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
    if what == "kill":
        os.kill(-1, 9)
    found = os.listdir("/tmp") + os.listdir("/dev/shm")
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex(chr(0) + "left") == 0:
            found.append("socket")
    return found, len([n for n in os.listdir("/proc") if n.isdigit()])
"""


def test_a_forked_worker_meets_nothing_of_another(server: processes.ForkServer) -> None:
    """Neither files nor processes nor sockets, whether the other is at work or has ended."""
    first, second = (Submission([PREAMBLE, LEFT], boxed=True) for _ in range(2))
    try:
        with first.session(1) as one:
            found, count = one.call(one.read("sample_images"), "leave")
            assert set(found) >= {"left", "socket"}
            with second.session(1) as other:
                assert count > len(ALONE)
                assert other.call(other.read("sample_images"), "") == ([], len(ALONE))
                with contextlib.suppress(Stopped):  # it is not among those that it kills
                    other.call(other.read("sample_images"), "kill")
            assert one.call(one.read("sample_images"), "")[1] == count
    finally:
        first.close()
        second.close()
    again = f"{LEFT}\nfound = sample_images\ndef sample_images(): return found('')"
    assert asked(again) == ([], len(ALONE))
    assert not server.failed


def children_of(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(n) for n in found.read_text().split()] if found.exists() else []


def await_end(processes: list[int]) -> None:
    """Wait until none of them is there; a test that waits for too long is ended from outside."""
    while any(Path(f"/proc/{n}").exists() for n in processes):
        time.sleep(0.05)


def test_a_forked_worker_leaves_no_process_behind(server: processes.ForkServer) -> None:
    made = Submission([PREAMBLE, "for _ in [1]: os.fork()\nVAE = os.fork()"], boxed=True)
    try:
        _ = made.definitions
        assert server.process is not None
        worker = children_of(server.process.pid)
        assert len(worker) == 1
        inside = [*worker, *children_of(worker[0])]
    finally:
        made.close()
    await_end(inside)
    assert server.process.poll() is None


def test_a_worker_starts_by_itself_where_the_fork_server_has_died(
    server: processes.ForkServer,
) -> None:
    assert asked(ONE) == 1
    assert not server.failed
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    assert asked(ONE) == 1
    assert server.failed


GRADER = """
import sys, time
from autograder import processes
from autograder.submission import Submission
from tests.test_forkserver import children_of
made = [Submission(["VAE = 1"], boxed=True) for _ in range(2)]
assert made[1].definitions.defined
server = processes.forkserver.process.pid
found = [server, *children_of(server)]
found += [m._worker.process.pid for m in made] + [m._worker.number for m in made]
print(*found, *[c for n in found for c in children_of(n)], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_with_the_grader(ending: signal.Signals) -> None:
    command = [sys.executable, "-c", GRADER]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=heed_ctrl_c
    ) as grader:
        try:
            assert grader.stdout is not None
            found = [int(n) for n in grader.stdout.readline().split()]
            assert len(found) > 5
            grader.send_signal(ending)
            grader.wait()
            await_end(found)
        finally:
            grader.kill()


def test_all_that_holds_under_root_holds_for_an_ordinary_user(common_folder: Path) -> None:
    """The tests of the box, and those above, run again by a user without rights."""
    if os.geteuid() != 0:
        return  # they were
    chosen = "network or files or imported or environment or read_only or limited or not_root"
    chosen += " or out_of_reach or forked_worker or by_itself_where"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["tests/test_sandbox.py", "tests/test_forkserver.py"]
    command += [f"--basetemp={common_folder / 'pytest'}"]
    done = subprocess.run(
        as_ordinary_user(*command, "-k", chosen, folder=common_folder),
        cwd=ROOT,
        env={**os.environ, "HOME": "/tmp", "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "22 passed" in done.stdout, done.stdout
