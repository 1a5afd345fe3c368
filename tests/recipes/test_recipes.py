"""Every recipe builds, survives TOML, and has the sizes that its source states."""

import inspect
import json
import tomllib
from dataclasses import replace
from functools import cache
from shutil import copytree

import pytest
import torch
from tiny_runs import noises

from melpatch import recipes as folder
from melpatch.audio.logmel import LogMel
from melpatch.config import from_dict, owner, to_toml
from melpatch.encoders.byol_a import BYOLA, WIDTHS
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.objectives.asit import ASiT
from melpatch.objectives.base import Plan
from melpatch.objectives.eat import EAT
from melpatch.objectives.latent import LatentConfig
from melpatch.objectives.m2d import M2D
from melpatch.objectives.ssast import SSAST
from melpatch.recipes.base import clips_to_measure, recipe, recipe_names, recipes
from melpatch.training.config import RunConfig, build, objective_names
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import fitted

PUBLISHED = {"tiny": 6.046, "small": 22.854, "base": 88.763}
"""Millions of parameters of the published SSAST, with two unused heads for ImageNet."""


def built(config):
    """Return the objective on the meta device, without memory for its weights."""
    with torch.device("meta"):
        return build(config)


def plan_of(config):
    return Plan(
        steps=100,
        batch_size=8,
        seconds=config.loader.seconds,
        longest_segment=config.loader.seconds,
    )


def settings(name, size):
    config = recipe(name)(size)
    if owner(config.objective).needs_labels:
        return replace(config, labels=("a", "b"))
    return config


def test_the_recipes_are_the_public_functions_of_the_files():
    some = {
        "ssast",
        "ssast_patch",
        "finetune",
        "asit",
        "asit_2023",
        "asit_pixel",
        "ast_esc50",
        "cnn14",
        "maskspec",
    }
    assert some <= recipes().keys()
    assert all(
        inspect.isfunction(function) and function.__module__.startswith(folder.__name__)
        for function in recipes().values()
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_builds_and_can_be_trained(name, size):
    config = fitted(settings(name, size))
    with torch.device("meta"):  # some begin with a teacher of its own random weights
        objective = build(config)
        objective.begin(plan_of(config))
    if isinstance(config.encoder, CNN14.Config):
        assert config.encoder.width == CNN14.Config.of_size(size).width
    elif isinstance(config.encoder, BYOLA.Config):
        assert config.encoder.output == WIDTHS[size]
    else:
        assert objective.encoder.embed_dim == SIZES[size]["embed_dim"]
        assert objective.encoder.num_layers == SIZES[size]["depth"]


@pytest.mark.parametrize("size", ["nano", "base"])
@pytest.mark.parametrize("name", [*sorted(recipes()), *objective_names(with_labels=False)])
def test_every_recipe_survives_toml(name, size):
    config = recipe(name)(size)
    assert from_dict(RunConfig, tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_ssast_has_the_published_number_of_parameters(size):
    count = sum(parameter.numel() for parameter in built(recipe("ssast_patch")(size)).parameters())
    unused = 2 * (1000 * SIZES[size]["embed_dim"] + 1000)
    assert round((count + unused) / 1e6, 3) == PUBLISHED[size]


@pytest.mark.parametrize(("name", "grid"), [("ssast_patch", (8, 64)), ("ssast_frame", (1, 512))])
def test_published_ssast_has_512_patches_of_256_pixels_and_masks_400(name, grid):
    config = recipe(name)("base")
    assert fitted(config) == config
    objective = built(config)
    objective.begin(plan_of(config))
    rows, columns = grid
    frames = objective.front_end.frames(
        round(config.loader.seconds * objective.front_end.sample_rate)
    )
    assert (frames, objective.encoder.grid.rows, objective.encoder.grid.columns(frames)) == (
        1024,
        rows,
        columns,
    )
    assert objective.encoder.grid.pixels == 256
    assert objective.masking.window == 512
    assert config.objective.num_masked == 400


def test_published_ssast_pads_segments_of_any_length_to_1024_frames():
    config = recipe("ssast_patch")("nano")
    assert fitted(replace(config, loader=replace(config.loader, seconds=5.0))).encoder.columns == 64


def test_patches_are_masked_in_clusters_and_frames_at_random():
    assert built(recipe("ssast_patch")("nano")).masking.config.kind == "cluster"
    assert built(recipe("ssast_frame")("nano")).masking.config.kind == "random"


@pytest.mark.parametrize(
    ("size", "batch_size", "lr"), [("tiny", 120, 5e-4), ("base", 24, 1e-4), ("large", 24, 1e-4)]
)
def test_published_batch_size_and_learning_rate_depend_on_the_encoder_size(size, batch_size, lr):
    config = recipe("ssast_patch")(size)
    assert (config.loader.batch_size, config.train.lr) == (batch_size, lr)
    assert (config.train.optimizer, config.train.betas, config.train.weight_decay) == (
        "adam",
        (0.95, 0.999),
        5e-7,
    )


@pytest.mark.parametrize(
    "name", ["ssast_patch", "ssast_frame", "ast_audioset", "ast_esc50", "ssast_esc50"]
)
def test_adam_of_ast_and_ssast_decays_every_parameter(name):
    """The published code gives all trainable parameters to one optimiser (Adam, 5e-7)."""
    train = recipe(name)("base").train
    assert (train.optimizer, train.weight_decay, train.decay_all) == ("adam", 5e-7, True)


@pytest.mark.parametrize("name", ["maskspec_32k", "maskspec_16k"])
def test_published_maskspec_warms_up_for_40_of_400_epochs(name):
    train = recipe(name)("base").train
    assert (train.epochs, train.lr_schedule, train.lr_floor) == (400.0, "cosine", 0.0)
    assert train.lr_warmup * train.epochs == pytest.approx(40)


# Where the paper and the releases of ASiT differ: (decoder, GELU after it), weights of (pixel,
# local, global), corrupted areas, (classes, what heads share, gain trained), shares of the run
# (frozen prototypes, warm-up of the temperature), (sampling rate, crops, precision, positions),
# (epochs, clips on each of 4 GPUs).
PAPER = (
    ((2048, 2048, 256), False),
    (1.0, 1.0, 1.0),
    (0.5, 0.7),
    (1024, "none", False),
    (1 / 40, 0.1),
    (32000, 0, "auto", "learned"),
    (40.0, 128),
)
RELEASE_2023 = (
    ((768, 768, 128), True),
    (2.0, 1.0, 1.0),
    (0.5, 0.7),
    (1024, "trunk", False),
    (0.0, 30 / 100),
    (32000, 0, "auto", "learned"),
    (100.0, 128),
)
RELEASE_2024 = (
    ((384, 384, 384), True),
    (1.0, 0.5, 0.5),
    (0.5, 0.5),
    (8192, "all", True),
    (1 / 100, 5 / 100),
    (16000, 4, "32-true", "stretched"),
    (100.0, 80),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("asit", PAPER), ("asit_2023", RELEASE_2023), ("asit_2024", RELEASE_2024)],
)
def test_published_asit_has_the_published_numbers(name, expected):
    config = recipe(name)("small")
    objective_config = config.objective
    heads = config.objective.distillation
    assert expected == (
        (objective_config.decoder, objective_config.decoder_last_gelu),
        (
            objective_config.pixel_weight,
            objective_config.local_weight,
            objective_config.global_weight,
        ),
        objective_config.corruption.ratio,
        (heads.local_prototypes, heads.shared, heads.train_gain),
        (heads.freeze_prototypes, heads.temperature_warmup),
        (
            config.front_end.sample_rate,
            objective_config.local_crops,
            config.train.precision,
            config.encoder.positions,
        ),
        (config.train.epochs, config.loader.batch_size),
    )


@pytest.mark.parametrize("name", ["asit", "asit_2023", "asit_2024"])
def test_settings_that_the_paper_and_the_releases_of_asit_share(name):
    config = recipe(name)("base")
    objective_config = config.objective
    heads = config.objective.distillation
    train = config.train
    assert (
        objective_config.views,
        objective_config.view_seconds,
        objective_config.local_crop_seconds,
    ) == (2, 6.0, 2.0)
    # Equation 6 of the paper takes the corrupted tokens, both releases take all.
    assert objective_config.local_tokens == ("corrupted" if name == "asit" else "all")
    assert objective_config.pixels == "corrupted"
    corruption = objective_config.corruption
    assert (corruption.fill, corruption.alien_ratio, corruption.alien_probability) == (
        "zeros",
        0.3,
        0.5,
    )
    assert (corruption.max_block_ratio, corruption.aligned) == (0.3, False)
    assert (heads.global_prototypes, heads.hidden_dim, heads.bottleneck_dim) == (8192, 2048, 256)
    assert (heads.student_temperature, heads.teacher_temperature) == (0.1, (0.04, 0.07))
    assert heads.momentum == (None if name == "asit" else 0.996)
    assert (train.optimizer, train.betas, train.accumulate) == ("adamw", (0.9, 0.999), 4)
    assert (train.weight_decay, train.weight_decay_end, train.decay_tokens) == (0.04, 0.4, True)
    assert (train.grad_clip_by, train.grad_clip, train.lr_schedule, train.lr_warmup) == (
        "tensor",
        3.0,
        "dino",
        0.1,
    )
    assert train.lr == (1.5625e-4 if name == "asit_2024" else 2.5e-4)
    assert train.lr * train.lr_floor == pytest.approx(1e-6)
    encoder = config.encoder
    assert (encoder.drop_path, encoder.cls_tokens) == (0.1, 1)
    # Section IV-A of the paper says 3 and 6; both releases have 6 and 12.
    assert encoder.num_heads == (6 if name == "asit" else 12)
    assert recipe(name)("small").encoder.num_heads == (3 if name == "asit" else 6)


@pytest.mark.parametrize("name", ["asit", "asit_2023", "asit_2024"])
def test_published_asit_sees_296_patches_of_six_seconds(name):
    config = recipe(name)("nano")
    assert fitted(config) == config
    objective = built(config)
    objective.begin(plan_of(config))
    for seconds, frames, columns in ((6.0, 598, 37), (2.0, 198, 12)):
        assert (
            objective.front_end.frames(round(seconds * objective.front_end.sample_rate)) == frames
        )
        assert objective.encoder.grid.columns(frames) == columns
    assert objective.encoder.grid.count(598) == 296


@pytest.mark.parametrize(
    ("name", "corrupt", "losses"),
    [
        ("asit_clean_pixel", False, ("pixel",)),
        ("asit_clean_global", False, ("global",)),
        ("asit_local", True, ("local",)),
        ("asit_pixel", True, ("pixel",)),
        ("asit_local_global", True, ("local", "global")),
        ("asit_pixel_global", True, ("pixel", "global")),
        ("asit_pixel_local", True, ("pixel", "local")),
        ("asit_pixel_local_global", True, ("pixel", "local", "global")),
    ],
)
def test_rows_of_asits_ablation_differ_only_in_their_switches(name, corrupt, losses):
    whole = recipe("asit")("small")
    row = recipe(name)("small")
    assert row.objective.corrupt == corrupt
    weights = {f"{loss}_weight": float(loss in losses) for loss in ("pixel", "local", "global")}
    assert {name: getattr(row.objective, name) for name in weights} == weights
    switches = {"corrupt": True, "pixels": "corrupted"} | dict.fromkeys(weights, 1.0)
    assert (
        replace(row.objective, **switches, distillation=whole.objective.distillation)
        == whole.objective
    )
    one_epoch = replace(whole.objective.distillation, freeze_prototypes=1 / row.train.epochs)
    assert row.objective.distillation == one_epoch
    assert row.train.epochs == 10.0
    assert replace(row, objective=whole.objective, train=replace(row.train, epochs=40.0)) == whole


def millions(name, classes):
    config = replace(recipe(name)("base"), labels=tuple(map(str, range(classes))))
    return sum(parameter.numel() for parameter in built(config).parameters()) / 1e6


def test_published_classifiers_have_the_published_number_of_parameters():
    assert round(millions("ast_audioset", 527), 1) == 86.6
    norm = 2 * 2048 / 1e6  # the norm that the published CNN14 lacks
    assert round(millions("cnn14", 527) - norm, 2) == 80.75


@pytest.mark.parametrize(
    ("name", "rate", "window"), [("cnn14", 32000, 1024), ("cnn14_16k", 16000, 512)]
)
def test_published_cnn14_has_the_published_numbers(name, rate, window):
    config = recipe(name)("base")
    front = config.front_end
    assert (front.sample_rate, front.win_length, front.hop_length, front.n_mels) == (
        rate,
        window,
        rate // 100,
        64,
    )
    assert config.encoder == CNN14.Config(width=64, dropout=0.2, neck_dropout=0.5, trim="pooling")
    assert (config.loader.batch_size, config.loader.balanced_sampling, config.loader.seconds) == (
        32,
        True,
        10.0,
    )
    train = config.train
    augment = config.objective.augment
    assert (train.optimizer, train.lr, train.lr_schedule, train.steps) == (
        "amsgrad",
        1e-3,
        "constant",
        600_000,
    )
    assert (train.weight_decay, train.grad_clip, train.lr_warmup) == (0.0, None, 0.0)
    assert (augment.mixup_on, augment.mixup_rate, augment.mixup_alpha) == ("spectrogram", 1.0, 1)
    assert (augment.masks, augment.freq_mask, augment.time_mask) == (2, 8, 64)


@pytest.mark.parametrize(
    ("name", "patches", "out", "epochs", "decay", "pooling"),
    [
        ("maskspec_finetune", 496, 200, 80, 0.05, "mean"),
        ("maskspec_finetune_cls", 496, 200, 80, 0.05, "cls"),
        ("audiomae_finetune", 512, 184, 60, 5e-4, "mean"),
    ],
)
def test_published_autoencoders_are_fine_tuned_with_the_published_numbers(
    name, patches, out, epochs, decay, pooling
):
    config = settings(name, "base")
    frames = LogMel(config.front_end).frames(
        round(config.loader.seconds * config.front_end.sample_rate)
    )
    objective = built(config)
    columns = patches // 8
    assert config.encoder.grid(128).count(frames) == patches
    masked = objective.patch_out(torch.arange(2), columns, seed=0, step=0)
    assert masked.masked.indices.shape == (2, out)
    train = config.train
    assert (train.epochs, train.weight_decay, train.layer_decay) == (epochs, decay, 0.75)
    assert (train.lr, train.lr * train.lr_floor) == pytest.approx((1e-3 * 64 / 256, 1e-6))
    assert train.lr_warmup * train.epochs == pytest.approx(5)
    assert (config.objective.pooling, config.encoder.drop_path) == (pooling, 0.1)
    assert config.objective.augment.mixup_rate == 0.5


@pytest.mark.parametrize(
    ("name", "kind", "patch"), [("mae_ast_patch", "cluster", 16), ("mae_ast_frame", "random", 2)]
)
def test_published_mae_ast_has_the_published_numbers(name, kind, patch):
    config = recipe(name)("base")
    encoder = config.encoder
    train = config.train
    objective_config = config.objective
    assert (encoder.patch[1], encoder.norm, encoder.input_norm, encoder.cls_tokens) == (
        patch,
        "post",
        "batch",
        0,
    )
    assert (encoder.dropout, encoder.drop_path, encoder.positions) == (0.1, 0.05, "interleaved")
    assert (encoder.norm_eps, objective_config.decoder.norm_eps) == (1e-5, 1e-5)
    assert train.decay_all
    assert (
        objective_config.mask.kind,
        objective_config.mask.ratio,
        objective_config.generative_weight,
        objective_config.negatives,
    ) == (
        kind,
        0.75,
        10.0,
        "clip",
    )
    assert (
        objective_config.decoder.depth,
        objective_config.decoder.dim,
        objective_config.decoder.num_heads,
        objective_config.decoder.norm,
    ) == (
        2,
        None,
        12,
        "post",
    )
    assert (train.steps, train.lr, train.betas, train.grad_clip) == (
        550_000,
        1e-4,
        (0.9, 0.98),
        10.0,
    )
    assert (train.lr_schedule, train.lr_warmup * train.steps) == ("linear", pytest.approx(32_000))
    # fairseq's Adam decays the weights, as AdamW does.
    assert (train.optimizer, train.weight_decay) == ("adamw", 0.01)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"), (6.5, 6.1), labels=("a", "b"))


def narrowed(name):
    """Return five steps of a recipe: widths and views are reduced, patches, masks and losses are not."""
    config = settings(name, "nano")
    objective = config.objective
    if isinstance(objective, ASiT.Config):
        classes = 8 if objective.distillation.shared == "all" else 6
        heads = {
            "global_prototypes": 8,
            "local_prototypes": classes,
            "hidden_dim": 8,
            "bottleneck_dim": 4,
        }
        objective = replace(
            objective, decoder=(8,), distillation=replace(objective.distillation, **heads)
        )
    elif isinstance(objective, EAT.Config):
        decoder = replace(objective.decoder, depth=1, groups=4)
        objective = replace(objective, views=2, decoder=decoder)
    elif hasattr(objective, "decoder"):
        objective = replace(
            objective, decoder=replace(objective.decoder, dim=12, depth=1, num_heads=1)
        )
    if isinstance(objective, M2D.Config):
        heads = replace(objective.classification, hidden_dim=8, bottleneck_dim=4, prototypes=8)
        objective = replace(objective, classification=heads)
    if isinstance(objective, LatentConfig):
        objective = replace(objective, target_layers=min(objective.target_layers, 1))
    narrow = {"embed_dim": 12, "depth": 1, "num_heads": 1}
    if isinstance(config.encoder, CNN14.Config):
        narrow = {"width": 1}
    elif isinstance(config.encoder, BYOLA.Config):
        narrow = {"channels": 2, "hidden": 4, "output": 4}
    return fitted(
        replace(
            config,
            objective=objective,
            encoder=replace(config.encoder, **narrow),
            loader=replace(config.loader, batch_size=2, workers=0),
            train=replace(
                config.train, steps=5, accumulate=1, log_every=1, evaluations=1, save_every=2
            ),
        )
    )


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """Return what trains a recipe for five steps, once, and returns its progress and folder.

    Beside the folder is what a kill in the third step leaves, after the teacher has moved.
    """

    @cache
    def train(name):
        folder = tmp_path_factory.mktemp("whole") / "run"
        run = Run.create(folder, narrowed(name))
        objective = build(run.config)
        after_step = objective.after_step

        def noted(step):
            after_step(step)
            if step == 2:
                run.checkpoints.wait()
                copytree(folder, folder.with_name("killed"))

        objective.after_step = noted
        return fit(objective, corpus, run), folder

    return train


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_runs_for_five_steps(name, whole):
    """Schedules are shares of the run."""
    progress, folder = whole(name)
    train = narrowed(name).train
    assert (progress.step, progress.skipped) == (5, 0)
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in logged if "loss" in line]
    assert len(rates) == 5
    assert max(rates) <= train.lr * (1 + 1e-9)
    assert (rates[-1] < max(rates)) == (train.lr_schedule != "constant")


@pytest.mark.parametrize("name", sorted(recipes().keys() & set(recipe_names(with_labels=False))))
def test_a_killed_pretraining_resumes_to_the_same_bytes(name, whole, corpus):
    """Killed in the third step, after the teacher has moved; resumed from what step 2 has saved."""
    _, folder = whole(name)
    killed = folder.with_name("killed")
    run = Run.reopen(killed)
    assert run.newest.name == "step-000000002"
    logged = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in logged) == 2
    assert fit(build(run.config), corpus, run).step == 5
    for file in ("metrics.jsonl", "model.safetensors"):
        assert (killed / file).read_bytes() == (folder / file).read_bytes(), file


def test_an_objective_is_a_recipe_with_its_defaults():
    plain = recipe("classify")("nano")
    assert plain == RunConfig(objective=plain.objective, encoder=ViT.Config.of_size("nano"))
    assert plain.objective == type(plain.objective)()


def test_a_custom_class_is_a_recipe_too():
    assert recipe("melpatch.objectives.ssast:SSAST")("nano").objective == SSAST.Config()
    assert recipe("ssast-patch") is recipe("ssast_patch")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nope",
            "unknown recipe or objective 'nope'; available: .*, ssast, .*ssast_frame, .*ssast_patch",
        ),
        ("nowhere.at_all:X", "cannot be imported: there is no module 'nowhere'.*PYTHONPATH"),
        (
            "melpatch.objectives.ssast:Nope",
            "cannot be imported: melpatch.objectives.ssast has no 'Nope'",
        ),
        (
            "builtins:len",
            "is a builtin_function_or_method; wanted: a function of the encoder's size",
        ),
        ("melpatch.encoders.vit:ViT", "is no objective; name a class derived from"),
    ],
)
def test_an_unknown_recipe_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        recipe(name)("nano")


def test_an_unknown_size_is_refused():
    with pytest.raises(
        ConfigError, match="size = 'huge'; allowed: nano, mini, tiny, small, base, large"
    ):
        recipe("ssast")("huge")


@pytest.mark.parametrize("name", ["audiomae", "audiomae_finetune"])
def test_audiomae_has_the_published_gain_and_never_rolls(name):
    augment = recipe(name)("base").objective.augment
    assert (augment.gain_beta, augment.roll, augment.gain_db) == (10, 0.0, 0.0)
    assert augment.mixup_rate == (0.5 if name == "audiomae_finetune" else 0.0)


# Optimiser, rate, betas, decay, largest norm of the gradient; length of the warm-up and of the run,
# in epochs or steps; clips per step; share of the patches that is masked, or their number. From the
# papers and releases that each recipe names.
PRETRAINING = {
    "maskspec_32k": ("adamw", 2e-3, (0.9, 0.95), 0.05, None, 40, 400, 512, 0.75),
    "audiomae": ("adamw", 4e-4, (0.9, 0.95), 1e-4, None, 3, 33, 512, 0.8),
    "m2d": ("adamw", 2.4e-3, (0.9, 0.95), 0.05, 3.0, 20, 300, 2048, 0.7),
    "m2d_06": ("adamw", 2.4e-3, (0.9, 0.95), 0.05, 3.0, 20, 300, 2048, 0.6),
    "jepa": ("adamw", 2.4e-3, (0.9, 0.95), 0.05, 3.0, 20, 300, 2048, 0.7),
    "audio_jepa": ("adamw", 1e-3, (0.9, 0.95), 0.05, 1.0, 2_000, 100_000, 32, 0.5),
    "msm_mae": ("adamw", 2.4e-3, (0.9, 0.95), 0.05, 3.0, 20, 300, 2048, 0.75),
    "matpac": ("adamw", 3e-4, (0.9, 0.95), 0.05, 3.0, 19_654, 294_816, 2048, 0.7),
    "matpac_plusplus": ("adamw", 3e-4, (0.9, 0.95), 0.05, 3.0, 19_654, 294_816, 2048, 0.7),
    "eat": ("adamw", 5e-4, (0.9, 0.95), 0.05, 4.0, 53_333, 400_000, 48, 410),
    "eat_large": ("adamw", 4e-4, (0.9, 0.95), 0.05, 4.0, 53_333, 400_000, 48, 0.75),
    "sslam": ("adamw", 5e-5, (0.9, 0.95), 0.05, 4.0, 25_000, 200_000, 48, 410),
}


@pytest.mark.parametrize("name", PRETRAINING)
def test_published_pretraining_has_the_published_numbers(name):
    config = recipe(name)("base")
    train = config.train
    length = train.steps or train.epochs
    mask = config.objective.mask
    assert PRETRAINING[name] == (
        train.optimizer,
        pytest.approx(train.lr),
        train.betas,
        train.weight_decay,
        train.grad_clip,
        pytest.approx(train.lr_warmup * length),
        length,
        config.loader.batch_size,
        mask.num_masked or mask.ratio,
    )
    floor = 0.01 if name == "audio_jepa" else 0.0
    assert (train.lr_schedule, train.lr_floor) == ("cosine", floor)


@pytest.mark.parametrize("name", ["matpac", "matpac_plusplus"])
def test_matpac_has_audiosets_mean_and_std(name):
    config = recipe(name)("base")
    assert (config.front_end.mean, config.front_end.std) == (-7.056, 4.193)
    assert clips_to_measure(config) == 0


BYOL_PRETRAINING = {
    "byol_a": ("adam", 3e-4, (0.9, 0.999), 0.0, None, 0, 100, 256, 0.99, None),
    "byol_a_v2": ("adam", 1e-4, (0.9, 0.999), 0.0, None, 0, 100, 256, 0.99, None),
    "atst_clip": ("adamw", 1.2e-3, (0.9, 0.999), 0.04, 0.4, 15_860, 318_000, 1536, 0.9995, 1.0),
    "atst_frame": ("adamw", 2.7e-4, (0.9, 0.999), 0.04, 0.4, 16_590, 398_160, 864, 0.9996, 1.0),
}


@pytest.mark.parametrize("name", BYOL_PRETRAINING)
def test_published_byol_has_the_published_numbers(name):
    config = recipe(name)("base")
    train = config.train
    length = train.steps or train.epochs
    momentum = config.objective.momentum
    assert BYOL_PRETRAINING[name] == (
        train.optimizer,
        pytest.approx(train.lr),
        train.betas,
        train.weight_decay,
        train.weight_decay_end,
        pytest.approx(train.lr_warmup * length),
        length,
        config.loader.batch_size,
        momentum.start,
        momentum.end,
    )
    assert (config.objective.hidden_dim, config.objective.projection) == (4096, 256)
    assert config.objective.directions == ("sum" if name.startswith("byol_a") else "mean")
    floor = 1e-6 if name.startswith("atst") else 0.0
    assert train.lr * train.lr_floor == pytest.approx(floor)
    assert momentum.curve == ("cosine" if name.startswith("atst") else "linear")


@pytest.mark.parametrize(
    ("size", "steps"), [("tiny", 39_100), ("small", 39_100), ("base", 318_000), ("large", 318_000)]
)
def test_atst_clip_is_trained_longer_from_base_on(size, steps):
    assert recipe("atst_clip")(size).train.steps == steps


def test_the_large_eat_has_the_published_shape():
    config = recipe("eat_large")("large")
    objective = built(config)
    encoder = objective.encoder
    heads = encoder.config.num_heads
    assert (encoder.embed_dim, encoder.num_layers, heads) == (1024, 24, 16)
    assert objective.masking.masked_of(512, 512) == 384
    assert config.objective.decoder.depth == 5


@pytest.mark.parametrize(
    ("name", "frames", "columns"), [("atst_clip", 601, 150), ("atst_frame", 1001, 250)]
)
def test_atst_has_the_published_tokens(name, frames, columns):
    config = recipe(name)("base")
    objective = built(fitted(config))
    seconds = objective.input_seconds(config.objective, config.loader.seconds)
    assert objective.front_end.frames(round(seconds * 16000)) == frames
    assert objective.encoder.grid.count(frames) == columns


@pytest.mark.parametrize(("name", "width"), [("byol_a", 2048), ("byol_a_v2", 3072)])
def test_byol_a_has_the_published_pieces_and_width(name, width):
    config = recipe(name)("base")
    objective = built(config)
    assert objective.front_end.frames(round(config.loader.seconds * 16000)) == 96
    assert objective.pooled_dim == width


@pytest.mark.parametrize("name", ["audiomosaic", "audiomosaic_released"])
def test_published_audiomosaic_has_the_published_numbers(name):
    """Also with the kept patches of 64 columns, where the published code pads to 1024 frames."""
    config = recipe(name)("base")
    train = config.train
    assert (train.optimizer, train.lr, train.betas, train.weight_decay, train.grad_clip) == (
        "adamw",
        6e-4,
        (0.9, 0.999),
        0.05,
        None,
    )
    assert (train.epochs, train.lr_warmup * train.epochs) == (400.0, pytest.approx(1))
    assert (train.lr_schedule, train.lr_floor * train.lr) == ("cosine", pytest.approx(1e-6))
    assert (config.loader.batch_size, config.loader.seconds) == (6144, 10.0)
    encoder = config.encoder
    assert (encoder.patch_norm, encoder.outer_norm, encoder.drop_path) == (True, "before", 0.1)
    assert (encoder.positions, encoder.cls_tokens, encoder.norm_eps) == ("learned", 1, 1e-6)
    objective_config = config.objective
    assert (objective_config.temperature, objective_config.pooling) == (0.1, "mean")
    assert (objective_config.hidden_dims, objective_config.projection) == ((512,), 128)
    masks = built(config).masks
    kept = [mask(1, 64).visible.indices.shape[1] for mask in masks]
    assert kept == ([192, 304] if name == "audiomosaic_released" else [205, 308])


def test_published_clar_has_the_published_numbers():
    config = recipe("simclr")("base")
    front = config.front_end
    assert (front.sample_rate, front.win_length, front.hop_length, front.n_mels) == (
        16000,
        2048,
        128,
        128,
    )
    assert (front.low_hz, front.high_hz) == (40.0, 8000.0)
    objective_config = config.objective
    assert (objective_config.temperature, objective_config.pooling) == (0.5, "mean")
    assert (objective_config.hidden_dims, objective_config.projection) == ((512, 512), 128)
    assert (objective_config.augment.fade, objective_config.augment.burst) == (0.5, 0.25)
    train = config.train
    assert (train.optimizer, train.weight_decay, train.epochs) == ("adam", 1e-6, 1020.0)
    assert train.lr_warmup * train.epochs == pytest.approx(10)
    assert (config.loader.batch_size, config.loader.seconds) == (256, 1.0)
