"""The worker: runs a notebook's definitions once, then serves sessions to the host.

Started as `python -I .../autograder/worker OPTIONS-AS-JSON`. Requests come on standard input,
answers go to standard output; student code sees neither. Started with the option `forks_workers`
it is no worker, but forks them; see `forkserver`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def _start() -> None:
    options = json.loads(sys.argv[1])
    here = str(Path(__file__).resolve().parent)
    sys.path.insert(0, here)
    sys.argv = [""]
    if options.get("forks_workers"):
        import forkserver

        sys.path.remove(here)
        forkserver.serve_host(options)
        return
    import privileges
    import streams
    import syscalls

    privileges.leave_keyring()
    alone = options.get("alone")  # in a box
    if alone:
        privileges.give_up(options.get("uid"))
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    streams.silence(options["stderr"])
    if alone:  # before torch, which may start threads: a filter is one thread's
        syscalls.refuse_calls()
    import serve

    sys.path.remove(here)
    serve.prepare(options["fork"])
    serve.Worker(requests, answers, options).run()


if __name__ == "__main__":
    _start()
