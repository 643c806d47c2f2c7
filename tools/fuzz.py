"""Feed the readers of what students hand in with spoilt input: `python -m tools.fuzz --cases N`.

Each case is made of a real one by a few random cuts, repeats and insertions, and is known by its
number: whatever is found is made again by `--target NAME --first NUMBER --cases 1`. A reader may
read or refuse in the way it promises; any other exception, and any case that takes seconds, is a
finding.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from autograder import notebook, submission
from autograder.worker import wire
from tests import corpus
from tests.mutants import REFERENCE
from tests.system import worker_module

definitions = worker_module("definitions")
rebinding = worker_module("rebinding")
selection = worker_module("selection")

SLOW = 5.0  # seconds; a case takes less than a hundredth of one
BATCH = 5000  # cases of one process at a time
SHOWN = 20  # findings

_JSON_TOKENS = [
    *("null", "true", "-1", "0", "1e999", "-0.0", "NaN", "Infinity", "9" * 30, "1" * 5000),
    *('"', '""', '"\\ud800"', '"\\u0000"', "{}", "[]", "[[", "]]", "{", "}", ",", ":"),
    *('{"l": [', '{"d": [[', '{"t": 0}', '{"h": 0}', '{"f": "nan"}', '{"n": 1}', '"tensors"'),
    *('"cells"', '"source"', '"metadata"', '"nbgrader"', '"grade_id"', '"worksheets"', '"id"'),
    *('"beta-zero-answer"', '"dtype": "bool"', '"shape": [0]', '"ready"', '"errors"', '"names"'),
]
_PYTHON_TOKENS = [
    *("\n", "\n    ", "\t", "\f", "\r", "\r\n", "\x00", "\\\n", "\ufeff", "\u2028", "\u00aa", "é"),
    *("(", ")", "[", "]", "{", "}", '"""', "'", 'f"{', "}}", "#", "@", "->", ":=", "...", "**"),
    *("%%time\n", "%%bash\n", "%matplotlib inline\n", "!ls\n", "?x\n", "x?\n", "x = !ls\n"),
    *("def f():\n", "class C:\n", "lambda *a: ", "async ", "await ", "yield ", "global x\n"),
    *("for i in x:\n", "while 1:\n", "try:\n", "except* E:\n", "with a as b:\n", "match x:\n"),
    *("case {**r}:\n", "import a.b as c\n", "from . import x\n", "from __future__ import z\n"),
    *("del x\n", "if x:\n", "else:\n", "return\n", "nonlocal y\n", "1" * 5000, "1e400", "0x"),
    *("torch", "VAE", "train_vae(", "train_autoencoder(", "TUNED_BETA = ", "Encoder", "-" * 500),
    *(
        "(" * 300,
        "[" * 150 + "]" * 150,
        "a." * 500,
        "not " * 300,
        "x if y else ",
        "# -*- coding: x",
    ),
]


def spoilt(text: str, rng: random.Random, tokens: list[str]) -> str:
    """The text after a few cuts, repeats, exchanges and insertions."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 0, 1, 2, 5, 20)))
        part = text[start:end]
        match rng.randrange(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + part * rng.choice((1, 2, 10)) + text[end:]
            case 2:
                place = rng.randrange(len(text) + 1)
                text = text[:place] + part + text[place:]
            case 3:
                text = text[:start] + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000))))
                text += part
            case _:
                text = text[:start] + rng.choice(tokens) + text[start:]
    return text


_ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**40, 0.5, 1e300, float("nan")),
    *("", "x", "nan", "bool", "float32", "code", "markdown", "beta-zero-answer", "\ud800\x00"),
    *(
        [],
        {},
        [[]],
        [None],
        [0, 1],
        {"l": []},
        {"t": 0},
        {"t": 9},
        {"h": 0},
        {"f": "inf"},
        {"n": 1},
    ),
    *({"d": [[1, 2]]}, {"u": [{"t": 0}]}, {"dtype": "int64", "shape": []}, ["a", "b"] * 50),
]


def misshapen(value: Any, rng: random.Random) -> Any:
    """A JSON value with parts that are left out, repeated, nested or something else."""
    if rng.random() < 0.03:
        return rng.choice(_ODD)
    if isinstance(value, dict):
        kept = {k: misshapen(v, rng) for k, v in value.items() if rng.random() > 0.02}
        if kept and rng.random() < 0.02:
            kept[rng.choice(("l", "d", "t", "cells", "source", "id", "p", "x"))] = rng.choice(_ODD)
        return kept
    if isinstance(value, list):
        made = [misshapen(v, rng) for v in value]
        if made and rng.random() < 0.05:
            again = rng.choice(made)
            made += [again] * rng.choice((1, 3) if isinstance(again, dict | list) else (1, 3, 100))
        return [made] if rng.random() < 0.01 else made
    if type(value) is int and rng.random() < 0.1:
        return value + rng.choice((-1, 1, 100))
    return value


def spoilt_json(text: str, rng: random.Random) -> str:
    """A JSON text, spoilt as text or, mostly, in what it holds."""
    if rng.random() < 0.2:
        return spoilt(text, rng, _JSON_TOKENS)
    return json.dumps(misshapen(json.loads(text), rng))


@cache
def _frames() -> list[tuple[str, bytes]]:
    """Headers and bodies of real frames."""
    x = torch.rand(2, 3)
    values: list[Any] = [
        {"q": x, "rec": x.requires_grad_()},
        (x.sum(), {"rec_loss": 0.5, "kl_loss": float("nan")}),
        [x, x > 0.5, x.half(), torch.zeros(0, 3)],
        [[1, [2, [3, {"a": (None, True, "text")}]]]],
        {"operations": [["aten.relu", [0], {}], ["aten.add", [0, 1], {"alpha": 1}]]},
    ]
    made = []
    for value in values:
        tensors: list[torch.Tensor] = []
        encoded = wire.encode(value, tensors, lambda kept: wire.Handle(0, "x"))
        stream = io.BytesIO()
        wire.write_frame(stream, {"value": encoded}, tensors)
        header, _ = struct.unpack("!IQ", stream.getvalue()[:12])
        text = stream.getvalue()[12 : 12 + header].decode()
        made.append((text, stream.getvalue()[12 + header :]))
    broken = [{"cell": 1, "line": 2, "message": "m", "names": ["VAE"]}]
    read = {"variables": ["x"], "broken": broken, "outlived": {"VAE": [3, "VAE", "x"]}}
    ready = {"defined": ["VAE"], "errors": {"VAE": {"type": "E", "cell": 1}}}
    made.append((json.dumps({"ready": ready, "read": read, "tensors": []}), b""))
    return made


def fuzz_wire(rng: random.Random) -> None:
    """A frame from a worker."""
    text, body = rng.choice(_frames())
    header = spoilt_json(text, rng).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)] + rng.randbytes(rng.randrange(4))
    sizes = [len(header), len(body)]
    if rng.random() < 0.1:
        sizes[rng.randrange(2)] += rng.choice((-1, 1, 2**20, 2**31))
    prefix = struct.pack("!IQ", *(max(s, 0) % 2**32 for s in sizes))
    with contextlib.suppress(wire.WireError, EOFError):
        found, tensors = wire.read_frame(io.BytesIO(prefix + header + body))
        if "ready" in found:
            submission._definitions(found.get("read"), found["ready"])
        else:
            wire.Decoder(tensors)(found.get("value"))


@cache
def _notebooks() -> list[str]:
    """The JSON of notebooks of both formats, with outputs and answers."""
    whole = json.loads(REFERENCE.read_text(encoding="utf-8"))
    cells = [c for c in whole["cells"] if c["cell_type"] == "markdown" or len(c["source"]) < 4]
    made = []
    for start in range(0, len(cells), 6):
        made.append(json.dumps({**whole, "cells": cells[start : start + 6]}))
    old = {"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []}
    text = {"cell_type": "heading", "level": 2, "source": "A heading", "metadata": {}}
    made.append(json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": [old, text]}]}))
    return made


def fuzz_notebook(rng: random.Random) -> None:
    """The text of a notebook file."""
    text = spoilt_json(rng.choice(_notebooks()), rng)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        data = (
            data[: rng.randrange(len(data))] + rng.randbytes(2) + data[rng.randrange(len(data)) :]
        )
    path = _scratch() / "vae.ipynb"
    path.write_bytes(data)
    with contextlib.suppress(notebook.NotebookError):
        made = notebook.read(path)
        assert all(isinstance(cell, str) for cell in made.cells)


@cache
def _scratch() -> Path:
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _sources() -> list[str]:
    """Code cells of student work, the short ones."""
    names = corpus.whole()
    cells = [c.source for n in names for c in corpus.submission(n).cells if c.cell_type == "code"]
    return sorted({cell for cell in cells if 0 < len(cell) < 900})


def fuzz_definitions(rng: random.Random) -> None:
    """Cells of code."""
    cells = [spoilt(rng.choice(_sources()), rng, _PYTHON_TOKENS) for _ in range(rng.choice((1, 2)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the student's syntax
        found = definitions.read(cells, lambda cell, index: True)
        promised = {"VAE", "Encoder", "train_vae"}
        selection.needed(found, promised, {"train_vae"})
        rebinding.outlived(found.statements, promised)


TARGETS: dict[str, Callable[[random.Random], None]] = {
    "wire": fuzz_wire,
    "notebook": fuzz_notebook,
    "definitions": fuzz_definitions,
}


def findings(target: str, first: int, cases: int) -> list[str]:
    """What of these cases is neither read nor refused as promised."""
    found = []
    for number in range(first, first + cases):
        began = time.monotonic()
        try:
            TARGETS[target](random.Random(f"{target}/{number}"))
        except Exception:
            found.append(f"{target}, case {number}: {traceback.format_exc()}")
        if time.monotonic() - began > SLOW:
            found.append(f"{target}, case {number}: took {time.monotonic() - began:.1f} s")
    return found


def _batches(targets: list[str], first: int, cases: int) -> Iterator[tuple[str, int, int]]:
    for start in range(first, first + cases, BATCH):
        for target in targets:
            yield target, start, min(BATCH, first + cases - start)


def main() -> None:
    """Run the cases side by side; the exit status is 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of every target")
    options = parser.parse_args()
    batches = list(_batches(options.target, options.first, options.cases))
    found = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress() as progress:
        bar = progress.add_task("cases", total=options.cases * len(options.target))
        for batch, made in zip(
            batches, pool.map(findings, *zip(*batches, strict=True)), strict=True
        ):
            for text in made[: max(SHOWN - found, 0)]:
                progress.console.print(text, markup=False, highlight=False)
            found += len(made)
            progress.advance(bar, batch[2])
    print(f"{options.cases} cases of each of {', '.join(options.target)}: {found} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
