"""``--to hf``: the files that transformers writes itself, and the same outputs where it is installed."""

import json
from dataclasses import replace

import pytest
import torch
from interop.slow_vit import slow_hugging_face
from interop.test_hf_vit import NAMES
from journeys.three_sounds import settings
from places import shared
from safetensors.torch import load_file
from targets.runs import LABELS, ast, sound, ssast, with_seconds, write_run

from melpatch import cli
from melpatch.inference.calibration import Calibration
from melpatch.interop.base import Reading, start_from_weights
from melpatch.interop.hf_vit import HFViT
from melpatch.training.config import build
from melpatch.weight_files import Weights

FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
PREFIX = "audio_spectrogram_transformer."


def export(folder, config, weights=None):
    """Write a run and its export, and return the model and the folder of the export."""
    model = write_run(folder / "run", config, weights)
    assert main(folder) == 0
    return model, folder / "hf"


def main(folder, *words):
    run = str(folder / "run")
    return cli.main(["export", run, "--to", "hf", "--out", str(folder / "hf"), *words])


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))


def as_golden(folder):
    """A run with the weights and the geometry of a folder that transformers wrote."""
    config = content(folder / "config.json")
    extractor = content(folder / "preprocessor_config.json")
    front_end = {name: extractor[name] for name in ("mean", "std")}
    front_end |= {"n_mels": extractor["num_mel_bins"], "target_frames": extractor["max_length"]}
    settings = ast(
        tuple(config["id2label"].values()),
        front_end=front_end,
        embed_dim=config["hidden_size"],
        num_heads=config["num_attention_heads"],
        norm_eps=config["layer_norm_eps"],
        stride=(config["frequency_stride"], config["time_stride"]),
        columns=(extractor["max_length"] - 16) // config["time_stride"] + 1,
    )
    state = load_file(folder / "model.safetensors")
    fresh = build(settings)
    encoder = HFViT().convert(Weights(state, {}), fresh.encoder, Reading()).state
    weights = {f"encoder.{name}": value for name, value in encoder.items()}
    for number, name in enumerate(("layernorm", "dense")):
        for part in ("weight", "bias"):
            weights[f"head.{number}.{part}"] = state[f"classifier.{name}.{part}"]
    return settings, weights, state


@pytest.mark.parametrize("name", ["hf_ast", "hf_ast_geometry"])
def test_the_files_are_those_that_transformers_writes(name, tmp_path):
    golden = shared(f"golden/weights/{name}")
    settings, weights, state = as_golden(golden)
    _, out = export(tmp_path, settings, weights)
    written = load_file(out / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(value, written[key]) for key, value in state.items())
    assert content(out / "preprocessor_config.json") == content(golden / "preprocessor_config.json")
    config, expected = content(out / "config.json"), content(golden / "config.json")
    # What an export leaves out is the default of transformers.
    assert config.pop("problem_type") == "single_label_classification"
    left_out = {"initializer_range", "transformers_version"}
    assert config == {key: value for key, value in expected.items() if key not in left_out}


def test_an_independent_forward_pass_gives_the_tokens(tmp_path):
    model, out = export(tmp_path, ssast())
    spectrogram = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0))
    state = {f"x.{key}": value for key, value in load_file(out / "model.safetensors").items()}
    expected = slow_hugging_face(state, spectrogram[:, None], 3, "x.", NAMES[4])
    with torch.inference_mode():
        encoded = model.objective.encoder(spectrogram)
    torch.testing.assert_close(torch.cat([encoded.cls, encoded.patches], 1), expected)


def test_it_is_read_back_to_the_bit(tmp_path):
    config = ast()
    model, out = export(tmp_path, config)
    again = build(config)
    start_from_weights(again, str(out / "model.safetensors"))
    expected = model.objective.encoder.state_dict()
    assert all(
        torch.equal(value, again.encoder.state_dict()[key]) for key, value in expected.items()
    )


def test_the_extractor_divides_by_two_deviations(tmp_path):
    _, out = export(tmp_path, ast(front_end={"scale": 1.0, "std": 5.0}))
    assert content(out / "preprocessor_config.json")["std"] == 2.5


FITS = {
    "ast": ast(),
    "multi-label": ast(objective={"multi_label": True}),
    "sincos": ast(positions="sincos", stride=None, partial="pad"),
    "stretched": ast(positions="stretched", columns=20),
    "longer table": ast(columns=30),
    "another front end": ast(front_end={"scale": 1.3, "n_mels": 64}),
    "patches of 8": ast(patch=(8, 8), stride=(8, 8), columns=16),
    "ssast": ssast(),
}


@pytest.mark.parametrize("name", FITS)
def test_transformers_gives_the_same_outputs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, out = export(tmp_path, FITS[name])
    extractor = transformers.AutoFeatureExtractor.from_pretrained(out)
    kind = transformers.AutoModel
    if model.labels:
        kind = transformers.AutoModelForAudioClassification
    theirs, loading = kind.from_pretrained(out, output_loading_info=True)
    assert not any(loading[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    for seconds in (0.03, 0.5, 1.295):
        wave = sound(seconds)
        inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            output = theirs.eval()(**inputs)
            encoded = model.objective.encoder(model.objective.front_end(wave[None]))
        if not model.labels:
            tokens = torch.cat([encoded.cls, encoded.patches], dim=1)
            torch.testing.assert_close(output.last_hidden_state, tokens, atol=5e-4, rtol=0)
            continue
        logits = model.objective.head(encoded.cls.mean(dim=1))
        torch.testing.assert_close(output.logits, logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["ast", "multi-label"])
def test_a_pipeline_of_transformers_gives_the_labels(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, out = export(tmp_path, FITS[name])
    answers = transformers.pipeline("audio-classification", model=str(out))(sound(1.0))
    given = {answer["label"]: answer["score"] for answer in answers}
    assert given == pytest.approx(model.predict(sound(1.0), 16000)[0].probabilities, abs=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ast(cls_tokens=1), "encoder.cls_tokens = 1 (fits: 2)"),
        (
            ast(patch=(128, 2), stride=(128, 1), columns=127),
            "encoder.patch = (128, 2) (fits: a square)",
        ),
        (
            ast(objective={"pooling": "mean"}),
            "objective.pooling = 'mean' (fits: 'cls', the mean of",
        ),
        (ast(objective={"head": "standardised"}), "objective.head = 'standardised'"),
        (ast(front_end={"window": "povey"}), "front_end.window = 'povey' (fits: 'hann')"),
        (ast(partial="pad"), "encoder.partial = 'pad' (fits: 'drop')"),
        (ast((), norm="post", stride=None, columns=8), "encoder.norm = 'post' (fits: 'pre')"),
        (
            with_seconds(ast(front_end={"target_frames": None, "padding": "masked"}), 1.0),
            "front_end.padding = 'masked' (fits: 'legacy'), front_end.target_frames = None",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_does(config, message, tmp_path, capsys):
    write_run(tmp_path / "run", config)
    assert main(tmp_path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert "--recipe ast_audioset" in error
    assert not (tmp_path / "hf").exists()


def test_only_an_export_is_replaced(tmp_path, capsys):
    _, out = export(tmp_path, ast())
    assert main(tmp_path) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(tmp_path, "--overwrite") == 0
    (out / "thesis.txt").write_text("mine")
    assert main(tmp_path, "--overwrite") == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == FILES | {"thesis.txt"}


def test_the_card_has_front_end_data_scores_and_a_field_for_the_licence(tmp_path):
    config = replace(ast(), data=("recordings|2024/labels.csv",))
    write_run(tmp_path / "run", config)
    scores = tmp_path / "run" / "evaluation" / "labels" / "as_trained"
    scores.mkdir(parents=True)
    record = {"run": "r", "name": "as_trained", "version": 2, "metric": "accuracy", "value": 0.5}
    record |= {
        "interval_95": [0.4, 0.6],
        "n": 12,
        "corpus": "labels",
        "splits": [{"split": "test"}],
    }
    (scores / "scores.json").write_text(json.dumps(record))
    assert main(tmp_path) == 0
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: unknown")
    assert "128 bins from 20 to 8000 Hz, 25 ms every 10 ms" in card
    assert "recordings\\|2024" in card
    assert (
        "| as_trained (version 2) | labels (test) | accuracy | 0.500 | 0.400 to 0.600 | 12 |"
        in card
    )
    assert "Rain, on a roof" in card
    assert "1.28 s" in card


def test_a_temperature_is_told(tmp_path, capsys):
    write_run(tmp_path / "run", ast())
    Calibration(multi_label=False, temperature=1.5, clips=9).save(tmp_path / "run")
    assert main(tmp_path) == 0
    assert "temperature of 1.5" in capsys.readouterr().err


def test_a_default_run_is_told_what_would_fit(tmp_path, capsys):
    """The recipe finetune pools frequency rows of one class token and masks padding."""
    write_run(tmp_path / "run", settings(LABELS))
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    for name in ("front_end.padding", "encoder.cls_tokens", "objective.pooling"):
        assert name in error
