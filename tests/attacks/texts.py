"""Text that ends in a report: escapes, pages, workflow commands, turned writing."""

from __future__ import annotations

from tests.attacks.attack import family
from tests.attacks.endings import sampling

NASTY = (
    "'\\x1b[2J\\x1b]0;title\\x07\\n::error file=a::b ##[error]c ::stop-commands::x "
    "<script>alert(1)</script> \\u202egnp.exe \\ud800 \\x00 =cmd()'"
)

ATTACKS = family(
    "text",
    sampling("message", f"raise RuntimeError({NASTY})", "RuntimeError"),
    sampling("name-of-an-error", f"raise type({NASTY}.replace(chr(0), ''), (Exception,), {{}})()",
             "."),
    sampling("name-of-a-class", f"return type({NASTY}.replace(chr(0), ''), (), {{}})()", "."),
    sampling("name-that-is-missing", f"raise NameError({NASTY}, name={NASTY})", "NameError"),
    sampling("forged-message",
             f"forge(lambda h, t: ({{'error': {{'type': {NASTY}, 'where': {NASTY},"
             f" 'message': {NASTY} * 2000}}}}, []))", "."),
    {
        "name": "keys",
        "task": "vae-loss",
        "cell": f"def _loss(self, x, outputs):\n    ran()\n    return x.sum(), {{{NASTY}: 1.0}}\n"
                "VAE.loss = _loss\n",
        "says": "rec_loss",
    },
    {
        "name": "definition",
        "task": "beta-tuning",
        "cell": f"def _raise():\n    raise ValueError({NASTY})\nTUNED_BETA = _raise()\n",
        "says": "cell",
        "marks": False,
    },
)  # fmt: skip
