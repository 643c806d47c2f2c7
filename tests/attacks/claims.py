"""Claims: traces that differ from the computation, and what they would have the host compute."""

from __future__ import annotations

from tests.attacks.attack import family


def told(name: str, change: str, init: str = "", **rest: object) -> dict[str, object]:
    """A wrong encoder (2x2 for 3x3) whose trace is changed; init: what its constructor does."""
    cell = (
        "class Encoder(Encoder):\n"
        "    def __init__(self, nz):\n"
        "        super().__init__(nz)\n"
        "        ran()\n"
        "        self.conv3 = nn.Conv2d(64, 128, kernel_size=3, stride=3)  # 2x2\n"
        "        self.conv4 = nn.Conv2d(128, 256, kernel_size=3, stride=2, padding=1)\n"
        f"        {init or 'pass'}\n"
        "        tracing = sys.modules['tracing']\n"
        "        if hasattr(tracing, 'patched'):\n"
        "            return\n"
        "        tracing.patched, trace = True, tracing.trace\n"
        "        def lie(module, image):\n"
        "            told = trace(module, image)\n"
        f"            {change}\n"
        "            return told\n"
        "        tracing.trace = lie\n"
    )
    found = {"score": 1.0, "says": "3x3|followed|kernel"}  # the shape of the latents is right
    return {"name": name, "task": "encoder", "cell": cell, **found, **rest}


def heavy(
    name: str, op: str, args: str, kwargs: str = "{}", count: int = 1, first: str = ""
) -> dict[str, object]:
    """The trace begins with `count` operations that take too much, and ends with their sum."""
    change = (
        f"first = [{first}]\n"
        f"            big = first + [{{'op': 'aten.{op}', 'args': {args}, 'kwargs': {kwargs},"
        " 'out': {'tensor': 100000 + i, 'shape': [1]}}"
        f" for i in range({count})]\n"
        "            last = told['result']\n"
        "            told['operations'] = big + told['operations'] + [\n"
        "                {'op': 'aten.add.Tensor', 'args': [{'tensor': last}, {'tensor': 100000 + i}],\n"
        "                 'kwargs': {}, 'out': {'tensor': last, 'shape': [1]}}\n"
        f"                for i in range({count})]"
    )
    return told(name, change, says="followed|too long")  # on a busy machine, before it is too much


A = "[{'tensor': 0}]"
ONES = (
    "{'op': 'aten.ones.default', 'args': [%s], 'kwargs': {}, 'out': {'tensor': %d, 'shape': [1]}}"
)
ATTACKS = family(
    "claim",
    told("nothing", "pass", score=2.0, says="2x2"),
    told(
        "shapes",
        "fix = lambda o: [fix(p) for p in (o.values() if isinstance(o, dict) else o)]"
        " if isinstance(o, (dict, list)) and not (isinstance(o, dict) and 'shape' in o) else"
        " (o['shape'].__setitem__(slice(2, None), [3, 3])"
        " if isinstance(o, dict) and o['shape'][2:] == [2, 2] else None)\n"
        "            fix(told['operations'])",
        score=2.0,
        says="2x2",
    ),
    told("no-operations", "told['operations'] = 5"),
    told("odd-operations", "told['operations'] = [5, None, {'op': 'aten.view'}]"),
    told("no-trace", "told = [1, 2]", says="raised"),
    told("no-result", "told['result'] = 'x'"),
    told(
        "odd-numbers",
        "told['operations'][0]['out'] = {'tensor': -2**63, 'shape': [None]}",
        says="does not follow",
    ),
    told("no-output", "told['output'] = None", says="should return one tensor"),
    told("other-operations", "told['operations'][0]['op'] = 'os.system'"),
    told("private-operations", "told['operations'][0]['op'] = 'aten.__class__.__base__'"),
    told("values-of-another-kind", "told['values'] = [[0, 'x'], [1]]"),
    heavy("ones-by-name", "ones.default", "[]", "{'size': [2**34]}"),
    heavy("arange", "arange.default", "[2**36]"),
    heavy("eye", "eye.default", "[2**19]"),
    heavy("linspace", "linspace.default", "[0.0, 1.0, 2**36]"),
    heavy("replicate", "replication_pad2d.default", f"[{A[1:-1]}, [60000] * 4]"),
    heavy("upsample", "upsample_nearest2d.vec", f"[{A[1:-1]}, None, [4000.0, 4000.0]]"),
    heavy("replicate-twice", "replication_pad2d.default", f"[{A[1:-1]}, [2000] * 4]", count=2),
    heavy("cat", "cat.default", f"[{A} * 40000, 0]"),
    heavy(
        "matmul",
        "mm.default",
        "[{'tensor': 99999}, {'tensor': 99999}]",
        count=1500,
        first=ONES % ("[5000, 5000]", 99999),
    ),
    heavy(
        "batch-norm-by-name",
        "native_batch_norm.default",
        "[{'tensor': 99997}]",
        "{'weight': None, 'bias': None, 'running_mean': {'tensor': 99998},"
        " 'running_var': {'tensor': 99998}, 'training': False, 'momentum': 0.1, 'eps': 1e-5}",
        first=f"{ONES % ('[1]', 99998)}, {ONES % ('[2, 10000000, 1]', 99997)}",
    ),
)
