"""A query names a file, a stretch of one, or a label."""

from math import inf

import pytest

from melpatch.errors import ConfigError
from melpatch.search.query import Stretch, parse_query


def test_files_stretches_and_labels(tmp_path):
    plain, odd = tmp_path / "a.wav", tmp_path / "a.wav@1-2"
    for path in (plain, odd):
        path.touch()
    assert parse_query(str(plain)) == Stretch(plain, 0, inf)
    assert parse_query(f"{plain}@12.5-15") == Stretch(plain, 12.5, 15)
    # The name of a file comes first, whatever it looks like.
    assert parse_query(str(odd)) == Stretch(odd)
    assert parse_query("robin", ["robin"]) == "robin"


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("@3-2", "ends before it starts"),
        ("@a-b", "neither a sound file, nor FILE@START-END in seconds, nor a label; labels: wren"),
        (".gone", "neither a sound file"),
    ],
)
def test_anything_else_is_an_error(tmp_path, ending, message):
    (tmp_path / "a.wav").touch()
    with pytest.raises(ConfigError, match=message):
        parse_query(f"{tmp_path / 'a.wav'}{ending}", ["wren"])
