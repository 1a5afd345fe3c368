"""HTML: whatever a text holds, it is shown and never obeyed."""

import base64
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.markup import data_uri, element, joined, number, table, text


class Reader(HTMLParser):
    """The elements and the text of a page, as a browser reads them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</p></style><script>",
    "&lt;script&gt;",
    "<!-- ",
    "]]>",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_in_content_and_in_attributes(name):
    page = Reader(element("p", name, title=name))
    assert page.elements == [("p", {"title": name})]
    assert page.text == name


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs"))))
def test_any_text_comes_back_as_it_was(value):
    page = Reader(element("td", value, title=value))
    assert page.elements == [("td", {"title": value})]
    assert page.text == value


def test_control_characters_and_bytes_that_are_no_letters_are_shown():
    page = Reader(text("a\x1b[2J\u202eb\udcff"))
    assert page.text == "a\ufffd[2J\ufffdb\\udcff"
    page.text.encode("utf-8")


def test_html_is_not_escaped_twice_and_elements_nest():
    inner = element("b", "<1>")
    assert element("p", "a ", inner) == "<p>a <b>&lt;1&gt;</b></p>"
    assert joined(["<", inner]) == "&lt;<b>&lt;1&gt;</b>"


def test_attributes_are_spelt_as_in_html():
    assert element("img", src="x", aria_label="y", class_="z", hidden=True) == (
        '<img src="x" aria-label="y" class="z" hidden>'
    )
    with pytest.raises(ValueError, match="is no name of an attribute"):
        element("p", **{"on click": "x"})


def test_a_table_has_heads_numbers_to_the_right_and_dashes_for_what_is_unknown():
    page = table(["name", "n", "score"], [["<a>", 1234, 0.5], ["b", None, True]], "two rows")
    assert "<caption>two rows</caption>" in page
    assert '<th scope="row">&lt;a&gt;</th>' in page
    assert '<td class="number">1,234</td><td class="number">0.500</td>' in page
    assert "<td>\u2013</td><td>True</td>" in page
    assert "number" not in table([], [["n", 3]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (0.1234, "0.123"), (-3.0, "-3.000"), (1e-7, "1e-07"), (12345.6, "1.235e+04")],
)
def test_numbers_have_as_many_digits_as_can_be_used(value, shown):
    assert number(value) == shown


def test_content_in_an_address_comes_back():
    address = data_uri(b"\x00\xff<", "image/png")
    assert address.startswith("data:image/png;base64,")
    assert base64.b64decode(address.partition(",")[2]) == b"\x00\xff<"
