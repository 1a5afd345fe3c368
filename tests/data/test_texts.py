"""Many texts in one array."""

from hypothesis import given
from hypothesis import strategies as st

from melpatch.data.texts import Texts, TextsBuilder

WORDS = st.lists(st.text(max_size=4) | st.sampled_from(["\ud800", "\udce9", "a", "é"]), max_size=6)


def built(parts):
    builder = TextsBuilder()
    for head, rests in parts:
        builder.extend(head, rests)
    return builder.done()


@given(st.lists(st.tuples(st.sampled_from(["", "a/", "é"]), WORDS), max_size=4))
def test_texts_are_kept_as_they_are_and_in_order(parts):
    expected = [head + rest for head, rests in parts for rest in rests]
    texts = built(parts)
    assert [*texts] == texts[:] == expected
    assert [*texts.rests()] == [rest for _, rests in parts for rest in rests]
    assert [*Texts.joined([texts, texts])] == expected * 2
    assert texts.first_equal().tolist() == [expected.index(text) for text in expected]


def test_different_texts_of_one_hash_are_told_apart(monkeypatch):
    texts = built([("", ["a", "b", "a"])])
    monkeypatch.setattr(Texts, "hashes", lambda self: texts.ends[:-1] * 0)
    assert texts.first_equal().tolist() == [0, 1, 0]
