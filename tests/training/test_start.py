from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import noises, settings, with_loader

from melpatch import distributed
from melpatch.audio.files import read
from melpatch.audio.logmel import LogMel
from melpatch.data.segments import crop
from melpatch.errors import CheckpointError, ConfigError, DataError
from melpatch.objectives.asit import ASiT
from melpatch.objectives.classify import Classify
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import build
from melpatch.training.run import Run
from melpatch.training.start import fitted, load_run, measured, plan


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"), labels=("a", "b"))


def saved(folder, config):
    """Return the objective of a run that was left in the folder, with weights of its own."""
    objective = build(replace(config, seed=config.seed + 100))
    run = Run.create(folder, config)
    with run.checkpoints:
        run.publish(objective.state_dict())
    return objective


def classifier(config):
    return replace(config, objective=Classify.Config(), labels=("a", "b"))


def learned(columns, **changes):
    config = settings()
    changes = {"positions": "learned", "columns": columns} | changes
    return replace(config, encoder=replace(config.encoder, **changes))


# -------------------------------------------------------------------------------------------------------- statistics


def test_mean_and_std_are_those_of_all_valid_frames(corpus):
    config = settings()
    plain = LogMel(replace(config.front_end, mean=0.0, std=1.0, scale=1.0))
    values = []
    for clip in corpus.clips:
        part = crop(clip, config.loader.seconds, config.seed, 0)
        wave, _ = read(part.path, start=part.start, duration=part.duration)
        values.append(
            plain(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))[0]
            .double()
            .flatten()
            .numpy()
        )
    every = np.concatenate(values)
    found = measured(config, corpus, 100)
    assert found.front_end.mean == pytest.approx(every.mean(), abs=2e-4)
    assert found.front_end.std == pytest.approx(every.std(), abs=2e-4)
    assert replace(found, front_end=config.front_end) == config


def test_statistics_are_a_function_of_seed_and_corpus(corpus):
    first = measured(settings(), corpus, 5)
    assert (
        measured(
            with_loader(settings(), batch_size=2, workers=2, bucket_steps=1), corpus, 5
        ).front_end
        == first.front_end
    )
    assert measured(first, corpus, 5).front_end.mean == pytest.approx(
        first.front_end.mean, abs=2e-5
    )
    assert measured(replace(settings(), seed=1), corpus, 5).front_end != first.front_end


def test_statistics_of_a_corpus_of_which_nothing_can_be_read(tmp_path):
    corpus = noises(tmp_path)
    for clip in corpus.clips:
        clip.path.write_bytes(b"this is no sound")
    with pytest.raises(
        DataError, match="none of the first clips can be read; run melpatch prepare"
    ):
        measured(settings(), corpus, 5)


@pytest.mark.parametrize(("seconds", "columns"), [(0.4, 5), (0.2, 3), (0.025, 1)])
def test_a_learned_table_is_as_long_as_the_segments(seconds, columns):
    """There are 38, 18 and 1 frames: as many patches of 8 as begin in them."""
    config = fitted(with_loader(learned(99), seconds=seconds))
    assert config.encoder.columns == columns
    objective = build(config)
    objective.encoder.positions(columns)
    with pytest.raises(ConfigError, match="columns"):
        objective.encoder.positions(columns + 1)


def test_sine_cosine_positions_need_no_fitting():
    assert fitted(settings()) == settings()


@pytest.mark.parametrize("positions", ["learned", "stretched"])
def test_a_method_of_short_views_has_a_table_as_long_as_these(positions, monkeypatch):
    monkeypatch.setattr(
        SSAST, "input_seconds", classmethod(lambda _, config, seconds: config.mask_ratio * seconds)
    )
    config = replace(learned(99, positions=positions), objective=SSAST.Config(mask_ratio=0.5))
    assert fitted(config).encoder.columns == 3  # as for segments of 0.2 s
    assert fitted(classifier(config)).encoder.columns == 5


# -------------------------------------------------------------------------------------------------------------- plan


def mixing(**train):
    """A run of ASiT, whose clips show parts of each other."""
    return replace(settings(**train), objective=ASiT.Config())


@pytest.mark.parametrize(
    ("train", "together", "steps", "at_once"),
    [
        ({"epochs": 10.0}, 1, 30, 4),
        ({"epochs": 10.0}, 2, 30, 2),
        ({"epochs": 10.0, "accumulate": 2}, 2, 30, 1),
        ({"epochs": 0.5}, 1, 2, 4),
        ({"epochs": 0.001}, 1, 1, 4),
        ({"epochs": 10.0, "steps": 7}, 2, 7, 2),
    ],
)
def test_a_run_is_so_many_passes_long_on_any_number_of_processes(
    corpus, train, together, steps, at_once, monkeypatch
):
    monkeypatch.setattr(distributed, "world_size", lambda: together)
    found = plan(settings(**{"steps": None, **train}), corpus)
    assert (found.steps, found.batch_size, found.micro_batch_size) == (steps, 4, at_once)


@pytest.mark.parametrize(
    ("change", "together", "accumulate", "allowed"),
    [
        (settings, 3, 1, "a multiple of 3, which is 3 processes x accumulate = 1"),
        (settings, 2, 3, "a multiple of 6, which is 2 processes x accumulate = 3"),
        (
            mixing,
            2,
            2,
            "a multiple of 8, which is 2 processes x accumulate = 2 x 2, the clips that may be mixed with each other",
        ),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(
    corpus, change, together, accumulate, allowed, monkeypatch
):
    monkeypatch.setattr(distributed, "world_size", lambda: together)
    with pytest.raises(ConfigError) as error:
        plan(change(accumulate=accumulate), corpus)
    assert str(error.value) == f"batch_size = 4; allowed: {allowed}"


def test_mixed_clips_need_pairs_only_where_they_are_divided(corpus):
    assert plan(with_loader(mixing(), batch_size=3), corpus).micro_batch_size == 3


@pytest.mark.parametrize(("seconds", "longest"), [(0.4, 0.4), (0.9, 0.9), (10.0, 0.9)])
def test_a_plan_knows_the_longest_segment_there_is(corpus, seconds, longest):
    found = plan(with_loader(settings(), seconds=seconds), corpus)
    assert found.seconds == seconds
    assert found.longest_segment == pytest.approx(longest)
    assert found.fixed_input == (seconds >= 0.9)
    again = with_loader(settings(), seconds=seconds, short_clips="repeat")
    assert not plan(again, corpus).fixed_input


# ---------------------------------------------------------------------------------------------------------- load_run


def test_a_run_is_loaded_with_its_settings_and_weights(tmp_path):
    objective = saved(tmp_path, settings())
    config, back = load_run(tmp_path)
    assert config == settings()
    assert isinstance(back, SSAST)
    assert all(
        torch.equal(value, back.state_dict()[name])
        for name, value in objective.state_dict().items()
    )


def test_a_folder_without_settings_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"nothing/config\.toml: cannot be read .*; give a run folder"
    ):
        load_run(tmp_path / "nothing")


def test_a_run_without_weights_is_named(tmp_path):
    Run.create(tmp_path, settings())
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        load_run(tmp_path)


def test_damaged_weights_are_named(tmp_path):
    saved(tmp_path, settings())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: not a readable safetensors file"
    ):
        load_run(tmp_path)


def test_weights_that_do_not_fit_the_settings_are_named(tmp_path):
    saved(tmp_path, settings())
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace("depth = 2", "depth = 1"))
    with pytest.raises(
        ConfigError, match=r"model\.safetensors does not fit config\.toml; .*blocks\.1"
    ) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)
