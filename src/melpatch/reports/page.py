"""The page of a report: one file without scripts, which opens, mails and prints anywhere."""

from collections.abc import Sequence
from typing import NamedTuple

from melpatch.markup import Html, element, joined, listing, text

# Nothing is loaded from elsewhere and nothing runs, whatever a name in the page may hold.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
GENERATOR = "melpatch report"
"""By which a file is known as a report."""
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-bottom: .25rem;
  border-bottom: 2px solid #3b6ea5; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.lead { color: #444; margin-top: 0; }
nav ul { columns: 2; padding-left: 1.2rem; }
a { color: #1f4e82; }
.table { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; color: #444; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #888; }
tbody th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9rem; max-width: 48rem; }
audio { width: 100%; max-width: 30rem; display: block; margin: .25rem 0; }
.note { border-left: 4px solid #b8860b; background: #fdf7e3; padding: .5rem .75rem; }
.missing { color: #555; font-style: italic; }
pre { background: #f5f5f5; border: 1px solid #ddd; padding: .75rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3rem; color: #555; font-size: .85rem; border-top: 1px solid #ddd; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, audio { display: none; }
  h2, h3 { break-after: avoid; }
  tr, figure, pre { break-inside: avoid; }
}
"""


class Section(NamedTuple):
    """A part of a report with a heading."""

    title: str
    parts: Sequence[Html]


def page(title: str, lead: str, sections: Sequence[Section], foot: str) -> str:
    """Return a whole HTML document.

    Args:
        title: what the report is of.
        lead: a sentence below it.
        sections: its parts in order; those without content are left out.
        foot: the last line, such as what wrote it.
    """
    shown = [section for section in sections if section.parts]
    links = [
        element("a", section.title, href=f"#part-{number}")
        for number, section in enumerate(shown, start=1)
    ]
    bodies = [
        element("section", element("h2", section.title), *section.parts, id=f"part-{number}")
        for number, section in enumerate(shown, start=1)
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="generator", content=GENERATOR),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element(
        "body",
        element("header", element("h1", title), element("p", lead, class_="lead")),
        element("nav", listing(links), aria_label="Contents"),
        element("main", joined(bodies)),
        element("footer", element("p", foot)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def note(*content: object) -> Html:
    """Return a paragraph that stands out, such as a warning."""
    return element("p", *content, class_="note")


def missing(what: str) -> Html:
    """Return a paragraph that says what is not there, and why."""
    return element("p", what, class_="missing")


def code(words: str) -> Html:
    """Return a block of text in letters of one width."""
    return element("pre", text(words))
