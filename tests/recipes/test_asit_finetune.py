"""ASiT's fine-tuning: AST's settings on ASiT's patches."""

from dataclasses import replace

import pytest

from melpatch.recipes.base import recipe

# The recipe with the same settings, according to the paper, and the columns of patches.
SETTINGS = {
    "asit_audioset": ("ast_audioset", 64),
    "asit_audioset_20k": ("ast_audioset_20k", 64),
    "asit_esc50": ("ast_esc50", 32),
    "asit_speech_commands": ("ast_speech_commands", 8),
    "asit_keywords": ("ast_speech_commands", 8),
    "asit_speakers": ("ssast_speakers", 62),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_differs_from_that_of_ast_only_in_the_encoder(name):
    theirs, columns = SETTINGS[name]
    config = recipe(name)("base")
    assert config == replace(recipe(theirs)("base"), encoder=config.encoder)
    encoder = config.encoder
    grid = encoder.grid(128)
    assert (grid.rows, grid.columns(config.front_end.target_frames), encoder.columns) == (
        8,
        columns,
        columns,
    )
    assert (grid.patch, grid.stride, encoder.cls_tokens, encoder.num_heads) == (
        (16, 16),
        (16, 16),
        1,
        12,
    )
    assert encoder.positions == "stretched"
    assert config.objective.pooling == ("mean" if name == "asit_speakers" else "cls")
