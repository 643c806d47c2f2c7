"""A process that has imported torch and forks workers, so that each need not import it again.

It runs no student code and sees none: what it forks enters a box that bubblewrap has made, gives
up all rights, and is a worker like any other; the notebook comes to that worker alone. Nothing
that a worker does reaches the fork server, or the next worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import joining
import privileges
import serve
import streams
import syscalls

_PR_SET_CHILD_SUBREAPER = 36
_REQUEST = 1 << 16  # bytes, at most
INSIDE = "/grader/worker"  # where a box has this folder


def serve_host(options: dict[str, Any]) -> None:
    """Answer the host on standard input, a socket, until it hangs up.

    A request names a process in the box to enter, and the worker's options; it brings the pipes of
    its requests and answers. The answer is the worker's number, or why there is none.
    """
    control = socket.socket(fileno=os.dup(0))
    streams.silence(options["stderr"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none that ends is waited for
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    serve.prepare(forks=True)
    gc.freeze()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        return  # a child would have one of its threads, and the locks of all
    control.send(b"ready")
    while True:
        message, pipes, _, _ = socket.recv_fds(control, _REQUEST, 2)
        if not message:
            return
        if os.fork() == 0:
            try:
                _enter(control, json.loads(message), *pipes)
            finally:
                os._exit(1)
        for pipe in pipes:
            os.close(pipe)


def _enter(control: socket.socket, told: dict[str, Any], requests: int, answers: int) -> None:
    """Enter the box and fork the worker, which is the first of this family inside."""
    try:
        joining.join(told["box"])
        child = os.fork()
    except OSError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    if child == 0:
        _become_worker(told["options"], requests, answers)
    control.send(json.dumps({"worker": child}).encode())


def _become_worker(options: dict[str, Any], requests: int, answers: int) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.chdir("/tmp")
        os.environ["PWD"] = "/tmp"
        _close_all_but(0, 1, 2, requests, answers)
        sys.path[:] = [INSIDE if path == str(Path(__file__).parent) else path for path in sys.path]
        privileges.leave_keyring()
        privileges.give_up(options.get("uid"))
        streams.silence(options["stderr"])
        syscalls.refuse_calls()
        random.seed()  # as if it had been imported here; torch is seeded for every session
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()
        with os.fdopen(requests, "rb", 1 << 16) as read, os.fdopen(answers, "wb", 1 << 16) as write:
            serve.Worker(read, write, options).run()
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number not in kept:
            with contextlib.suppress(OSError):  # the folder itself
                os.close(number)
