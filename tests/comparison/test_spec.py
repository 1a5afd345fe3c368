"""What a comparison is: read strictly, with the file and the key in every error; the shipped ones are sound."""

import pytest
from comparison.specs import spec, write

from melpatch.comparison.spec import Task, parse_task, read_spec, shipped
from melpatch.errors import ConfigError


def test_a_spec_says_what_it_says(tmp_path):
    found = spec(tmp_path)
    assert [one.name for one in found.methods] == ["random", "mine"]
    assert found.sound.exclude_splits == ("1",)
    assert found.tasks[0] == Task(
        name="birds", data="birds.csv", split_column="fold", split=("1", "2")
    )
    assert found.budget(None).lengths == (("steps", 10.0), ("steps", 1e6))
    assert found.budget("large").lengths == ((None, 0.0),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Two ways"', "", "title"),
        (
            'recipe = "maskspec"',
            'recipy = "maskspec"',
            r"methods\[1\]: unknown key 'recipy'; known: name, recipe",
        ),
        (
            "seeds = [0, 1]",
            "seeds = [0, 0]",
            r"budgets\[0\]: seeds = .*allowed: one or more, all different",
        ),
        (
            "steps = [10",
            "epochs = [3]\nsteps = [10",
            r"budgets\[0\]: steps and epochs = .*allowed: only one of these lists",
        ),
        ("steps = [10", "steps = [0", r"steps = .*allowed: numbers above 0"),
        ('["knn"]', '["nearest"]', "unknown protocol 'nearest'; "),
        ('["linear C=1.0"]', '[""]', r"tasks\[1\]: protocols = ''; allowed: a protocol's name"),
        ('"--lr 1e-3"', '"--lr \'1e-3"', r"methods\[1\]: flags = .*No closing quotation"),
        (
            'name = "mine"',
            'name = "random"',
            r"methods.name = \['random', 'random'\]; allowed: different names",
        ),
        ('name = "words"', 'name = ""', r"tasks\[1\]: name = ''"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=rf"spec\.toml.*{message}"):
        spec(tmp_path, (old, new))


def test_a_spec_is_a_file_or_a_shipped_one(tmp_path):
    assert read_spec(str(write(tmp_path))).title == "Two ways"
    assert read_spec("pretext") == shipped()["pretext"]
    with pytest.raises(
        ConfigError,
        match="spec = 'nope'; allowed: a TOML file, or one of alignment, augmentations",
    ):
        read_spec("nope")
    with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read"):
        read_spec("nope.toml")
    with pytest.raises(ConfigError, match="budget = 'huge'; allowed: small, paper"):
        read_spec("pretext").budget("huge")


def test_a_task_is_spelled_in_a_word():
    assert parse_task("a b=x/y.csv") == Task(name="a b", data="x/y.csv")
    assert parse_task("a=y.csv:fold") == Task(name="a", data="y.csv", split_column="fold")
    assert parse_task("a=y.csv:fold:1,2") == Task(
        name="a", data="y.csv", split_column="fold", split=("1", "2")
    )
    for place in ("s3://bucket/shards", "http://host:8000/shards", "C:\\data\\y.csv"):
        assert parse_task(f"a={place}") == Task(name="a", data=place)
        assert parse_task(f"a={place}:fold:1") == Task(
            name="a", data=place, split_column="fold", split=("1",)
        )
    for text in ("y.csv", "a=", "=y.csv", "a=y.csv:fold:1:2"):
        with pytest.raises(
            ConfigError, match=r"task = .*NAME=labels\.csv:split_column:split,split"
        ):
            parse_task(text)
