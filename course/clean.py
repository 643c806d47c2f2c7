"""Student HTML, markdown and outputs, made harmless and small enough to send back."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.filters import markdown_mistune
from nbformat.v4 import new_output

from autograder.outcomes import printable

IMAGE_TYPES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
OUTPUTS = 50  # kept of one cell
TEXT = 10_000  # characters kept of one output
DRAWING = 100_000  # characters of an SVG
REENCODED = 100  # pictures of one notebook, at most, that are made smaller
IMAGES = 700_000  # characters of all pictures of one notebook
_TAGS = frozenset(
    """
    a abbr b blockquote br caption center code dd del details div dl dt em figcaption figure
    h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub
    summary sup table tbody td tfoot th thead tr tt u ul var
    """.split()
)
_ATTRIBUTES = frozenset(
    "alt align colspan rowspan height open scope start title valign width".split()
)
_PROTOCOLS = frozenset({"http", "https", "mailto", "data"})
_HIGHLIGHT = re.compile(r"[a-z][a-z0-9]?|highlight|hll")  # pygments' own classes


def html(text: str) -> str:
    """Markup without scripts, styles, names and requests: nothing that acts or calls home."""
    made: str = bleach.clean(
        text, tags=_TAGS, attributes=_allowed, protocols=_PROTOCOLS, strip=True
    )
    return made


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and re.match(r"data:image/(png|jpeg|gif);base64,", value) is not None
    if name == "href":
        return tag == "a" and re.match(r"(https?|mailto):", value) is not None
    if name == "class":
        return all(_HIGHLIGHT.fullmatch(part) for part in value.split())
    return name in _ATTRIBUTES


class _Renderer(markdown_mistune.IPythonRenderer):
    """Leaves a picture out that is not among the attachments: nbconvert's own gives up."""

    def _embed_image_or_attachment(self, src: str) -> str:
        name = src.removeprefix("attachment:")
        if name != src and name not in self.attachments:
            return "attachment-left-out"
        return str(super()._embed_image_or_attachment(src))


@pass_context
def markdown(context: Any, source: str) -> str:
    """Stands in for nbconvert's filter markdown2html, in feedback and in formgrader."""
    return rendered(source, context.get("cell", {}).get("attachments", {}))


def rendered(source: str, attachments: dict[str, Any] | None = None) -> str:
    """Markdown as harmless HTML."""
    renderer = _Renderer(escape=False, attachments=attachments or {}, exclude_anchor_links=True)
    return html(markdown_mistune.MarkdownWithMath(renderer=renderer).render(source))


_BARE = r"(?!/?(?:b|blockquote|br|center|code|em|hr|i|kbd|li|ol|p|pre|strong|sub|sup|u|ul)\s*/?>)"


def markup(source: str) -> str:
    """Markdown in which HTML is text, so that it is harmless wherever it is shown."""
    renderings = {
        markdown_mistune.MarkdownWithMath(renderer=_Renderer(escape=escape)).render(source)
        for escape in (False, True)
    }
    return source if len(renderings) == 1 else re.sub(f"<{_BARE}", "&lt;", source, flags=re.I)


def outputs(cell: dict[str, Any]) -> list[Any]:
    """The stored outputs of a code cell: texts, pictures and plain HTML."""
    told = cell.get("outputs")
    stored = [o for o in told if isinstance(o, dict)] if isinstance(told, list) else []
    made = (_output(output) for output in stored[:OUTPUTS])
    return [output for output in made if output is not None]


def _output(told: dict[str, Any]) -> Any:
    kind = told.get("output_type")
    if kind == "stream":
        name = "stderr" if told.get("name") == "stderr" else "stdout"
        return new_output("stream", name=name, text=short(_text(told.get("text"))))
    if kind == "error":
        trace = told.get("traceback")
        lines = [_text(line) for line in trace] if isinstance(trace, list) else []
        text = short("\n".join(lines) or f"{told.get('ename')}: {told.get('evalue')}")
        return new_output("stream", name="stdout", text=text)
    if kind in ("display_data", "execute_result") and isinstance(told.get("data"), dict):
        return new_output("display_data", data=_data(told["data"]))
    return None


def _data(told: dict[str, Any]) -> dict[str, str]:
    """One picture, or the text, or the HTML of an output."""
    for kind in IMAGE_TYPES:
        picture = image(kind, told.get(kind))
        if picture is not None:
            return {kind: picture}
    if "text/html" in told:
        return {"text/html": html(_text(told["text/html"])[:TEXT])}
    drawing = _text(told.get("image/svg+xml"))
    if 0 < len(drawing) <= DRAWING:  # shown as a picture, in which nothing runs
        return {"image/svg+xml": drawing}
    plain = short(_text(told.get("text/plain")))
    kinds = printable(", ".join(sorted(str(kind)[:50] for kind in told)))
    return {"text/plain": plain or f"(left out: {kinds}; see the submitted file)"}


def image(kind: str, told: object) -> str | None:
    """The picture in base64 if it is one of this kind."""
    text = "".join(_text(told).split())
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return text if raw.startswith(IMAGE_TYPES[kind]) else None


def attachments(cell: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Pictures pasted into a markdown cell."""
    told = cell.get("attachments")
    made: dict[str, dict[str, str]] = {}
    for name, data in told.items() if isinstance(told, dict) else ():
        for kind in IMAGE_TYPES:
            picture = image(kind, data.get(kind)) if isinstance(data, dict) else None
            if picture is not None and isinstance(name, str):
                made[_text(name)] = {kind: picture}
    return made


def _text(told: object) -> str:
    """Text, or lines of it, without halves of characters, which no file takes."""
    parts = told if isinstance(told, list) else [told]
    text = "".join(part for part in parts if isinstance(part, str))
    return text.encode("utf-8", "replace").decode("utf-8")


def short(text: str, limit: int = TEXT) -> str:
    """The beginning of a long text, and how much is missing."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n… {len(text) - limit} more characters are in the submitted file"


def fit_pictures(holders: list[dict[str, str]], limit: int = IMAGES) -> int:
    """Shrink the pictures of a notebook to a size in all; how many had to be left out."""
    pictures = [(data, kind) for data in holders for kind in data if kind in IMAGE_TYPES]
    if sum(len(data[kind]) for data, kind in pictures) <= limit:
        return 0
    share, room, dropped, tried = limit // len(pictures), limit, 0, 0
    for data, kind in pictures:
        small = data.pop(kind)
        if room <= 0:
            small = ""
        elif len(small) > share:
            tried += 1
            kind, small = "image/jpeg", _reencoded(small) if tried <= REENCODED else ""
        if small and len(small) <= room:
            data[kind] = small
            room -= len(small)
        else:
            data["text/plain"] = "(a picture too large to be shown here; see the submitted file)"
            dropped += 1
    return dropped


def _reencoded(picture: str) -> str:
    """The picture as a small JPEG, or nothing where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(picture)), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > 30_000_000:
                return ""
            opened.thumbnail((800, 800))
            made = io.BytesIO()
            flat = Image.new("RGB", opened.size, "white")
            flat.paste(opened, mask=opened.convert("RGBA").getchannel("A"))
            flat.save(made, "JPEG", quality=70, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return base64.b64encode(made.getvalue()).decode()
