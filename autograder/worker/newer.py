"""What Python reads from 3.12 on, spelt so that an earlier one reads it, too.

Quotes of the f-string's own kind and backslashes inside its braces (PEP 701); parameters of types
and the statement `type` (PEP 695).
"""

from __future__ import annotations

import ast
import re

# a name that may be followed by parameters, in brackets
_GENERIC = re.compile(
    r"(?:(?<=\n)|\A)([^\S\n]*)(?:(type)|(?:async\s+)?def|class)[^\S\n]+(\w+)[^\S\n]*"
)
_STRING = re.compile(r"(?<![\w'\"])([A-Za-z]{0,2})('''|\"\"\"|'|\")")


def older(source: str) -> str:
    """The source as an earlier Python reads it.

    Strings inside the braces of an f-string are spelt without quotes; types have no parameters.
    """
    made, i = list[str](), 0
    while i < len(source):
        begin = _STRING.match(source, i)
        generic = _GENERIC.match(source, i)
        if generic:
            end = _without_parameters(source, generic.end())
            typed = generic[2] and re.match(r"\s*=(?!=)", source[end:])
            made.append(f"{generic[1]}{generic[3]} " if typed else generic[0])
            i = end
            continue
        if source[i] == "#":
            end = source.find("\n", i)
            end = len(source) if end < 0 else end
        elif begin and "f" in begin[1].lower():
            text, end = _formatted(source, begin)
            made.append(text)
            i = end
            continue
        else:
            end = _end(source, begin) if begin else i + 1
        made.append(source[i:end])
        i = end
    return "".join(made)


def _without_parameters(source: str, start: int) -> int:
    """Where the brackets end that begin at a place of the source; the place if none do."""
    depth = 0
    for i in range(start, len(source)):
        depth += (source[i] == "[") - (source[i] == "]")
        if depth == 0:
            return i + 1 if source[i] == "]" else start
    return start


def _end(source: str, begin: re.Match[str]) -> int:
    """Where a string without fields ends."""
    i, quote = begin.end(), begin[2]
    while i < len(source) and not source.startswith(quote, i):
        i += 2 if source[i] == "\\" else 1
    return i + len(quote)


def _formatted(source: str, begin: re.Match[str]) -> tuple[str, int]:
    """An f-string, respelt, and where it ends."""
    i, quote = begin.end(), begin[2]
    made = [begin[0]]
    within: list[int] = []  # fields, one in the other: the brackets that are open in each
    while i < len(source):
        c, inner = source[i], _STRING.match(source, i)
        expression = bool(within) and within[-1] >= 0
        if not expression and source.startswith(quote, i):
            return "".join(made) + quote, i + len(quote)
        step = 1
        doubled = c in "{}" and source[i : i + 2] == 2 * c and not within
        if not expression and (doubled or c == "\\"):
            step = 2
        elif not expression and c == "{":
            within.append(0)
        elif expression and inner:
            text, i = _spelt(source, inner)
            made.append(text)
            continue
        elif expression and c in "([{":
            within[-1] += 1
        elif expression and c in ")]}" and within[-1] > 0:
            within[-1] -= 1
        elif expression and c == ":" and within[-1] == 0:
            within[-1] = -1  # what follows is a format, which may have fields again
        elif within and c == "}":
            within.pop()
        made.append(source[i : i + step])
        i += step
    return "".join(made), i


def _spelt(source: str, begin: re.Match[str]) -> tuple[str, int]:
    """A string inside braces, as a call that gives it, and where it ends."""
    if "f" in begin[1].lower():
        return _formatted(source, begin)
    end = _end(source, begin)
    try:
        value = ast.literal_eval(source[begin.start() : end])
    except (SyntaxError, ValueError):
        return source[begin.start() : end], end
    if isinstance(value, bytes):
        return f"bytes({[*value]})", end
    return f"bytes({[*value.encode(errors='replace')]}).decode()", end
