"""SSAST's fine-tuning against the published scripts."""

import pytest
from recipes.scripts import AUDIOSET, COMMANDS, ESC50, Script, script

from melpatch.recipes.base import recipe

ON_ESC50 = (
    1_667,
    Script(512, ESC50, 48, 1e-4, 50, tuple(range(6, 50)), 0.85, masks=(24, 96), noise=0.1),
)
ON_COMMANDS = (
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
        warmup=1000,
    ),
)
# Steps of a run on the published number of clips, and the published script (Gong et al. 2022).
SCRIPTS = {
    "ssast_audioset": (813_785, Script(1024, AUDIOSET, 12, 1e-5, 5, (), 1.0, True, 0.5, (48, 192))),
    "ssast_audioset_20k": (
        45_000,
        Script(1024, AUDIOSET, 12, 5e-5, 25, (10, 15, 20), 0.5, False, 0.5, (48, 192), averaged=20),
    ),
    "ssast_esc50": ON_ESC50,
    "ssast_esc50_frame": ON_ESC50,
    "ssast_speech_commands": ON_COMMANDS,
    "ssast_speech_commands_frame": ON_COMMANDS,
}
# Published rows and columns of patches.
GRIDS = {
    "ssast_audioset": (12, 101),
    "ssast_audioset_20k": (12, 101),
    "ssast_esc50": (12, 50),
    "ssast_esc50_frame": (1, 511),
    "ssast_speech_commands": (12, 12),
    "ssast_speech_commands_frame": (1, 127),
    "ssast_keywords": (12, 9),
    "ssast_keywords_frame": (1, 99),
    "ssast_emotion": (12, 59),
    "ssast_emotion_frame": (1, 599),
    "ssast_speakers": (12, 99),
    "ssast_speakers_frame": (1, 999),
}
# The published scripts for s3prl: (frames, seconds), (clips, balanced, batches per step), steps,
# steps between evaluations, learning rate.
SUPERB = {
    "ssast_keywords": ((100, 1.015), (32, True, 1), 20_000, 500, 1e-4),
    "ssast_keywords_frame": ((100, 1.015), (32, True, 1), 20_000, 500, 5e-5),
    "ssast_speakers": ((1000, 8.0), (32, False, 8), 40_000, 500, 1e-4),
    "ssast_speakers_frame": ((1000, 8.0), (32, False, 8), 40_000, 500, 1e-4),
    "ssast_emotion": ((600, 6.015), (32, False, 8), 10_000, 200, 1e-4),
    "ssast_emotion_frame": ((600, 6.015), (32, False, 8), 10_000, 200, 1e-4),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_has_the_published_numbers(name):
    steps, published = SCRIPTS[name]
    assert script(recipe(name)("base"), steps) == published


@pytest.mark.parametrize("name", GRIDS)
def test_a_recipe_has_the_published_patches_and_pools_their_mean(name):
    config = recipe(name)("base")
    grid = config.encoder.grid(128)
    assert (grid.rows, grid.columns(config.front_end.target_frames)) == GRIDS[name]
    assert grid.patch == ((128, 2) if name.endswith("_frame") else (16, 16))
    assert (config.objective.pooling, config.encoder.cls_tokens) == ("mean", 2)


@pytest.mark.parametrize("name", SUPERB)
def test_a_recipe_of_superb_has_the_published_numbers(name):
    (frames, seconds), (batch, balanced, accumulate), steps, every, lr = SUPERB[name]
    config = recipe(name)("base")
    assert (config.front_end.target_frames, config.loader.seconds) == (frames, seconds)
    assert (config.front_end.mean, config.front_end.std) == AUDIOSET
    assert (config.loader.batch_size, config.loader.balanced_sampling) == (batch, balanced)
    train = config.train
    objective = config.objective
    assert (train.accumulate, train.steps, steps / train.evaluations, train.lr) == (
        accumulate,
        steps,
        every,
        lr,
    )
    assert (train.optimizer, train.betas, train.weight_decay, train.grad_clip) == (
        "adam",
        (0.9, 0.999),
        0.0,
        1.0,
    )
    assert (train.lr_schedule, train.lr_warmup, train.layer_decay, train.average_last) == (
        "constant",
        0.0,
        1.0,
        0.0,
    )
    assert (objective.layers, objective.projection, objective.frozen) == ("mix", 256, False)
    assert objective.augment == type(objective.augment)()
