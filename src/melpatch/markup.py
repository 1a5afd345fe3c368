"""HTML in which every text is escaped, so that what strangers call their files never runs as code.

>>> element("td", "a < b", class_="number")
'<td class="number">a &lt; b</td>'
"""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VOID = {"img", "meta", "br"}
# Control characters are shown as a box: browsers drop some of them, and some turn the line around.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """A piece of HTML in which texts are already escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as HTML that shows it; a piece of HTML stays as it is."""
    if isinstance(value, Html):
        return value
    # A name that is no UTF-8 has bytes that no file of UTF-8 can hold.
    written = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return Html(escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", written)))


def joined(parts: Iterable[object]) -> Html:
    """Return pieces of HTML and texts one after the other."""
    return Html("".join(map(text, parts)))


def element(name: str, *content: object, **attributes: object) -> Html:
    """Return an element of HTML; its content is escaped where it is no HTML yet.

    Args:
        name: the name of the element, such as ``p``.
        content: what stands in it, one after the other.
        attributes: of the element; an underscore at the end of a name is dropped, others become
            hyphens, and True stands for an attribute without a value.
    """
    words = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(attribute):
            raise ValueError(f"{key!r} is no name of an attribute")
        words.append(attribute if value is True else f'{attribute}="{text(str(value))}"')
    start = f"<{' '.join(words)}>"
    if name in _VOID:
        return Html(start)
    return Html(f"{start}{joined(content)}</{name}>")


def paragraph(*content: object) -> Html:
    """Return a paragraph."""
    return element("p", *content)


def listing(items: Iterable[object]) -> Html:
    """Return a list with a bullet for each item."""
    return element("ul", *(element("li", item) for item in items))


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """Return a table; the first cell of a row is its head, and numbers below heads are to the right.

    Args:
        heads: the names of the columns; none for a table of facts, each with its name.
        rows: cells; None is shown as a dash, a number as it is printed by :func:`number`.
        caption: words above the table.
    """
    parts = [element("caption", caption)] if caption else []
    if heads:
        cells = [element("th", head, scope="col") for head in heads]
        parts.append(element("thead", element("tr", *cells)))
    parts.append(element("tbody", *(_row(row, aligned=bool(heads)) for row in rows)))
    return element("div", element("table", *parts), class_="table")


def _row(cells: Sequence[object], *, aligned: bool) -> Html:
    first, *others = cells
    shown = [element("th", _shown(first), scope="row")]
    for value in others:
        number_class = {"class_": "number"} if aligned and _is_number(value) else {}
        shown.append(element("td", _shown(value), **number_class))
    return element("tr", *shown)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> object:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and _is_number(value):
        return f"{value:,}"
    return value


def number(value: float) -> str:
    """Return a number in as many digits as a reader can use: three decimals, or four digits."""
    if 0.0005 <= abs(value) < 10 or value == 0:
        return f"{value:.3f}"
    return f"{value:.4g}"


def data_uri(content: bytes, kind: str) -> Html:
    """Return the address of content that is held in the address itself.

    Args:
        content: the bytes.
        kind: what they are, such as ``image/png``.
    """
    return Html(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}")
