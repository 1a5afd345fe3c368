"""AST's recipes against the published scripts."""

import pytest
from recipes.scripts import AUDIOSET, COMMANDS, ESC50, Script, script

from melpatch.recipes.base import recipe

# Steps of a run on the published number of clips, and the published script (Gong et al. 2021).
SCRIPTS = {
    "ast_audioset": (
        813_785,
        Script(
            1024,
            AUDIOSET,
            12,
            1e-5,
            5,
            (2, 3, 4),
            0.5,
            True,
            0.5,
            (48, 192),
            averaged=5,
            warmup=1000,
        ),
    ),
    "ast_audioset_20k": (
        45_000,
        Script(
            1024,
            AUDIOSET,
            12,
            5e-5,
            25,
            (10, 15, 20),
            0.5,
            False,
            0.5,
            (48, 192),
            averaged=20,
            warmup=1000,
        ),
    ),
    "ast_esc50": (833, Script(512, ESC50, 48, 1e-4, 25, tuple(range(5, 25)), 0.85, masks=(24, 96))),
    "ast_speech_commands": (
        19_885,
        Script(
            128,
            COMMANDS,
            128,
            2.5e-4,
            30,
            tuple(range(5, 30)),
            0.85,
            False,
            0.6,
            (48, 48),
            0.1,
            "sigmoid",
        ),
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_has_the_published_numbers(name):
    steps, published = SCRIPTS[name]
    assert script(recipe(name)("base"), steps) == published


@pytest.mark.parametrize(
    ("name", "columns", "roll"),
    [
        ("ast_audioset", 101, 0.0),
        ("ast_audioset_20k", 101, 0.0),
        ("ast_esc50", 50, 0.0),
        ("ast_speech_commands", 12, 0.1),
    ],
)
def test_patches_overlap_in_12_rows_and_both_class_tokens_are_pooled(name, columns, roll):
    config = recipe(name)("base")
    grid = config.encoder.grid(128)
    assert (grid.rows, grid.columns(config.front_end.target_frames), grid.stride) == (
        12,
        columns,
        (10, 10),
    )
    assert (config.objective.pooling, config.encoder.cls_tokens) == ("cls", 2)
    assert config.objective.augment.roll == roll
