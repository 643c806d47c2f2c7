"""Definitions only: what of a notebook is run, and what a broken part costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.outcomes import NotAttempted
from autograder.submission import Definitions, undefined
from tests.system import worker_module

definitions = worker_module("definitions")
execution = worker_module("execution")
newer = worker_module("newer")
rebinding = worker_module("rebinding")
selection = worker_module("selection")


def run(*cells: str, promised: tuple[str, ...] = ("f", "C")) -> Any:
    sources = list(cells)
    notebook = definitions.read(sources, lambda cell, index: True)
    chosen = selection.needed(notebook, set(promised), {"train_vae"})
    return execution.execute(chosen, sources, lambda cell, index: True)


def value(*cells: str) -> Any:
    return run(*cells).namespace["f"]()


def test_a_promised_name_brings_what_it_rests_on() -> None:
    assert value("import math", "a = 2", "b = a + 1", "def f(): return math.floor(b)") == 3


def test_what_nothing_rests_on_is_left_out() -> None:
    outcome = run("x = undefined_name", "def f(): return 1")
    assert outcome.errors == {}


@pytest.mark.parametrize(
    "left_out",
    [
        "for k in range(10**12): print(k)",
        "while True: print(1)",
        "k = train_vae(1)",
        "for i in range(3): k = train_vae(i)",
        "for x in data:\n  k = g(x)\n  k.backward()",
        "def fit():\n  for x in data: g(x).backward()\nk = fit()",
        "def helper(): return train_vae(1)\nk = helper()",
        "def make():\n  def fit(): g().backward()\n  return fit\nfit = make()\nk = fit()",
        "def make():\n  def fit(): g().backward()\n  return fit()\nk = make()",
        "fit = lambda x: train_vae(x)\nk = fit(1)",
        "raise SystemExit",
        "if True:\n  for k in range(10**12): print(k)",
        "with open('x') as file: k = train_vae(1)",
        "class E:\n  def run(self): return train_vae(1)\nk = E().run()",
        "class E:\n  def run(self): return train_vae(1)\nk = [e.run() for e in [E()]]",
        "class E:\n  def __post_init__(self): train_vae(1)\nclass D(E): pass\nk = D()",
        "class E:\n  def __call__(self, x): train_vae(x)\ne = E()\nk = e(1)",
        "class E:\n  def update(self): train_vae(1)\ne = E()\nk = e.update()",
        "class E:\n  def fit(self): train_vae(1)\nfit = E().fit\nk = fit()",
    ],
)
def test_training_and_plots_are_left_out(left_out: str) -> None:
    outcome = run("def train_vae(x): raise RuntimeError", left_out, "def f(): return k")
    assert "f" in outcome.namespace
    assert "k" not in outcome.namespace


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\ndef f(): return 1",
        "!pip install torch\ndef f():\n    !ls\n    return 1",
        "files = !ls\ndef f(): return 1",
        "t = %timeit -o 1\ndef f(): return 1",
        "%%time\ndef f(): return 1",
        "?len\nlen?\ndef f(): return 1",
        "def f():\n    %time x = 1\n    return 1",
    ],
)
def test_magics_and_shell_lines_do_not_matter(source: str) -> None:
    assert value(source) == 1


def test_lines_of_a_text_that_look_like_magics_stay() -> None:
    assert value('def f(): return """\n%d\n!x""" % 3') == "\n3\n!x"


def test_a_cell_in_another_language_is_left_out() -> None:
    assert value("%%bash\nrm -rf /", "def f(): return 1") == 1


def test_a_module_that_a_cell_writes_counts_as_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = ["%%writefile nets.py\ndef f(): return 1", "from nets import f"]
    assert value(*cells) == 1
    assert value(cells[0], "from nets import f as g", "def f(): return g() + 1") == 2
    assert value(cells[0], "import os, nets", "def f(): return nets.f() + 1") == 2
    assert value(cells[0], "import nets as n\nfrom nets import *", "f = n.f") == 1
    kept = "%%writefile src/deep.py\nimport math\ndef g(): return math.floor(1.5)"
    assert value(kept, "from src import deep", "def f(): return deep.g()") == 1
    assert value(kept, "import src.deep", "def f(): return src.deep.g()") == 1
    data = "%%writefile data.py\ndef g(): return 3"
    loader = "import torch.utils.data\nfrom torch.utils.data import DataLoader"
    assert value(data, loader, "def f(): return DataLoader is torch.utils.data.DataLoader")
    common = "%%writefile lib/path.py\ndef g(): return 3"
    assert value(common, "import os.path\nfrom os.path import sep", "def f(): return sep") == "/"
    assert value(common, "import lib.path as p", "def f(): return p.g()") == 3
    assert value(common, "from lib import path", "def f(): return path.g()") == 3
    assert value(common, "from path import g as h", "def f(): return h()") == 3
    assert value("%%writefile notes.txt\n# not Python at all (", "def f(): return 2") == 2


def test_a_loop_over_written_values_leaves_the_last() -> None:
    loop = "for k in (1, 2, 3):\n    train_vae(k)"
    assert value("def train_vae(x): raise RuntimeError", loop, "def f(): return k") == 3
    inside = (
        "if True:\n    for k, s in [(1, 'a'), (2, 'b')]:\n        print(k)\n        train_vae(k)"
    )
    assert value("def train_vae(x): raise RuntimeError", inside, "def f(): return k, s") == (2, "b")
    for unknown in (
        "for k in (1, 2):\n    print(k)\n    break",
        "for k in (): print(k)",
        "for k in (train_vae(1), train_vae(2)): print(k)",
    ):
        cells = ["def train_vae(x): raise RuntimeError", unknown, "def f(): return k"]
        assert "k" not in run(*cells).namespace


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["b = 10.0\nfor _ in range(2):\n  b /= 10\n  run(b)", "B = b"], 0.1),
        (["for b in np.linspace(2, 1, 5):\n  run(b)\n  h[b] = log[b]\nB = float(b)"], 1.0),
        (["run(B := 3, epochs=2)"], 3),
        (["b = 3\nfor a in (1, 2):\n  x = run(a)\n  if x < 1: b = a", "B = b"], None),
        (["B = 3", "B = run(1)"], None),
        (["x = run(1)", "if True:\n  x = run(2)\n  B = 3"], 3),
    ],
)
def test_what_comes_of_loops_that_train(cells: list[str], expected: float | None) -> None:
    first = "import numpy as np\nlog = {}\ndef run(x, **k): log[x] = train_vae(x)"
    assert run(first, *cells, promised=("B",)).namespace.get("B") == expected


def test_a_cell_that_does_not_parse_costs_what_it_defines() -> None:
    cells = ["def f(): return 1", "class C(:\n    pass"]
    notebook = definitions.read(cells, lambda cell, index: True)
    assert notebook.broken[0]["cell"] == 2
    assert notebook.broken[0]["names"] == ["C"]
    assert value(*cells) == 1


def test_a_statement_that_raises_costs_what_it_binds() -> None:
    outcome = run("def f(): return 1", "class C:\n    x = 1 / 0")
    assert outcome.namespace["f"]() == 1
    assert outcome.errors["C"]["type"] == "ZeroDivisionError"
    assert outcome.errors["C"]["cell"] == 2


def test_what_stands_below_a_raise_is_not_defined() -> None:
    cells = ["def f(): return 1\nraise NotImplementedError\nclass C: pass", "def g(): return 2"]
    notebook = definitions.read(cells, lambda cell, index: True)
    assert notebook.broken[0]["names"] == ["C"]
    assert "line 2" in notebook.broken[0]["message"]
    assert value(*cells) == 1
    assert "C" not in run(*cells).namespace
    assert run(*cells, promised=("g",)).namespace["g"]() == 2


def test_the_last_definition_counts_and_changes_to_it_too() -> None:
    cells = ["class C: x = 1", "class C: x = 2", "C.y = 3", "setattr(C, 'z', 4)"]
    made = run(*cells).namespace["C"]
    assert (made.x, made.y, made.z) == (2, 3, 4)


def test_helpers_that_grow_are_followed() -> None:
    assert value("parts = []", "parts.append(5)", "def f(): return parts[0]") == 5


def test_conditional_definitions_are_run() -> None:
    assert (
        value("try:\n    import no_such\nexcept ImportError:\n    a = 1", "def f(): return a") == 1
    )


@pytest.mark.parametrize(
    "cells",
    [
        ["a = []\nfor i in range(2): a.append(i)", "def f(): return a[1]"],
        ["a = 8\nwhile a > 1: a //= 2", "def f(): return a"],
        ["if no:\n  a = train_vae()\nelse:\n  a = 1", "no = False", "def f(): return a"],
        ["T = {}\ndef put(f):\n  T['k'] = f\n  return f", "@put\ndef g(): return 1",
         "def f(): return T['k']()"],
        ["T = {}\ndef put(k, v): T[k] = v", "put('k', 1)", "def f(): return T['k']"],
        ["def setup():\n  global a\n  a = 1", "setup()", "def f(): return a"],
        ["class C: pass", "def to(c):\n  def put(g):\n    setattr(c, g.__name__, g)\n  return put",
         "@to(C)\ndef g(self): return 1", "def f(): return C().g()"],
        ["from functools import singledispatch\n@singledispatch\ndef g(x): return 0",
         "@g.register(int)\ndef _(x): return 1", "def f(): return g(3)"],
        ["print(a := 1)", "def f(): return a"],
        ["match 3:\n  case 3:\n    a = 1", "def f(): return a"],
        ["try:\n  import no_such\nexcept ImportError:\n  def g(n):\n    for i in n: return i",
         "def f(): return g([1])"],
        ["def f(x: int = 1): return int(f.__annotations__['x'] is int)"],
        ["from __future__ import annotations", "def f(x: no_such = 1): return x"],
        ["!pip install -q \\\n  tqdm\nimport math", "def f(): return math.floor(1.5)"],
        ["%config a=1\na = ('%d'\n     % (1,))", "def f(): return int(a)"],
        ["\n  a = 1\n  if a:\n    b = a", "def f(): return b"],
        ["    \n\t\ndef f():\n    return 1"],
        [">>> def f():\n...     return 1\n...\n"],
        ["In [3]: def f():\n   ...:     return 1\n"],
        ["\ufeffdef f(): return 1  # \0 \ud83d"],
        ["def make(g):\n  def fit(x): g(x).backward()\n  return fit", "h = make(abs)",
         "def f(): return int(callable(h))"],
        ["def fit(x): x.backward()", "h = lambda x: fit(x)", "def f(): return int(callable(h))"],
        ["def f(x: NotDefined = 1) -> 'no':\n  return x"],
        ["class C:\n  a: NotDefined = 1", "def f(): return C.a"],
        ["from typing import TypeVar, of_a_newer_python", "T = TypeVar('T')",
         "@of_a_newer_python\ndef f(x: of_a_newer_python[T, 1] = 1): return x"],
        ["from no_such import Writer\nw = Writer('runs')",
         "def f():\n  w.add('a', 1)\n  return 1"],
        ["t = {}", "mark = t.setdefault('a', 1)", "def f(): return t['a']"],
        ["t = {}", "assert t.setdefault('a', 1)", "def f(): return t['a']"],
        ["t = {}", "print(t.setdefault('a', 1))", "def f(): return t['a']"],
        ["s = []", "[s.append(n) for n in (1, 2)]", "def f(): return s[0]"],
        ["s = [0, 1]", "del s[0]", "def f(): return s[0]"],
        ["class A: pass", "a = A()", "vars(a).update(x=1)", "def f(): return a.x"],
        ["class A: pass\nclass B: pass", "for c in (A, B): c.x = 1", "def f(): return B.x"],
        ["class A: pass\nclass B: pass",
         "for i, (c, v) in enumerate(zip((A, B), (0, 1))): c.x = v", "def f(): return B.x"],
        ["class A: pass\nclass B: pass", "def brand(c): c.x = 1", "for c in (A, B): brand(c)",
         "def f(): return B.x"],
        ["class A: pass", "[setattr(A, n, 1) for n in ('x',)]", "def f(): return A.x"],
        ["s = {}", "def configure(*, into, **k): into.update(k)", "configure(into=s, a=1)",
         "def f(): return s['a']"],
        ["globals().update(dict(a=1))", "def f(): return a"],
        ["for k, v in dict(a=1).items(): globals()[k] = v", "def f(): return a"],
        ["exec('a = 1')", "def f(): return a"],
        ["for n in 'ab': exec(f'{n} = 1')", "def f(): return a"],
        ["import torch", "t = torch.zeros(1)", "torch.nn.init.constant_(t, 1)",
         "def f(): return int(t)"],
        ["s = []", "list.append(s, 1)", "def f(): return s[0]"],
        ["class A: pass", "o = A()", "object.__setattr__(o, 'a', 1)", "def f(): return o.a"],
        ["import os", "%env HERE=1", "os.environ.setdefault('THERE', '1')",
         "def f(): return int(os.environ['HERE']) * int(os.environ['THERE'])"],
        ["def train_vae(x): raise RuntimeError",
         "class E:\n  beta = 1\n  def run(self): train_vae(1)", "es = [E()]",
         "k = es[-1].beta", "def f(): return k"],
        ["class T:\n  def __init__(self, o): self.o = o\n  def fit(self, x): x.backward()",
         "t = T(1)", "def f(): return t.o"],
        ["def train_vae(x): raise RuntimeError", "class T:\n  def update(self): train_vae(1)",
         "d = {}", "d.update(a=1)", "def f(): return d['a']"],
        ["%%notify -m done\ndef f(): return 1"],
        ["h = display(3, display_id=True)", "h.update(4)", "def f(): return int(h is not None)"],
        ["from IPython.display import display", "h = display(3, display_id=True)", "h.update(4)",
         "def f(): return int(h is not None)"],
        ["type X[T] = list[T]\ndef g[T: (int, str)](x: T) -> X[T]: return x\n"
         "class C[T]:\n  def f[U](self, x: U): return x", "def f(): return C().f(g(1))"],
    ],
)  # fmt: skip
def test_whatever_defines_is_run(cells: list[str]) -> None:
    prefix = [cell for cell in cells if cell.startswith("no = ")]
    assert value(*prefix, *(cell for cell in cells if cell not in prefix)) == 1


@pytest.mark.parametrize(
    "cells",
    [
        ["import os", "os.makedirs('a/b', exist_ok=True)"],
        ["from pathlib import Path", "Path('a/b').mkdir(parents=True)"],
        ["import os", "if not os.path.exists('a/b'): os.makedirs('a/b')"],
        ["from os import makedirs", "for d in ('a', 'a/b'): makedirs(d)"],
        ["!mkdir -p a/b && ls"],
        ["d = 'a'", "!mkdir -p {d}/b"],
        ["%%bash\nls\nmkdir -p a/b"],
        ["!mkdir a", "%%writefile a/b\nno Python ("],
        ["!mkdir a", "with open('a/b', 'w') as file: file.write('1')"],
        ["!mkdir a", "from pathlib import Path", "Path('a/b').write_text('1')"],
    ],
)
def test_folders_and_files_that_cells_make_are_there(
    cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value(*cells, "def f(): return 1")
    assert (tmp_path / "a" / "b").exists()


@pytest.mark.parametrize(
    "left_out",
    [
        "plt.imshow(t)",
        "x = t.mean()",
        "print(t.item())",
        "exec(f'train_vae({t})')",
        "with open('x', 'w') as file: print(g(t), file=file)",
        "for row in t: plt.plot(row)",
    ],
)
def test_what_changes_nothing_is_left_out(left_out: str) -> None:
    cells = ["def g(t): return t", "t = [1]", left_out, "def f(): return g(t)"]
    notebook = definitions.read(cells, lambda cell, index: True)
    assert {s.cell for s in selection.needed(notebook, {"f"}, {"train_vae"})} == {0, 1, 3}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["def g(): return 1", "def f(): return g()", "f()", "g = max"], (2, "f", "g")),
        (["def g(): return 1", "def f(): return g()", "g = max", "f()"], None),
        (["def g(): return 1", "def f(): return g()", "def g(): return 1"], None),
        (["import g", "def h(): return g.a", "def f(): return h()", "g = 3"], (2, "f", "g")),
        (["g = 1", "def f(): return g", "g = 2"], None),
        (["import g", "def f(): return g", "from a import g"], None),
        (["g = max", "def f(g): return g", "for g in range(9): pass"], None),
        (["g = max", "def f(): return g", "def h(): f()", "h()", "g = min"], (3, "f", "g")),
        (["g = max", "class f: a = g", "f.b = 1", "g = min"], (2, "f", "g")),
    ],
)
def test_names_that_are_bound_anew_below_the_last_use(
    cells: list[str], expected: tuple[int, str, str] | None
) -> None:
    notebook = definitions.read(cells, lambda cell, index: True)
    assert rebinding.outlived(notebook.statements, ["f"]).get("f") == expected


def test_what_was_bound_before_a_part_was_last_used_is_judged_as_of_then() -> None:
    cells = [
        "g = max",
        "class Encoder: a = g",
        "def f(): 1",
        "Encoder()",
        "g = min",
        "TUNED_BETA = 1",
    ]
    notebook = definitions.read(cells, lambda cell, index: True)
    found = rebinding.outlived(notebook.statements, ["Encoder", "f", "TUNED_BETA"])
    assert found == dict.fromkeys(["Encoder", "f"], (3, "Encoder", "g"))


def test_packages_that_are_missing_do_nothing() -> None:
    source = "import no_such_logger\ndef f():\n    no_such_logger.log(1)\n    return 1"
    assert value(source) == 1


def test_exit_in_a_definition_ends_nothing() -> None:
    outcome = run("def f(): return 1", "C = exit()")
    assert outcome.errors["C"]["type"] == "SystemExit"


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_read(cells: list[str]) -> None:
    notebook = definitions.read(cells, lambda cell, index: True)
    selection.needed(notebook, {"f"}, {"train_vae"})


def test_descriptions_of_errors_name_cell_and_line() -> None:
    outcome = run("def f():\n    return 1 / 0")
    with pytest.raises(ZeroDivisionError) as caught:
        outcome.namespace["f"]()
    assert execution.describe(caught.value)["where"] == "cell 1, line 2"


def test_objects_that_are_changed_several_at_once_are_changed() -> None:
    cells = ["class C: pass\nclass D: pass", "C.a, (D.b, *rest) = 1, (2, 3)"]
    assert value(*cells, "def f(): return C.a + D.b") == 3


@pytest.mark.parametrize(
    ("cell", "error", "told"),
    [
        ("    TUNED_BETA = beta", None, True),
        ("best, TUNED_BETA = 1, beta", None, True),
        ("TUNED_BETA: float = min(found)", {"type": "ValueError", "cell": 3}, True),
        ("# TUNED_BETA = beta", None, False),
        ("print(TUNED_BETA == 3)", None, False),
    ],
)
def test_what_came_of_work_that_is_not_repeated_is_to_be_written_down(
    cell: str, error: dict[str, Any] | None, told: bool
) -> None:
    errors = {"TUNED_BETA": error} if error else {}
    notebook = definitions.read(["import torch", cell], lambda cell, index: True)
    bound = {name for s in notebook.statements for name in s.binds}
    found = undefined(Definitions(variables=bound, errors=errors), "TUNED_BETA")
    assert ("set it to what came of that" in found.message) is told
    assert isinstance(found, NotAttempted) is not told


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("d = {'a': 1.5}\ndef f(): return f'v {d['a']:.2f} {{x}}'", "v 1.50 {x}"),
        ("def f(): return f'{'\\n'.join(['p', 'q'])!r:>8}'", "  'p\\nq'"),
        ("n = 3\ndef f(): return f'{n:>{n}}{'a' + \"b\":>5}{'{'}'  # it's", "  3   ab{"),
        ("def f(): return rf'\\d{'x'}' 'it\\'s {' f\"{len('a\\n')}\"", "\\dxit's {2"),
    ],
)
def test_strings_that_newer_pythons_read_are_read(source: str, expected: str) -> None:
    assert value(source) == expected


@given(st.text(alphabet="fr'\"{}[]:!\\\n #ab1", max_size=40))
def test_what_is_respelt_says_the_same(text: str) -> None:
    """Where this Python reads it as it stands."""
    try:
        expected = eval(text, {"a": 1, "b": 2, "ab": 3})
    except Exception:
        newer.older(text)
        return
    if isinstance(expected, str | int):
        assert eval(newer.older(text), {"a": 1, "b": 2, "ab": 3}) == expected
