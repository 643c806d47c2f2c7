"""The box and the clock: what student code can reach, and what ends it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autograder import cgroups, processes
from autograder.outcomes import Raised, Stopped, Unchecked
from autograder.submission import Session, Submission
from autograder.worker import syscalls
from tests.system import missing

PREAMBLE = "import os, socket, subprocess, sys, time, torch"
pytestmark = pytest.mark.usefixtures("box", "way")


@pytest.fixture(params=["by itself", "forked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers start by themselves, as the first one does, or are forked, as those after it are."""
    server = processes.forkserver
    if request.param == "by itself":
        monkeypatch.setattr(processes.ForkServer, "start", lambda *_: None)
    monkeypatch.setattr(server, "asked", True)
    yield
    assert not server.failed


def asked(source: str, *, boxed: bool = True) -> object:
    """What `sample_images()` of this source gives in a session."""
    made = Submission([PREAMBLE, source], boxed=boxed)
    try:
        with made.session(1) as session:
            return session.call(session.read("sample_images"))
    finally:
        made.close()


def test_there_is_no_network() -> None:
    with pytest.raises(Raised, match=r"unreachable|not known|resolution"):
        asked("def sample_images(): socket.create_connection(('192.0.2.1', 80), timeout=3)")


def test_there_are_no_files_but_the_interpreters(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    here = Path(__file__).resolve()
    for path in (secret, here, here.parents[1] / "solution", Path("/etc/passwd")):
        assert asked(f"def sample_images(): return os.path.exists({str(path)!r})") is False


def test_neither_reference_nor_grader_can_be_imported() -> None:
    for name in ("solution", "autograder"):
        with pytest.raises(Raised, match="No module named"):
            asked(
                f"def sample_images():\n    import {name}\n    return dir({name}) and {name}.check"
            )


def test_the_environment_is_empty() -> None:
    os.environ["A_SECRET"] = "1"
    try:
        assert asked("def sample_images(): return os.environ.get('A_SECRET')") is None
    finally:
        del os.environ["A_SECRET"]


def test_the_interpreter_is_read_only() -> None:
    """By whatever name, for whoever owns it."""
    changed = asked("""
def sample_images():
    done = []
    def attempt(what, *args):
        try:
            what(*args)
            done.append([what.__name__, *map(str, args)])
        except OSError:
            pass
    for path in (torch.__file__, sys.executable, "/proc/self/exe", "/proc/self/cwd/.."):
        attempt(os.chmod, path, 0o755)
        attempt(os.utime, path)
        attempt(os.setxattr, path, "user.left", b"x")
        attempt(os.open, path, os.O_WRONLY)
    return done""")
    assert changed == []


def test_the_first_process_of_the_box_is_out_of_reach() -> None:
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        missing("Landlock", "this kernel has none")
    source = "def sample_images(): return open('/proc/1/mem', 'r+b') and 1"
    with pytest.raises(Raised, match=r"Permission|denied|permitted"):
        asked(source)


def test_processes_are_limited() -> None:
    source = """
def sample_images():
    made = 0
    try:
        while made < 500:
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
            made += 1
    except OSError:
        pass
    return made"""
    made = asked(source)
    assert isinstance(made, int)
    assert made < 500


def test_processes_that_a_session_leaves_do_not_count_in_the_next() -> None:
    forks = """
def sample_images():
    deadline = time.monotonic() + 5  # for the system to end those of before
    while sum(n.isdigit() for n in os.listdir("/proc")) > 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    made = 0
    while made < 40:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
    return made
"""
    made = Submission([PREAMBLE, forks], boxed=True)
    try:
        for seed in range(3):
            with made.session(seed) as session:
                assert session.call(session.read("sample_images")) == 40
    finally:
        made.close()


def test_memory_is_limited() -> None:
    with pytest.raises(Raised) as caught:
        asked("def sample_images(): return torch.zeros(3 << 30).sum()")
    assert caught.value.misconception == "out-of-memory"


def test_whoever_runs_inside_is_not_root() -> None:
    assert asked("def sample_images(): return os.getuid()") != 0


@pytest.fixture(params=[(True, True), (True, False), (False, True), (False, False)])
def options(request: pytest.FixtureRequest) -> tuple[bool, bool]:
    """boxed, fork."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def opened(options: tuple[bool, bool]) -> Iterator[Submission]:
    cells = [
        PREAMBLE,
        "state = [0]",
        "def sample_images(what):\n"
        "    state[0] += 1\n"
        "    if what == 'sleep': time.sleep(60)\n"
        "    if what == 'exit': os._exit(3)\n"
        "    if what == 'quit': sys.exit(3)\n"
        "    if what == 'speak': os.write(1, b'x' * 5000)\n"
        "    return state[0]",
    ]
    made = Submission(cells, boxed=options[0], fork=options[1])
    yield made
    made.close()


def call(session: Session, what: str) -> object:
    seconds = 3.0 if what == "sleep" else None
    return session.ask("call", session.read("sample_images"), [what], {}, seconds=seconds)


def test_a_session_sees_nothing_of_another(opened: Submission) -> None:
    for _ in range(2):
        with opened.session(1) as session:
            assert [call(session, ""), call(session, "")] == [1, 2]


def test_checks_of_a_task_share_a_process_until_one_fails(options: tuple[bool, bool]) -> None:
    source = """
kept, count = [], 0
def sample_images():
    global count
    count += 1
    kept.append(count)
    return [len(kept), count, float(torch.rand(()))]
"""
    made = Submission([PREAMBLE, source], boxed=options[0], fork=options[1])

    def seen(task: str | None, clean: bool) -> list[float]:
        with made.session(1, task) as session:
            found = session.call(session.read("sample_images"))
            session.clean = clean
        assert isinstance(found, list)
        return found

    try:
        first = seen("one", clean=True)
        assert first[:2] == [1, 1]
        # the object is the same, its variables and the noise are as at first
        assert seen("one", clean=False) == [2, *first[1:]]
        for task, clean in (("one", True), ("other", True), (None, True), ("other", True)):
            assert seen(task, clean) == first
    finally:
        made.close()


def test_a_process_that_ends_between_checks_costs_the_next_ones_nothing() -> None:
    source = """
def sample_images():
    import threading, time
    threading.Thread(target=lambda: (time.sleep(0.3), os._exit(3)), daemon=True).start()
    return 1
"""
    made = Submission([PREAMBLE, source], boxed=True)
    try:
        for task in ("one", "one", "other"):
            with made.session(1, task) as session:
                assert session.call(session.read("sample_images")) == 1
                session.clean = True
            time.sleep(1.0)
    finally:
        made.close()


def test_code_that_never_ends_is_ended_and_the_next_session_works(opened: Submission) -> None:
    with opened.session(1) as session, pytest.raises(Stopped) as caught:
        call(session, "sleep")
    assert caught.value.misconception == "too-slow"
    with opened.session(1) as session:
        assert call(session, "") == 1


def test_code_that_ends_its_process_costs_its_session(opened: Submission) -> None:
    with opened.session(1) as session, pytest.raises(Stopped):
        call(session, "exit")
    with opened.session(1) as session:
        with pytest.raises(Raised):
            call(session, "quit")
        assert call(session, "speak") == 2


def test_the_same_seed_gives_the_same_noise(options: tuple[bool, bool]) -> None:
    source = "def sample_images(): return torch.randn(3)"
    made = Submission([PREAMBLE, source], boxed=options[0], fork=options[1])
    try:
        seen = []
        for seed in (1, 1, 2):
            with made.session(seed) as session:
                seen.append(session.call(session.read("sample_images")))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])
    finally:
        made.close()


@pytest.mark.parametrize("ending", ["time.sleep(60)", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_a_definition_that_ends_the_worker_costs_what_it_defines(ending: str) -> None:
    cells = [PREAMBLE, f"VAE = {ending}", "def sample_images(): return 5"]
    made = Submission(cells, boxed=True, statement_seconds=15.0)
    try:
        with made.session(1) as session:
            assert session.call(session.read("sample_images")) == 5
            with pytest.raises(Unchecked, match="cell 2") as caught:
                session.read("VAE")
        assert caught.value.misconception == "not-defined"
    finally:
        made.close()


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small control group, where this user may make one."""
    monkeypatch.setattr(cgroups, "MEMORY", 2 << 30)
    made = cgroups.make()
    if made is None:
        pytest.skip("needs the right to make control groups")
    made.close()
    assert not any(folder.exists() for folder in made.folders)


@pytest.mark.usefixtures("groups")
def test_the_memory_of_all_processes_is_bounded_together() -> None:
    statuses = asked(
        "def sample_images():\n"
        "    for _ in range(5):\n"
        "        if os.fork() == 0:\n"
        "            kept = bytearray(os.urandom(1 << 20) * 600)\n"
        "            time.sleep(3)\n"
        "            os._exit(0)\n"
        "    return [os.wait()[1] for _ in range(5)]"
    )
    assert isinstance(statuses, list)
    assert signal.SIGKILL in statuses, "each is within its own bounds, all together are not"


@pytest.mark.usefixtures("groups")
def test_a_group_is_gone_when_its_submission_is_closed() -> None:
    made = Submission([PREAMBLE], boxed=True)
    _ = made.definitions
    assert made._worker is not None
    group = made._worker.group
    assert group is not None
    assert all(folder.exists() for folder in group.folders)
    made.close()
    assert not any(folder.exists() for folder in group.folders)


CALLS = """
import ctypes, errno
def refused(number, *values):
    ctypes.set_errno(0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.argtypes = [ctypes.c_long] * (1 + len(values))
    done = libc.syscall(number, *values)
    return None if done >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def asked_of_the_kernel(expression: str) -> object:
    """What an expression with `refused` gives inside the box."""
    return asked(f"{CALLS}\ndef sample_images(): return {expression}")


def test_the_kernel_is_asked_for_nothing_but_what_a_notebook_needs() -> None:
    machine = syscalls.MACHINES[platform.machine()]
    numbers = sorted(machine.refused.values())
    told = asked_of_the_kernel(f"[refused(n, 0, 0, 0, 0, 0) for n in {numbers}]")
    assert told == ["EPERM"] * len(numbers)
    bits = [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)]
    told = asked_of_the_kernel(f"[refused({machine.clone}, n, 0, 0, 0, 0) for n in {bits}]")
    assert told == ["EPERM"] * len(bits)
    families = [n for n in range(46) if n not in (1, 2, 10)]
    told = asked_of_the_kernel(f"[refused({machine.socket}, n, 1, 0) for n in {families}]")
    assert told == ["EAFNOSUPPORT"] * len(families)
    told = asked_of_the_kernel(f"[refused({machine.socket}, n, 1, 0) for n in (1, 2, 10)]")
    assert told == [None] * 3
    x32 = 1 << 30
    assert asked_of_the_kernel(f"refused({x32} + {machine.socket}, 2, 1, 0)") == "ENOSYS"
    assert asked_of_the_kernel("refused(435, 0, 0)") == "ENOSYS"
    source = "[p for p in [os.fork()] if p or os._exit(0)] and 1"
    assert asked_of_the_kernel(source) == 1
