"""Starting a worker's process, without torch: importing that here takes as long as it does there,
and the two go together."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO, Any

from autograder import cgroups, sandbox

_SECONDS = 60.0  # for the fork server to import torch, or a box to be made
_ANSWER = 1 << 16  # bytes of an answer of the fork server


@dataclass
class Started:
    """A worker: the process to kill, its pipes, and the cgroup that it is in, where there is one.

    number: of the worker, another than that of the process where that only holds its box.
    """

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    group: cgroups.Group | None
    number: int

    def end(self) -> None:
        """End it and everything that it started."""
        sandbox.end(self.process)
        for stream in (self.requests, self.answers):
            with contextlib.suppress(OSError):
                stream.close()
        if self.group is not None:
            self.group.close()


def start(boxed: bool, fork: bool, device: str = "cpu") -> Started:
    """Start a worker without waiting for it; the arguments are those of a `Submission`.

    The first one of this process imports torch itself, beside the host; those after it are forked,
    where there is a box to put them into.
    """
    launch = sandbox.launch(boxed, device)
    options = {**launch.options, "fork": fork, "stderr": debugging()}
    if boxed and device == "cpu":
        forked = forkserver.start(options)
        if forked is not None:
            return forked
    group = cgroups.make() if boxed else None
    command = [*launch.command, json.dumps(options)]
    process = _popen(command if group is None else group.entered(command), launch.environment)
    assert process.stdin is not None
    assert process.stdout is not None
    return Started(process, process.stdin, process.stdout, group, process.pid)


def debugging() -> bool:
    """Whether the processes that run student code may write to standard error."""
    return bool(os.environ.get("AUTOGRADER_DEBUG"))


def _popen(command: list[str], environment: dict[str, str], **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **more},
        stderr=None if debugging() else subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


class ForkServer:
    """The process that forks workers into boxes; see `autograder/worker/forkserver.py`.

    It starts with the second worker of this process. Where it cannot be had, or fails once, every
    worker starts by itself, as the first one did.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.asked, self.failed = False, False
        self.lock = threading.Lock()

    def start(self, options: dict[str, Any]) -> Started | None:
        """A worker, or None where it is to start by itself."""
        with self.lock:
            asked, self.asked = self.asked, True
            if not asked or self.failed:
                return None
            try:
                return self._start(options)
            except (OSError, ValueError, LookupError) as error:
                if debugging():
                    print(f"the fork server is not used: {error}", file=sys.stderr)
                self.failed = True
                self.close()
                return None
            except BaseException:  # its answer, not read, would be taken for the next one's
                self.close()
                raise

    def _start(self, options: dict[str, Any]) -> Started:
        control = self.control or self._connect()
        box = _Box()
        try:
            requests, answers = os.pipe(), os.pipe()
        except OSError:
            box.end()
            raise
        ends = os.fdopen(requests[1], "wb"), os.fdopen(answers[0], "rb")
        started = Started(box.process, *ends, box.group, box.process.pid)
        try:
            told = json.dumps({"box": box.first, "options": options}).encode()
            socket.send_fds(control, [told], [requests[0], answers[1]])
            answer = json.loads(control.recv(_ANSWER) or "null")
            if not isinstance(answer, dict) or not isinstance(answer.get("worker"), int):
                raise OSError(f"no worker was forked: {answer}")
            started.number = answer["worker"]
            if box.group is not None:
                box.group.take_in(started.number)  # it waits for its first request
        except BaseException:
            started.end()
            raise
        finally:
            os.close(requests[0])
            os.close(answers[1])
        return started

    def _connect(self) -> socket.socket:
        launch = sandbox.launch_forkserver()
        command = [*launch.command, json.dumps({**launch.options, "stderr": debugging()})]
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.settimeout(_SECONDS)
        self.control = own
        box = _Box()
        try:
            # A worker reaches its interpreter as it was executed, by /proc/self/exe: read-only
            # as in a box, whoever may write to it outside.
            self.process = _popen(
                command,
                launch.environment,
                executable=f"/proc/{box.first}/root{os.path.realpath(sys.executable)}",
                stdin=other,
                stdout=subprocess.DEVNULL,
            )
            other.close()
            if own.recv(_ANSWER) != b"ready":
                raise OSError("it did not start")
        finally:
            other.close()
            box.end()
        return own

    def close(self) -> None:
        """End it; workers stay."""
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            sandbox.end(self.process)
        self.process = self.control = None


class _Box:
    """An empty box: the process to kill, the first process inside, and its cgroup."""

    def __init__(self) -> None:
        self.group = cgroups.make()
        told, tell = os.pipe()
        try:
            command = sandbox.empty_box(tell)
            self.process = _popen(
                command if self.group is None else self.group.entered(command),
                {"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                pass_fds=[tell],
            )
        except BaseException:
            if self.group is not None:
                self.group.close()
            os.close(told)
            raise
        finally:
            os.close(tell)
        try:
            assert self.process.stdout is not None
            self.first = json.loads(_read_until(told, b"}\n"))["child-pid"]
            _read_until(self.process.stdout.fileno(), b"\n")  # now the box is made
        except BaseException:
            self.end()
            raise
        finally:
            os.close(told)

    def end(self) -> None:
        """End it and everything inside."""
        sandbox.end(self.process)
        if self.group is not None:
            self.group.close()


def _read_until(file: int, end: bytes) -> bytes:
    """What comes from an open file, as far as `end`; raises `OSError` where it stays away."""
    data = b""
    while not data.endswith(end):
        ready, _, _ = select.select([file], [], [], _SECONDS)
        part = os.read(file, _ANSWER) if ready else b""
        if not part:
            raise OSError("bubblewrap does not answer")
        data += part
    return data


forkserver = ForkServer()
atexit.register(forkserver.close)
