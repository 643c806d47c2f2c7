"""How a check can end, other than by passing."""

from __future__ import annotations

from autograder.contract import MISCONCEPTIONS


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


class Raised(Unchecked):
    """Student code raised; `type`, `text`, `where` and `name` are what the worker says of it."""

    def __init__(self, error: object) -> None:
        told = error if isinstance(error, dict) else {}
        self.type, self.text = str(told.get("type", "Exception")), str(told.get("message", ""))
        self.where, self.name = str(told.get("where", "")), str(told.get("name", ""))
        place = f" in {self.where}" if self.where else ""
        self.mismatch = "expected all tensors to be on the same device" in self.text.lower()
        super().__init__(f"Your code raised {self.type}{place}: {self.text or 'no message'}.")
        self.misconception = self._recognised()

    def _recognised(self) -> str | None:
        text = self.text.lower()
        if self.type == "MemoryError" or "allocate memory" in text or "not enough memory" in text:
            return "out-of-memory"
        if "cuda" in text or "nvidia" in text:  # workers are asked for the CPU alone
            return "hard-coded-device"
        if self.type == "AttributeError" and not self.where and "has no attribute" in text:
            return "not-defined"
        if self.type == "TypeError" and not self.where and "argument" in text:
            return "wrong-signature"
        return None


class Stopped(Unchecked):
    """The worker ended, was ended by the clock, or broke the form of the wire."""
