"""A model and a run say what they are in a notebook."""

from dataclasses import replace

from journeys.three_sounds import LABELS, settings
from test_markup import Reader

from melpatch.inference.model import Model
from melpatch.training.config import build
from melpatch.training.run import Run


def test_a_model_says_what_it_is():
    config = settings(LABELS)
    model = Model(config, build(config), "cpu")
    assert repr(model) == "Model(Classify on ViT)"
    text = Reader(model._repr_html_()).text
    for part in ("Classify", "ViT", "high, low, noise", "32 bins", "16000 Hz"):
        assert part in text


def test_of_many_labels_the_first_are_named():
    config = replace(settings(LABELS), labels=tuple(f"class {number}" for number in range(30)))
    text = Reader(Model(config, build(config), "cpu")._repr_html_()).text
    assert "class 11 and 18 more" in text


def test_a_run_says_what_it_is(tmp_path):
    run = Run(tmp_path / "<b>", replace(settings(), data=("birds",)))
    page = Reader(run._repr_html_())
    assert f"Run {tmp_path / '<b>'}" in page.text
    for part in ("SSAST", "ViT", "birds", "10 epochs"):
        assert part in page.text
