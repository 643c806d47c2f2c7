"""The source of a cell, as IPython takes it, in plain Python."""

from __future__ import annotations

import ast
import re

import newer

_MAGIC = re.compile(r"^(\s*)(?:[%!]|\?{1,2}\S|\S.*?\?{1,2}\s*$)")
_TIMED = re.compile(r"^(\s*)%time\s+(?=\S)")
_MAGIC_VALUE = re.compile(r"^(\s*[\w, .\[\]]+=\s*)([%!].*)$")
# what a cell writes for another to import counts as if it were the notebook's own
WRITTEN_MODULE = re.compile(r"\s*%%(?:write)?file\s+(?:-a\s+)?['\"]?([^\n'\"]+)\.py['\"]?\s*\n")
_KEPT_CELL_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python3", "%%python")
MAGICS = 500  # of a cell; a cell with more does not parse


def plain_python(source: str) -> str:
    """The source of a cell without the magics, prompts, shell lines and help marks of IPython."""
    source = _without_prompts(source)
    first = source.lstrip().split(None, 1)[0] if source.strip() else ""
    if first.startswith("%%"):
        if first not in _KEPT_CELL_MAGICS and not WRITTEN_MODULE.match(source):
            return ""
        source = source.replace(first, "#", 1)
    lines = source.split("\n")
    for _ in lines[:MAGICS]:
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            if not _blank_magic(lines, error.lineno or 0):
                break
        except (ValueError, RecursionError, MemoryError):
            break
    plain = "\n".join(lines)
    return plain if _parses(plain) or not _parses(made := newer.older(plain)) else made


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_BLANK_LINES = re.compile(r"\A([^\S\n]*(\n|\Z))+")  # at the start of a cell
# as IPython has it: of the first lines, whether there are prompts; of every line, what they are
_PROMPTS = (
    (re.compile(r">>>( |$)"), re.compile(r"^(>>>|\.\.\.)( |$)", re.MULTILINE)),
    (re.compile(r"In \[\d+\]: ?"), re.compile(r"^(In \[\d+\]| *\.{3,}): ?", re.MULTILINE)),
)


def _without_prompts(source: str) -> str:
    """The source without what IPython takes off: an indent of the whole cell, and prompts.

    What no editor shows goes as well: a byte order mark, null bytes, halves of characters.
    """
    source = source.removeprefix("\ufeff").replace("\0", "")
    source = source.encode(errors="replace").decode()
    written = _BLANK_LINES.sub("", source)
    indent = written[: len(written) - len(written.lstrip(" \t"))]
    if indent:
        source = re.sub(f"^{indent}", "", source, flags=re.MULTILINE)
    begin = _BLANK_LINES.sub("", source).split("\n", 2)[:2]
    for first, every in _PROMPTS:
        if any(map(first.match, begin)):
            source = every.sub("", source)
    return source


def _blank_magic(lines: list[str], number: int) -> bool:
    """Replace the magic at a line that does not parse, with its continuations, if it is one."""
    if not 1 <= number <= len(lines):
        return False
    first = number - 1
    plain = _without_magic(lines[first])
    if plain is None:
        return False
    while lines[first].endswith("\\") and first + 1 < len(lines):
        lines[first] = ""
        first += 1
    lines[first] = ""
    lines[number - 1] = plain
    return True


def _without_magic(line: str) -> str | None:
    """A line without IPython's syntax, or None where it has none."""
    timed = _TIMED.match(line)
    if timed:
        return timed[1] + line[timed.end() :]
    value = _MAGIC_VALUE.match(line)
    if value:
        return value[1] + "None"
    magic = _MAGIC.match(line)
    return magic[1] + "pass" if magic else None
