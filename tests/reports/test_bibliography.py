"""What objectives cite: every one names its paper, and every entry is BibTeX."""

import re

import pytest

from melpatch import registry
from melpatch.reports.bibliography import _PAPERS, bibtex, cite_key, papers_of


@pytest.mark.parametrize("name", registry.names("objectives"))
def test_the_paper_of_every_method_is_known(name):
    numbers = papers_of(registry.find("objectives", name))
    if name not in ("classify", "encoder_only"):
        assert numbers
        assert all(re.fullmatch(r"@\w+\{\S+,\n(  \w+ = \{.*\},\n)+\}", bibtex(n)) for n in numbers)


def test_the_method_itself_comes_first():
    assert papers_of(registry.find("objectives", "ssast"))[0] == "2110.09784"
    assert papers_of(registry.find("objectives", "eat"))[0] == "2401.03497"


def test_keys_are_distinct_and_braces_are_balanced():
    keys = [paper.key for paper in _PAPERS.values()]
    assert len(set(keys)) == len(keys)
    for number in _PAPERS:
        entry = bibtex(number)
        assert entry.count("{") == entry.count("}")
        assert f"eprint = {{{number}}}" in entry


def test_a_paper_that_is_not_listed_is_cited_by_its_number_alone():
    assert cite_key("2601.00001") == "arxiv2601.00001"
    assert "title" not in bibtex("2601.00001")
    assert "https://arxiv.org/abs/2601.00001" in bibtex("2601.00001")
