"""What every objective of the catalogue promises, whoever wrote it."""

import pytest
import safetensors.torch
import torch
from small_objectives import NAMES, WITHOUT_CHANCE, find, small

from melpatch.audio.logmel import LogMel
from melpatch.config import from_toml, to_toml
from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT
from melpatch.objectives.base import Features, Plan
from melpatch.training.config import RunConfig, build

LABELS = ("high", "low")
LENGTHS = (16000, 5000, 9000, 12000)
_TOKENS = ViT.tokens
_ENCODE = ViT.encode_tokens
LONG = 8 * 16000  # longer than the views that some objectives cut


@pytest.fixture(params=NAMES)
def piece(request):
    return find(request.param)


def run_config(piece, seed=0):
    """The objective's own defaults, with narrow heads, on a nano encoder of two blocks."""
    encoder = ViT.Config.of_size("nano", patch=(16, 16), depth=2)
    front_end = LogMel.Config(n_mels=64, scale=1.0)
    labels = LABELS if piece.needs_labels else ()
    return RunConfig(
        seed=seed,
        front_end=front_end,
        encoder=encoder,
        objective=small(piece.Config()),
        labels=labels,
    )


def begun(piece, seed=0):
    """At the start of a run on clips of up to a second."""
    objective = build(run_config(piece, seed))
    objective.begin(Plan(steps=40, batch_size=8, seconds=1.0, longest_segment=1.0))
    return objective


def double(piece, seed=0):
    """In double precision, so that differences are not rounding."""
    return begun(piece, seed).double()


def batch(piece, lengths=LENGTHS, dtype=torch.float64):
    """Tones over noise, high and low in turn, one pitch per clip; zeros past a clip's end."""
    clip, sample = (
        torch.arange(len(lengths))[:, None],
        torch.arange(max(lengths), dtype=torch.float64),
    )
    pitch = torch.where(clip % 2 == 0, 2000.0, 200.0) * (1 + 0.1 * clip)
    noise = torch.randn(
        len(lengths), max(lengths), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    wave = 0.3 * torch.sin(2 * torch.pi * pitch * sample / 16000) + 0.01 * noise
    targets = (
        torch.stack([clip[:, 0] % 2 == 0, clip[:, 0] % 2 == 1], dim=1).to(dtype)
        if piece.needs_labels
        else None
    )
    inside = sample < torch.tensor(lengths)[:, None]
    return Batch((wave * inside).to(dtype), torch.tensor(lengths), 7 + clip[:, 0], targets)


def one_clip(data, clip):
    one, length = slice(clip, clip + 1), int(data.lengths[clip])
    targets = None if data.targets is None else data.targets[one]
    return Batch(data.wave[one, :length], data.lengths[one], data.keys[one], targets)


def test_a_plan_is_checked_without_side_effects(piece):
    objective = build(run_config(piece))
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter.add_(1.0)  # as loaded weights would, so that a teacher differs
    attributes = dict(vars(objective))
    weights = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.check_plan(Plan(steps=40, batch_size=8, seconds=1.0, longest_segment=1.0))
    assert vars(objective) == attributes
    assert all(torch.equal(value, weights[name]) for name, value in objective.state_dict().items())


def test_loss_weight_and_metrics_are_finite_scalars(piece):
    output = double(piece)(batch(piece), 0)
    for name, value in {"loss": output.loss, "weight": output.weight, **output.metrics}.items():
        assert value.shape == (), name
        assert value.isfinite(), name
    assert output.weight > 0
    assert output.metrics


def test_gradient_reaches_the_encoder_and_all_that_is_trained(piece):
    objective, data = double(piece), batch(piece)
    for step in range(3):
        objective(data, step).loss.backward()
    untouched = {"encoder.cls_token"}  # may take part in no loss
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad and name not in untouched:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_chance_is_a_function_of_seed_key_and_step(piece):
    data = batch(piece)
    first = double(piece)(data, 4).loss
    torch.manual_seed(123)
    assert torch.equal(double(piece)(data, 4).loss, first)
    weights = double(piece)
    weights.seed = 1
    if piece not in WITHOUT_CHANCE:
        assert not torch.equal(weights(data, 4).loss, first)
        assert not torch.equal(double(piece)(data, 5).loss, first)


def padded(data, samples):
    return Batch(
        torch.nn.functional.pad(data.wave, (0, samples)), data.lengths, data.keys, data.targets
    )


def backwards(data):
    targets = None if data.targets is None else data.targets.flip(0)
    return Batch(data.wave.flip(0), data.lengths.flip(0), data.keys.flip(0), targets)


@torch.inference_mode()
def test_neighbours_and_padding_cannot_change_a_clips_loss(piece):
    """So accumulation, several processes and other batches give the loss of one large batch.

    Where clips learn from each other, their order and their padding at least do not matter.
    """
    objective, data = double(piece), batch(piece)
    together = objective(data, 3)
    apart = [one_clip(data, clip) for clip in range(len(data))]
    for batches in (
        [[padded(data, 3000)], [backwards(data)]] if piece.depends_on_other_clips else [apart]
    ):
        parts = [objective(one, 3) for one in batches]
        weight = sum(part.weight for part in parts)
        assert weight == together.weight
        loss = sum(part.loss * part.weight for part in parts) / weight
        torch.testing.assert_close(loss, together.loss, rtol=1e-9, atol=0)
        for name, value in together.metrics.items():
            mean = sum(part.metrics[name] * part.weight for part in parts) / weight
            torch.testing.assert_close(mean, value, rtol=1e-6, atol=0)


@torch.inference_mode()
def test_rubbish_past_a_clips_end_changes_nothing(piece):
    objective, data = double(piece), batch(piece)
    clean = objective(data, 0).loss
    data.wave[torch.arange(data.wave.shape[1]) >= data.lengths[:, None]] = 1e6
    assert torch.equal(objective(data, 0).loss, clean)


def drawn(objective, data):
    """What the objective shows of a clip, and where in the clip's spectrogram that lies."""
    picture = objective.picture(data, 0)
    if picture is None:
        pytest.skip(f"{type(objective).__name__} hides nothing that it shows")
    return picture, slice(picture.start, picture.start + picture.clean.shape[1])


@torch.inference_mode()
def test_a_picture_is_of_the_clip_and_parts_from_it_only_where_something_is_hidden(piece):
    objective, data = double(piece), batch(piece, (LONG,))
    picture, shown = drawn(objective, data)
    spectrogram = objective.front_end.denormalise(objective.features(data).spectrogram)
    torch.testing.assert_close(picture.clean, spectrogram[0, :, shown])
    stages = [picture.input, picture.reconstruction]
    for stage in filter(lambda stage: stage is not None, stages):
        assert stage.shape == picture.masked.shape
        torch.testing.assert_close(stage[~picture.masked], picture.clean[~picture.masked])
        assert not torch.equal(stage[picture.masked], picture.clean[picture.masked])


@torch.inference_mode()
def test_pictures_of_views_are_of_the_clip_and_differ_from_each_other(piece):
    objective, data = double(piece), batch(piece)
    views = objective.view_pictures(data, 0)
    if not views:
        pytest.skip(f"{piece.__name__} compares no views")
    clip, *others = views.values()
    alone = batch(piece, (LENGTHS[0],))
    spectrogram = objective.front_end(alone.wave, alone.lengths)[0]
    torch.testing.assert_close(clip, objective.front_end.denormalise(spectrogram)[0])
    assert len(others) >= 2
    for number, view in enumerate(others):
        assert view.shape[0] == clip.shape[0]
        assert view.isfinite().any()
        # One of them may be the clip as it is (ATST-Frame's teacher).
        for other in others[:number]:
            assert not torch.equal(view, other)
    again = objective.view_pictures(data, 0)
    for name, view in views.items():
        torch.testing.assert_close(again[name], view, rtol=0, atol=0, equal_nan=True)


@torch.inference_mode()
def test_what_is_hidden_cannot_leak(piece):
    """Where an objective shows what it hid and rebuilt: what it rebuilt does not depend on what lay there."""
    objective, data = double(piece), batch(piece, (LONG,))
    picture, shown = drawn(objective, data)
    if picture.reconstruction is None:
        pytest.skip(
            f"{type(objective).__name__} predicts no pixels; its own tests say who sees what"
        )
    hidden, features = picture.masked, objective.features(data)
    assert hidden.any()
    assert not hidden.all()
    for changed, same in ((hidden, True), (~hidden, False)):
        spectrogram = features.spectrogram.clone()
        spectrogram[0, :, shown][changed] += 100.0
        objective.features = lambda _, spectrogram=spectrogram: Features(spectrogram, None)
        again = objective.picture(data, 0)
        assert torch.equal(again.masked, hidden)
        assert torch.equal(again.reconstruction[hidden], picture.reconstruction[hidden]) == same


@torch.inference_mode()
def test_an_encoder_that_gets_a_part_of_the_tokens_is_given_their_places(piece, monkeypatch):
    """For an encoder whose positions are not in the tokens."""
    objective, data = double(piece), batch(piece)
    wholes = set()
    wrong = []

    def watched(encoder, spectrogram):
        tokens = _TOKENS(encoder, spectrogram)
        wholes.add(tokens.shape[1])
        return tokens

    def encode(encoder, tokens, valid=None, layers=False, places=None):
        if places is None and tokens.shape[1] not in wholes:
            wrong.append(tokens.shape[1])
        if places is not None:
            assert places.numbers.shape == tokens.shape[:2]
            assert places.columns * encoder.grid.rows in wholes
        return _ENCODE(encoder, tokens, valid, layers, places)

    monkeypatch.setattr(ViT, "tokens", watched)
    monkeypatch.setattr(ViT, "encode_tokens", encode)
    objective(data, 0)
    assert wrong == []


def test_eight_clips_are_overfitted(piece):
    if getattr(piece, "settings", {}).get("pretext") == "temporal_gap":
        pytest.skip("cross-entropy with shares cannot fall below their entropy")
    objective, data = begun(piece).train(), batch(piece, (8000,) * 8, torch.float32)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    losses = []
    for step in range(60):  # after 40, rounding on some processors left ASiT above the bound
        output = objective(data, step % 4)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        objective.after_step(step)
        losses.append(({"loss": output.loss} | output.metrics)[piece.progress_metric].item())
    assert sum(losses[-4:]) / 4 < 0.6 * losses[0]


@torch.inference_mode()
def test_nothing_is_called_a_failure_in_the_first_step_of_a_run_of_two(piece):
    objective = build(run_config(piece))
    objective.begin(Plan(steps=2, batch_size=8, seconds=1.0, longest_segment=1.0))
    output = objective(batch(piece, dtype=torch.float32), 0)
    metrics = {name: float(value) for name, value in output.metrics.items()}
    # As if nothing had been learned, which is no wonder yet.
    for loss in (float(output.loss), 1e3):
        assert objective.warning(metrics | {"loss": loss}, 1) is None


def test_config_survives_toml(piece, tmp_path):
    config = run_config(piece)
    (tmp_path / "config.toml").write_text(to_toml(config))
    again = from_toml(RunConfig, tmp_path / "config.toml")
    assert again == config
    assert type(again.objective) is type(config.objective)


@torch.inference_mode()
def test_state_survives_safetensors(piece, tmp_path):
    objective, other, data = double(piece), double(piece, seed=1), batch(piece)
    other.seed = objective.seed
    loss = objective(data, 0).loss
    assert not torch.equal(other(data, 0).loss, loss)
    safetensors.torch.save_file(objective.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(data, 0).loss, loss)


def test_a_training_step_in_bfloat16_is_finite_and_near(piece):
    objective, data = build(run_config(piece)), batch(piece, dtype=torch.float32)
    exact = objective(data, 0).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = objective(data, 0)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert abs(output.loss - exact) < 0.02 * exact.clamp(
        min=0.1
    )  # a loss near 0 is a difference of rounded numbers
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)
