"""Modules for benchmarks: what HEAR's validator and X-ARES's checker ask, and the vectors of the run."""

import ast
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from journeys.three_sounds import LABELS, settings, write_run
from places import shared

from melpatch import cli
from melpatch.inference.model import load

OWN = {"melpatch", "numpy", "torch"}
PACKAGES = {"hear": OWN, "xares": OWN, "mteb": OWN - {"torch"} | {"mteb"}, "evar": OWN | {"evar"}}
"""What each module imports."""
RATE = 16000


class BaseAudioRepr(torch.nn.Module):
    """As EVAR has it: it keeps the settings."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg


STANDINS = {
    "mteb": {},
    "mteb.models": {"ModelMeta": lambda **facts: types.SimpleNamespace(**facts)},
    "mteb.models.abs_encoder": {"AbsEncoder": object},
    "evar": {},
    "evar.ar_base": {"BaseAudioRepr": BaseAudioRepr},
}


@pytest.fixture(scope="module", autouse=True)
def standins():
    """The packages of benchmarks, with the little of them that the modules use."""
    with pytest.MonkeyPatch.context() as patch:
        for name, content in STANDINS.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            patch.setitem(sys.modules, name, module)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("it's $RUN")
    write_run(folder / "run", settings())
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load(folder / "run")


def export(run, target, *words):
    """Export a run for a benchmark; return the path of its module."""
    out = run.parent / ("evar_out" if target == "evar" else f"{target}_module.py")
    command = ["export", str(run), "--to", target, "--out", str(out), "--overwrite", *words]
    assert cli.main(command) == 0
    return out / "ar_melpatch.py" if target == "evar" else out


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hear(folder):
    return imported(export(folder / "run", "hear"))


def waves(clips=3, seconds=0.7):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(clips, round(seconds * RATE), generator=generator)


@pytest.mark.parametrize("target", PACKAGES)
def test_a_module_is_small_and_imports_only_what_it_uses(target, folder):
    text = export(folder / "run", target).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 70
    assert max(map(len, text.replace(str(folder), "").splitlines())) <= 100
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert {name.partition(".")[0] for name in names} == PACKAGES[target]


def test_hear_has_what_the_validator_asks_for(hear):
    model = hear.load_model()
    assert isinstance(model, torch.nn.Module)
    model.to("cpu")
    assert model.sample_rate in (16000, 22050, 44100, 48000)
    assert type(model.scene_embedding_size) is int
    assert type(model.timestamp_embedding_size) is int
    audio = 2 * torch.rand(5, 2 * model.sample_rate, generator=torch.Generator()) - 1
    frames, times = hear.get_timestamp_embeddings(audio, model)
    assert frames.dtype == torch.float32
    assert frames.shape == (*times.shape, model.timestamp_embedding_size)
    assert len(frames) == len(audio)
    steps = torch.diff(times)
    assert (steps - steps.mean()).abs().max() < 1e-3
    vectors = hear.get_scene_embeddings(audio[:, :30001], model)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (5, model.scene_embedding_size)


def test_hear_gives_the_vectors_of_the_run_in_milliseconds(hear, model, folder):
    audio = waves(seconds=2.5)
    loaded = hear.load_model(str(folder / "run"))
    vectors = hear.get_scene_embeddings(audio, loaded)
    frames, times = hear.get_timestamp_embeddings(audio, loaded)
    for number, wave in enumerate(audio):
        np.testing.assert_allclose(vectors[number], model.embed(wave, RATE), atol=1e-5)
        expected = model.embed(wave, RATE, hop=0.16)
        np.testing.assert_allclose(frames[number], expected.vectors, atol=1e-5)
        # The last frame may hold less sound, but lies where the others say.
        middles = 500 * (expected.start + expected.end)
        np.testing.assert_allclose(times[number, :-1], middles[:-1], atol=1e-2)
    assert times[0, 0] == 80


@pytest.mark.parametrize("samples", [1, 100, 16001])
def test_hear_takes_silence_and_clips_of_any_length(hear, samples):
    loaded = hear.load_model()
    audio = torch.cat([torch.zeros(1, samples), waves()[:1, :1].expand(1, samples)])
    vectors = hear.get_scene_embeddings(audio, loaded)
    frames, times = hear.get_timestamp_embeddings(audio, loaded)
    assert vectors.isfinite().all()
    assert frames.isfinite().all()
    assert times.shape == frames.shape[:2]
    assert times.shape[1] >= 1


def test_hear_is_given_a_rate_that_it_has(tmp_path, capsys):
    config = settings()
    slow = type(config.front_end)(sample_rate=8000, n_mels=32)
    config = type(config)(**{**vars(config), "front_end": slow})
    write_run(tmp_path / "run", config)
    module = imported(export(tmp_path / "run", "hear"))
    assert module.Model.sample_rate == 16000
    assert "HEAR has no data at 8000 Hz" in capsys.readouterr().err
    audio = waves(clips=1)
    vectors = module.get_scene_embeddings(audio, module.load_model())
    expected = load(tmp_path / "run").embed(audio[0], 16000)
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls+std", "segments=2"])
def test_a_pooling_is_that_of_clips_and_frames_have_its_mean(pooling, folder, model):
    module = imported(export(folder / "run", "hear", "--pooling", pooling))
    loaded = module.load_model()
    audio = waves(clips=1)
    vectors = module.get_scene_embeddings(audio, loaded)
    np.testing.assert_allclose(vectors[0], model.embed(audio[0], RATE, pooling=pooling), atol=1e-5)
    frames, _ = module.get_timestamp_embeddings(audio, loaded)
    assert frames.shape[2] == loaded.timestamp_embedding_size == 16


def test_xares_has_what_the_checker_asks_for(folder, model):
    module = imported(export(folder / "run", "xares"))
    (name,) = [name for name in dir(module) if name.endswith("Encoder")]
    encoder = getattr(module, name)()
    assert isinstance(encoder, torch.nn.Module)
    audio = torch.randn(2, 50000, generator=torch.Generator().manual_seed(1))
    frames = encoder(audio)
    hops = 50000 / encoder.sampling_rate / (encoder.hop_size_in_ms / 1000)
    assert frames.shape == (2, np.ceil(hops), encoder.output_dim)
    expected = model.embed(audio[1], RATE, hop=encoder.hop_size_in_ms / 1000)
    np.testing.assert_allclose(frames[1], expected.vectors, atol=1e-5)
    assert encoder(torch.zeros(1, 1)).isfinite().all()


def test_mteb_encodes_recordings_of_any_rate_and_length(folder, model):
    module = imported(export(folder / "run", "mteb"))
    audio = [
        {"array": wave.numpy()[:length], "sampling_rate": rate}
        for wave, length, rate in zip(waves(), (9000, 1, 11025), (16000, 16000, 44100), strict=True)
    ]
    encoder = module.MelpatchEncoder(device="cpu")
    given = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    vectors = encoder.encode([{"audio": audio[:2]}, {"audio": audio[2:]}], **given)
    expected = [model.embed(item["array"], item["sampling_rate"]) for item in audio]
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)
    meta = encoder.mteb_model_meta
    dim = 2 * 3 * (16 + 2 * 16)  # rows, statistics, channels of a token and of its patch
    assert (meta.name, meta.embed_dim, meta.modalities) == ("melpatch/run", dim, ["audio"])
    encoder_size = sum(part.numel() for part in model.objective.encoder.parameters())
    assert meta.n_parameters == encoder_size


def test_evar_has_vectors_frames_and_settings(folder, model):
    path = export(folder / "run", "evar")
    module = imported(path)
    lines = path.with_name("melpatch.yaml").read_text(encoding="utf-8").splitlines()
    config = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != "#")
    assert config["audio_repr"] == f"{path.stem}.{module.AR_Melpatch.__name__}"
    run = ast.literal_eval(config["weight_file"])
    given = types.SimpleNamespace(weight_file=run, sample_rate=int(config["sample_rate"]))
    representation = module.AR_Melpatch(given)
    audio = waves()
    vectors = representation(audio)
    assert vectors.shape == (3, int(config["feature_d"]))
    np.testing.assert_allclose(vectors[2], model.embed(audio[2], RATE), atol=1e-5)
    frames = representation.encode_frames(audio)
    expected = model.embed(audio[2], RATE, hop=0.16).vectors
    np.testing.assert_allclose(frames[2].T, expected, atol=1e-5)


def test_a_classifier_embeds_by_its_own_pooling(tmp_path):
    write_run(tmp_path / "run", settings(LABELS, pooling="cls"))
    module = imported(export(tmp_path / "run", "hear"))
    assert module.POOLING == "cls"
    assert module.FRAME_POOLING == "mean"


def test_a_module_that_cannot_be_imported_is_refused(folder, capsys):
    out = str(folder / "my-run.py")
    assert cli.main(["export", str(folder / "run"), "--to", "hear", "--out", out]) == 2
    assert "give a name of letters, digits and _" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["hear", "run"])
def test_a_model_of_other_code_is_told_to_be_imported_first(target, tmp_path, capsys):
    folder = shared("golden/weights/hf_ast")
    out = str(tmp_path / ("out.py" if target == "hear" else "out"))
    assert cli.main(["export", str(folder), "--to", target, "--out", out]) == 2
    assert "melpatch import makes one" in capsys.readouterr().err
