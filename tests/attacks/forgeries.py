"""Speaking on the wire: answers that no worker gives, on every descriptor."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.endings import sampling

LOST = "disturbed"


def forged(name: str, change: str, says: str = LOST, **rest: object) -> dict[str, object]:
    """Every answer after the call is what an expression makes of `h` and `t`."""
    return sampling(name, f"forge(lambda h, t: {change})", says, **{"marks": False, **rest})


def beta(name: str, body: str, last: object = "", **rest: object) -> dict[str, object]:
    """An attack while TUNED_BETA is defined; last: what is defined after it."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    cell = f"def _attack():\n    ran()\n{lines}    return 1.0\n\n\nTUNED_BETA = _attack()\n{last}"
    return {"name": name, "task": "beta-tuning", "cell": cell, **rest}


def whole(name: str, value: str, **rest: object) -> dict[str, object]:
    """TUNED_BETA arrives as a JSON value, once it is asked for."""
    body = (
        "wire, serve = sys.modules['wire'], sys.modules['serve']\n"
        "read = serve.Session.read_global\n"
        "def told(self, name):\n"
        "    if name == 'TUNED_BETA':\n"
        f"        ran(); forge_value({value})\n"
        "    return read(self, name)\n"
        "serve.Session.read_global = told"
    )
    return beta(name, body, **{"says": LOST, "marks": False, **rest})


ATTACKS = family(
    "wire",
    whole("huge-integer", "10**400"),
    whole("huge-number", "{'n': 10**400}"),
    whole("huge-integer-in-a-list", "{'l': [10**400]}", says=f"{LOST}|float"),
    whole("nan", "float('nan')", says="positive number"),
    whole("text-that-is-no-float", "{'f': 'one'}"),
    whole("unknown-form", "{'pickle': 'gASVAA=='}"),
    whole("missing-tensor", "{'t': 7}"),
    whole("tensor-by-name", "{'t': 'x'}"),
    whole("handle-without-number", "{'h': None}"),
    whole("handle", "{'h': 0, 'k': 'module VAE'}", says="float"),
    whole("reference", "{'r': 0, 'p': []}"),
    whole("true", "True", says="float"),
    forged("no-json", "frame('{')"),
    forged("no-object", "frame('[]')"),
    forged("nested", "frame('[' * 100000)"),
    forged(
        "nested-values", """frame('{"value": ' + '{"l": [' * 90 + ']}' * 90 + ', "tensors": []}')"""
    ),
    forged("half-a-frame", "struct.pack('!IQ', 100, 0) + b'x'", "not finish"),
    forged("half-a-head", "b'x'", "not finish"),
    forged("huge-head", "struct.pack('!IQ', 2**32 - 1, 0)"),
    forged("huge-body", "struct.pack('!IQ', 2, 2**63) + b'{}'"),
    forged("a-promise-of-much", "struct.pack('!IQ', 2, 100 << 20) + b'{}'", "not finish"),
    forged(
        "empty-but-huge",
        """frame('{"value": null, "tensors": [{"dtype": "int8", "shape": [0'"""
        """ + ', 500000000' * 7 + ']}]}')""",
    ),
    forged("impossible-shape", """frame('{"tensors": [{"dtype": "int8", "shape": [-1]}]}')"""),
    forged(
        "exotic-dtype", """frame('{"tensors": [{"dtype": "complex64", "shape": [1]}]}', b'x' * 8)"""
    ),
    forged("another-kind-of-answer", "({'open': True}, [])"),
    forged("an-end", "({'ended': 0}, [])"),
    forged("an-error-that-is-none", "({'error': 5}, [])", "not defined"),
    forged(
        "an-error-of-odd-fields",
        "({'error': {'type': [1], 'message': {'a': 1}, 'where': 1e308, 'name': None}}, [])",
        "not defined",
    ),
    sampling("everywhere", "everywhere(b'x' * 100)", LOST, marks=False),
    sampling(
        "everywhere-an-answer",
        """everywhere(frame('{"value": true, "tensors": []}'))""",
        "a bool|disturbed",
        marks=False,
    ),
    sampling(
        "endless",
        'while True:\n    everywhere(frame(\'{"value": null, "tensors": []}\') * 100)',
        "disturbed|nothing|not finish",
        marks=False,
    ),
    sampling(
        "stolen-questions",
        "if os.fork() == 0:\n    while True:\n        for n in range(3, 9):\n"
        "            try:\n                os.read(n, 1)\n            except OSError:\n"
        "                pass",
        "disturbed|not finish|nothing",
        marks=False,
    ),
    beta(
        "odd-definitions",
        "forge(lambda h, t: ({'ready': {**h['ready'], 'variables': 5, 'errors': [1],"
        " 'broken': [{'names': 5}, 7]}}, t) if 'ready' in h else (h, t))",
        says="samples|reconstructions|disturbed",
        marks=False,
    ),
    beta(
        "no-definitions",
        "forge(lambda h, t: ({'ready': {'defined': 5}}, t) if 'ready' in h else (h, t))",
        says="not defined",
        honest=None,
    ),
    beta(
        "definitions-of-another-kind",
        "forge(lambda h, t: ({'ready': 5}, t) if 'ready' in h else (h, t))",
        says="cell|again and again",
        marks=False,
    ),
    beta(
        "a-position-of-another-kind",
        "forge(lambda h, t: ({'progress': ['a', None]}, t) if 'progress' in h else (h, t))",
        says="cell|again and again",
        last="VAE.later = 1",
        marks=False,
    ),
    {
        "name": "a-session-that-does-not-read",
        "task": "ae-training",
        "cell": (
            "def train_autoencoder(*anything):\n"
            "    wire, write = sys.modules['wire'], sys.modules['wire'].write_frame\n"
            "    def last(stream, header, tensors):\n"
            "        write(stream, header, tensors)\n"
            "        os.kill(os.getpid(), signal.SIGSTOP)\n"
            "    wire.write_frame = last\n"
            "    return []\n"
        ),
        "says": "not finish",
        "marks": False,
    },
)
