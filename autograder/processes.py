"""Starting a worker's process, without torch: importing that here takes as long as it does there,
and the two go together."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from autograder import cgroups, sandbox


@dataclass
class Started:
    """A worker's process, with the cgroup that it is in, where there is one."""

    process: subprocess.Popen[bytes]
    group: cgroups.Group | None

    def end(self) -> None:
        """End it and everything that it started."""
        sandbox.end(self.process)
        if self.group is not None:
            self.group.close()


def start(boxed: bool, fork: bool, device: str = "cpu") -> Started:
    """Start a worker without waiting for it; the arguments are those of a `Submission`."""
    launch = sandbox.launch(boxed, device)
    group = cgroups.make() if boxed else None
    options = {**launch.options, "fork": fork, "stderr": debugging()}
    command = [*launch.command, json.dumps(options)]
    process = subprocess.Popen(
        command if group is None else group.entered(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if debugging() else subprocess.DEVNULL,
        env=launch.environment,
        start_new_session=True,
    )
    return Started(process, group)


def debugging() -> bool:
    """Whether the processes that run student code may write to standard error."""
    return bool(os.environ.get("AUTOGRADER_DEBUG"))
