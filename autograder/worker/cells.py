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
# what stands below these is no code of the notebook; below any other, `%%notify`, it may be
_OTHER_CELL_MAGICS = """! bash sh script zsh fish cmd powershell html javascript js latex markdown
md svg perl ruby cython sql r julia octave bigquery system sx writefile file pypy python2 skip debug
mermaid dot css json yaml cpp c cuda cu rust fortran manim ai gpt""".split()
MAGICS = 500  # of a cell; a cell with more does not parse


def plain_python(source: str) -> str:
    """The source of a cell without the magics, prompts, shell lines and help marks of IPython."""
    source = _without_prompts(source)
    first = source.lstrip().split(None, 1)[0] if source.strip() else ""
    known = not first.startswith("%%")
    if not known:
        known = first in _KEPT_CELL_MAGICS or bool(WRITTEN_MODULE.match(source))
        if not known and first[2:].lower() in _OTHER_CELL_MAGICS:
            return _written_file(source) or _folders_of_shell(source)
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
    if not known and not _parses(plain) and not _parses(newer.older(plain)):
        return ""
    return plain if _parses(plain) or not _parses(made := newer.older(plain)) else made


_WRITTEN_FILE = re.compile(r"\s*%%(?:write)?file\s+(-a\s+)?([^\n]+)\n")
_FOLDER = re.compile(r"^(\s*)[!%]*mkdir((?:\s+(?:-p|--parents|[\w./~${}'\"-]+))+)\s*(?:$|&&|;|#)")
_VARIABLE = re.compile(r"\{(\w+)\}|\$\{?(\w+)\}?")
_SETTING = re.compile(r"^(\s*)%(?:set_)?env\s+(\w+)[\s=]\s*(\S.*)$")


def _written_file(source: str) -> str:
    """What writes the text that a cell is to write to a file, in Python; nothing for others."""
    begin = _WRITTEN_FILE.match(source)
    if begin is None:
        return ""
    path, way = begin[2].strip().strip("'\""), "a" if begin[1] else "w"
    text = source[begin.end() :].rstrip("\n") + "\n"
    return f"with open({path!r}, {way!r}) as _file: _file.write({text!r})"


def _folders_of_shell(source: str) -> str:
    """The folders that a cell for a shell makes, in Python."""
    if source.split(None, 1)[0] not in ("%%bash", "%%sh", "%%!", "%%sx", "%%system"):
        return ""
    return "\n".join(_folders(line) or "" for line in source.split("\n"))


def _folders(line: str) -> str | None:
    """A line that makes folders with `mkdir`, in Python; None for any other."""
    found = _FOLDER.match(line)
    if not found:
        return None
    words = [word.strip("'\"") for word in found[2].split() if not word.startswith("-")]
    paths = [_VARIABLE.sub(lambda v: "{" + (v[1] or v[2]) + "}", word) for word in words]
    made = ", ".join(f"f{path!r}" if "{" in path else repr(path) for path in paths)
    return f"{found[1]}for _folder in ({made},): __import__('os').makedirs(_folder, exist_ok=True)"


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
    setting = _SETTING.match(line)
    if setting:
        return f"{setting[1]}__import__('os').environ[{setting[2]!r}] = {setting[3]!r}"
    folders = _folders(line)
    if folders is not None:
        return folders
    magic = _MAGIC.match(line)
    return magic[1] + "pass" if magic else None
