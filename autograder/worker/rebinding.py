"""Names that mean something else once a promised function was last used.

A notebook that runs from top to bottom calls `train_autoencoder` before a later cell gives
`loss_of`, which it reads, another meaning. It is right as it stood when it was called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from statements import SCOPES, Statement

PARTS = ("Encoder", "Decoder")  # which others are made of


def outlived(
    statements: list[Statement], promised: Iterable[str]
) -> dict[str, tuple[int, str, str]]:
    """By promised name: the cell of a last use, of what, and what that reads that is bound anew.

    Of the name itself, or else of a part, as long as the name is bound nowhere below.
    """
    found = {name: (cell, name, anew) for name, (cell, anew) in _own(statements, promised).items()}
    last = {name: s.cell for s in statements for name in s.binds}
    for part in [found[name] for name in PARTS if name in found]:
        later = [n for n in promised if n in last and n not in found and last[n] <= part[0]]
        found |= dict.fromkeys(later, part)
    return found


def _own(statements: list[Statement], promised: Iterable[str]) -> dict[str, tuple[int, str]]:
    reads: dict[str, set[str]] = {}  # what the definitions of a name read
    readers: dict[str, set[str]] = {}  # the names whose definitions read it
    bound: dict[str, list[Statement]] = {}
    for s in statements:
        for name in s.binds:
            reads.setdefault(name, set()).update(s.reads)
            bound.setdefault(name, []).append(s)
        for name in s.reads:
            readers.setdefault(name, set()).update(s.binds)
    scopes = {name for name in bound if any(isinstance(s.node, SCOPES) for s in bound[name])}
    found = {}
    for name in promised:
        if name not in bound:
            continue
        users = (_closure(name, readers) & scopes) | {name}
        last = max(s.cell for s in statements if _uses(s, name, users))
        anew = [n for n in sorted(_closure(name, reads)) if _is_bound_anew(bound.get(n, ()), last)]
        if anew:
            found[name] = last, anew[0]
    return found


def _closure(name: str, next_to: dict[str, set[str]]) -> set[str]:
    """What is next to a name, as what its definitions read, what is next to that, and so on."""
    found, coming = set[str](), [name]
    while coming:
        more = next_to.get(coming.pop(), set()) - found
        found |= more
        coming += more
    return found - {name}


def _uses(s: Statement, name: str, users: set[str]) -> bool:
    """Whether a statement binds a name, or uses it now and not only in what it defines."""
    if name in s.binds or users & s.changes:
        return True
    return bool(users & s.reads) and not isinstance(s.node, SCOPES)


def _is_bound_anew(bindings: Iterable[Statement], last: int) -> bool:
    """Whether a name that is bound by a cell means something else in a later one.

    Another number, such as `beta = 10`, or another import is no other meaning.
    """
    before = [s.node for s in bindings if s.cell <= last]
    spelt, kinds = {ast.dump(node) for node in before}, {_kind(node) for node in before}
    later = (s.node for s in bindings if s.cell > last)
    return bool(before) and any(
        ast.dump(node) not in spelt and (_kind(node) is None or kinds != {_kind(node)})
        for node in later
    )


def _kind(node: ast.stmt) -> str | None:
    """Of a binding that is an import or a value that is written out."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import"
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return None
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return "number"
