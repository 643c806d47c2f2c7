"""Ending or stalling the process that answers."""

from __future__ import annotations

from tests.attacks.attack import family

ENDED = "ended the process|SystemExit|KeyboardInterrupt|raised"


def sampling(name: str, body: str, says: str = ENDED, **rest: object) -> dict[str, object]:
    """An attack in the body of `sample_images`."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    cell = f"def sample_images(*anything):\n    ran()\n{lines}"
    return {"name": name, "task": "ae-sampling", "cell": cell, "says": says, **rest}


ATTACKS = family(
    "ending",
    sampling("exit", "sys.exit(0)", "SystemExit"),
    sampling("exit-at-once", "os._exit(0)", "ended the process", marks=False),
    sampling("interrupt", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    sampling("abort", "os.abort()", "ended the process", marks=False),
    sampling("segfault", "ctypes.string_at(0)", "ended the process", marks=False),
    sampling("kill-itself", "os.kill(os.getpid(), 9)", "ended the process", marks=False),
    sampling("stop-itself", "os.kill(os.getpid(), signal.SIGSTOP)", "not finish", marks=False),
    # its answer may be there before the end is
    sampling("kill-parent", "os.kill(os.getppid(), 9)", "ended the process|nothing", marks=False),
    sampling(
        "stop-parent",
        "os.kill(os.getppid(), signal.SIGSTOP)\nos._exit(0)",
        "not finish|ended the process",
        marks=False,
    ),
    sampling("kill-all", "os.kill(-1, 9)\nos._exit(0)", "ended the process", marks=False),
    sampling(
        "kill-the-first",
        "try:\n    os.kill(1, 9)\nexcept OSError:\n    pass\nraise RuntimeError('still here')",
        "still here|ended the process",
        marks=False,
    ),
    sampling(
        "ignore-signals",
        "for number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    time.sleep(9)",
        "not finish",
        marks=False,
    ),
    sampling("never-end", "while True: pass", "not finish", marks=False),
    sampling("fork-and-exit", "if os.fork():\n    os._exit(0)", marks=False),
    sampling("two-answers", "os.fork()", "nothing|disturbed", marks=False),
    sampling(
        "recursion",
        "sys.setrecursionlimit(10**9)\nthreading.stack_size(1 << 20)\ndef deep(): deep()\ndeep()",
        "ended the process|not finish|Recursion",
        marks=False,
    ),
    sampling(
        "error-that-exits",
        "class Evil(Exception):\n    def __str__(self): os._exit(0)\nraise Evil",
        "ended the process",
        marks=False,
    ),
    sampling(
        "error-that-never-ends",
        "class Evil(Exception):\n    def __str__(self):\n        while True: pass\nraise Evil",
        "not finish",
        marks=False,
    ),
    sampling(
        "error-without-a-name",
        "class Meta(type):\n    @property\n    def __name__(cls): return 5\n"
        "class Evil(Exception, metaclass=Meta): pass\nraise Evil",
        "ended the process|raised",
        marks=False,
    ),
    {
        "name": "exit-in-a-definition",
        "task": "beta-tuning",
        "cell": "TUNED_BETA = os._exit(0)",
        "says": "cell",
        "marks": False,
    },
    {
        "name": "stop-in-a-definition",
        "task": "beta-tuning",
        "cell": "TUNED_BETA = os.kill(os.getpid(), signal.SIGSTOP)",
        "says": "cell",
        "marks": False,
    },
)
