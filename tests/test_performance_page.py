"""The page of performance is made of the parts that ran, and the blocks of torch compute what ours do."""

import importlib
import json
import sys

import pytest
import torch
from places import ROOT

from melpatch.nn.transformer import Transformer


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


STEP = {"size": "base", "precision": "32-true", "batch_size": 4, "way": "eager"}
RECORDS = {
    "vectors": [
        {
            "size": "tiny",
            "precision": "32-true",
            "ratio": [0.9, 0.8, 1.0],
            "ours_cpu_seconds_per_clip": 0.45,
            "transformers_cpu_seconds_per_clip": 0.5,
        }
    ],
    "blocks": [
        STEP | {"task": task, "way": way, "rounds": rounds}
        for task, way, rounds in (
            ("embed", "eager", [1.0, 2.0, 3.0]),
            ("ssast", "eager", [1.0, 1.0, 1.0]),
            ("embed", "torch", [2.0, 2.0, 2.0]),
            ("ssast", "torch", [1.0, 4.0, 2.0]),
        )
    ],
    "ssast": [
        STEP | {"task": "ssast_published", "rounds": [4.0]},
        STEP | {"task": "ssast_patch", "rounds": [1.0]},
    ],
    "asit": [
        STEP | {"task": "asit_published", "rounds": [1.0]},
        STEP | {"task": "asit_2023", "rounds": [1.0]},
        STEP | {"task": "asit", "rounds": [1.0]},
    ],
}
for record in (one for name in ("blocks", "ssast", "asit") for one in RECORDS[name]):
    record["cpu_seconds_of_rounds"] = record.pop("rounds")
    record["median_cpu_seconds_per_clip"] = sorted(record["cpu_seconds_of_rounds"])[-1] / 4


@pytest.fixture
def performance(benchmark, monkeypatch):
    """The benchmark, with parts that print what was found elsewhere; decoding fails."""
    script = benchmark("performance")
    told = "import json, sys; print(*map(json.dumps, json.loads(sys.argv[1])), sep='\\n')"
    toys = {
        name: script.Part(60, ((sys.executable, "-c", told, json.dumps(records)),))
        for name, records in RECORDS.items()
    }
    failing = (sys.executable, "-c", "raise SystemExit('no sound')")
    toys["decoding"] = script.Part(60, (failing,))
    assert list(script.parts()) == list(toys) == list(script.TITLES)
    monkeypatch.setattr(script, "parts", lambda: toys)
    return script


def test_a_page_has_the_ratio_of_each_pair_and_what_failed(performance, tmp_path):
    performance.main(performance.Config(out=tmp_path))
    page = (tmp_path / "performance.md").read_text()
    for row in (
        "| tiny, 32-true | 0.90 (0.80 to 1.00) | 0.45 | 0.5 | CPU-s per clip |",
        "| embed, base, 32-true | 1.00 (0.50 to 1.50) | 0.75 | 0.5 | CPU-s per clip |",
        "| ssast, base, 32-true | 0.50 (0.25 to 1.00) | 0.25 | 1 | CPU-s per clip |",
        "| ssast_patch, base, 32-true | 0.25 (0.25 to 0.25) | 0.25 | 1 | CPU-s per clip |",
        "| asit_2023, base, 32-true | 1.00 (1.00 to 1.00) | 0.25 | 0.25 | CPU-s per clip |",
        "failed (exit code 1): no sound",
    ):
        assert f"\n{row}\n" in page
    assert page.count("CPU-s per clip") == 5
    whole = json.loads((tmp_path / "performance.json").read_text())
    assert whole["parts"]["ssast"]["records"] == RECORDS["ssast"]


def test_a_part_that_does_not_exist_is_refused(performance, tmp_path, capsys):
    with pytest.raises(SystemExit):
        performance.main(performance.Config(out=tmp_path / "out", parts=("speed",)))
    assert "no part 'speed'; there are: vectors, blocks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("training", [True, False])
def test_blocks_of_torch_compute_what_ours_do(benchmark, norm, training):
    network = Transformer(12, 2, 3, norm=norm).train(training)
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(training):
        expected, _ = network(x)
        benchmark("torch_blocks").give_torch_blocks(network)
        network.train(training)
        torch.testing.assert_close(network(x)[0], expected)


def test_decoding_is_timed_beside_libsndfile(benchmark, capsys):
    decoding = benchmark("decoding")
    decoding.main(decoding.Config(clips=1, seconds=2.0, rounds=1))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["format"] for one in found[::2]] == list(decoding.FORMATS)
    assert all(one["least"] <= one["ratio"] <= one["largest"] for one in found)


def test_recordings_are_decoded_by_their_kind(benchmark, tmp_path):
    decoding = benchmark("decoding")
    files = [tmp_path / name for name in ("a.WAV", "b.ogg", "c.wav")]
    assert decoding.groups(decoding.Config(data=tuple(files)), tmp_path) == {
        "wav": [files[0], files[2]],
        "ogg": [files[1]],
    }


def test_torchs_blocks_are_a_way_of_the_benchmark_of_speed(benchmark, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    speed = benchmark("speed")
    for task in ("ssast", "embed"):
        ours, theirs = (
            speed.Stepper(
                speed.Setting("nano", "32-true", 1, 1.0, 2, task, way), speed.Config(rounds=1)
            )
            for way in ("eager", "torch")
        )
        for stepper in (ours, theirs):
            stepper.take()
        assert theirs.count() == ours.count()
