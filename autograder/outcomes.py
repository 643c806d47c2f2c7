"""How a check can end, other than by passing."""

from __future__ import annotations

import re
import unicodedata

from autograder.contract import MISCONCEPTIONS

TEXT_LIMIT = 1000  # characters of a message
# by which a log gives orders to what runs CI: GitHub's, Azure's and TeamCity's
_COMMANDS = (("::", ": :"), ("##", "# #"))


def printable(text: str) -> str:
    """Text on one line without control, bidirectional or escape characters, and not too long.

    It may come from a student, and ends in terminals, logs and pages.
    """
    line = " ".join(text[: 2 * TEXT_LIMIT].split())
    kept = "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in line)
    for command, harmless in _COMMANDS:
        while command in kept:
            kept = kept.replace(command, harmless)
    return kept if len(kept) <= TEXT_LIMIT else f"{kept[:TEXT_LIMIT]}…"


class Wrong(Exception):
    """The student's answer is wrong: points are lost, and the cause is named if it is known."""

    def __init__(self, message: str, misconception: str | None = None) -> None:
        if misconception is not None and misconception not in MISCONCEPTIONS:
            raise ValueError(f"{misconception!r} is not in the vocabulary of misconceptions")
        super().__init__(message)
        self.message, self.misconception = message, misconception


class Unchecked(Wrong):
    """The promise could not be checked: the code raised, is missing, or ran out of something."""


class NotAttempted(Unchecked):
    """There is no work to check yet."""


_SIGNS = {
    "wrong-channels": ("running_mean should contain", "channels, but got"),
    "wrong-shape": (
        "shapes cannot be multiplied",
        "is invalid for input of size",
        "must match the size of tensor",
        "sizes of tensors must match",
        "dimension out of range",
    ),
}


_LAYERS = "Conv|Linear|BatchNorm|LeakyReLU|ReLU|Sigmoid|Tanh|Flatten|Sequential|ELU|GELU"
_OF_TENSORS = "shape|size|dim|view|reshape|flatten|squeeze|unsqueeze|chunk|mean|sum|exp|detach"
_GPU = re.compile(r"cuda|nvidia|\b(mps|xpu|xla)\b|accelerator device")
_HINTS = (
    (re.compile("'tuple' object is not callable"), " Does a comma end the line that makes it?"),
    (
        re.compile(
            rf"(got \(|not |(?<!attribute )'|argument 'input'.*)({_LAYERS})\w*+"
            rf"(?!' object has no attribute '(?!({_OF_TENSORS})'))"
        ),
        " `nn.X(...)` makes a layer: call what it makes, `layer(x)`, or use the function of `F`.",
    ),
)


class Raised(Unchecked):
    """Student code raised; `type`, `text`, `where` and `name` are what the worker says of it."""

    def __init__(self, error: object) -> None:
        told = error if isinstance(error, dict) else {}
        told = {k: v[:TEXT_LIMIT] for k, v in told.items() if isinstance(v, str)}
        self.type, self.text = told.get("type", "Exception"), told.get("message", "")
        self.where, self.name = told.get("where", ""), told.get("name", "")
        self.by_itself = told.get("by") == "itself"  # and not by a library that it calls
        self.text = self.text.partition(", but expected one of:")[0]  # all that torch would take
        place = f" in {self.where}" if self.where else ""
        self.mismatch = "expected all tensors to be on the same device" in self.text.lower()
        super().__init__(
            f"Your code raised {self.type}{place}: {self.text.removesuffix('.') or 'no message'}."
        )
        self.message += next((hint for sign, hint in _HINTS if sign.search(self.text)), "")
        self.misconception = self._recognised()
        if self.misconception == "out-of-memory":
            self.message = f"Your code asked{place} for more memory than it is given ({self.type})."
        if self.misconception == "hard-coded-device":
            self.message = (  # torch's own words differ from build to build
                f"Your code asks{place} for a GPU by name, where there may be none ({self.type}): "
                "use the device that it is given, or that of the tensors it is given."
            )

    @property
    def likely(self) -> str | None:
        """The misconception that such an error is a sign of, where no other was found."""
        text = self.text.lower()
        for slug, signs in _SIGNS.items():
            if any(sign in text for sign in signs):
                return slug
        return None

    def _recognised(self) -> str | None:
        text = self.text.lower()
        if self.type == "MemoryError" or "allocate memory" in text or "not enough memory" in text:
            return "out-of-memory"
        if _GPU.search(text):  # workers are asked for the CPU alone
            return "hard-coded-device"
        if self.type == "AttributeError" and not self.where and "has no attribute" in text:
            return "not-defined"
        if self.type == "TypeError" and not self.where and "argument" in text:
            return "wrong-signature"
        return None


class Stopped(Unchecked):
    """The worker ended, was ended by the clock, or broke the form of the wire."""
