"""Pictures: real PNG files of a sensible size, which show the numbers they are given."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from melpatch.audio.logmel import LogMel
from melpatch.colours import class_colours
from melpatch.errors import ConfigError, MelpatchError
from melpatch.nn.latent import LatentMaps
from melpatch.objectives.base import Picture
from melpatch.plots import base
from melpatch.plots import clip_views as clip_views_module
from melpatch.plots import confusion as confusion_module
from melpatch.plots import curve as curve_module
from melpatch.plots import latent as latent_module
from melpatch.plots import per_class as per_class_module
from melpatch.plots import pseudo_labels as pseudo_labels_module
from melpatch.plots import spectrogram as spectrogram_module
from melpatch.plots.clip_views import clip_views
from melpatch.plots.confusion import confusion
from melpatch.plots.curve import curve
from melpatch.plots.latent import prediction_maps, view_masks
from melpatch.plots.per_class import per_class
from melpatch.plots.pseudo_labels import pseudo_labels
from melpatch.plots.reliability import reliability_diagram
from melpatch.plots.spectrogram import masked_errors, reconstruction, spectrogram

pytestmark = pytest.mark.usefixtures("draws")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, in order; they are not written."""
    figures = []
    for module in (
        clip_views_module,
        confusion_module,
        curve_module,
        latent_module,
        per_class_module,
        pseudo_labels_module,
        spectrogram_module,
    ):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    return figures


def picture(mels=32, frames=48, fill=torch.nan, start=0, pseudo_labels=None):
    """A picture whose lower half is hidden."""
    clean = torch.from_numpy(
        np.random.default_rng(0).normal(size=(mels, frames)).astype(np.float32)
    )
    hidden = torch.zeros(mels, frames, dtype=torch.bool)
    hidden[: mels // 2] = True
    return Picture(clean, clean.masked_fill(hidden, fill), hidden, clean + 9, start, pseudo_labels)


MAP = picture(pseudo_labels=torch.arange(24).view(4, 6))


def classes(count):
    """A row per class; the scores rise, and the numbers of clips too."""
    return [
        {"label": f"class {i}", "positives": i + 1, "F1": i / count, "AP": None}
        for i in range(count)
    ]


def records(count=100):
    training = [
        {"step": step, "lr": 1e-4 * step, "loss": 5.0 / step, "skipped": False}
        for step in range(1, count + 1)
    ]
    return [
        *training,
        {"step": 50, "val_loss": 0.3, "rank": 7.0},
        {"step": 100, "val_loss": 0.2, "rank": 8.0},
    ]


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: reconstruction(
            path, picture(frames=300, fill=-3.0), seconds_per_frame=0.02, title="a clip"
        ),
        lambda path: pseudo_labels(
            path, MAP, stride=(8, 8), seconds_per_frame=0.02, title="a clip"
        ),
        lambda path: curve(path, records()),
        lambda path: confusion(path, np.eye(3, dtype=int), ["a", "b", "c"]),
        lambda path: per_class(path, classes(12), "F1"),
    ],
    ids=["reconstruction", "pseudo_labels", "curve", "confusion", "per_class"],
)
def test_a_picture_is_a_png_of_a_sensible_size(tmp_path, draw):
    draw(tmp_path / "deep/x.png")
    assert (tmp_path / "deep/x.png").read_bytes().startswith(b"\x89PNG\r\n")
    height, width, _ = imread(tmp_path / "deep/x.png").shape
    assert 500 <= height <= 2500
    assert 600 <= width <= 2000


def with_errors(given):
    return f"reconstruction: error 81.00, of the mean {masked_errors(given)[1]:.2f}"


def test_the_error_stands_beside_that_of_the_mean_of_what_is_visible():
    """Of the upper bin one pixel of three is masked, of the lower one all: it has the mean of all visible ones."""
    clean = torch.tensor([[1.0, 2.0, 4.0], [10.0, 10.0, 10.0]])
    masked = torch.tensor([[True, False, False], [True, True, True]])
    given = Picture(clean, clean, masked, clean + 2)
    error, of_mean = masked_errors(given)
    assert error == pytest.approx(4)
    assert of_mean == pytest.approx(((3 - 1) ** 2 + 3 * (3 - 10) ** 2) / 4)
    assert masked_errors(given._replace(reconstruction=None)) is None
    assert masked_errors(given._replace(masked=torch.zeros(2, 3, dtype=torch.bool))) is None
    assert masked_errors(given._replace(masked=torch.ones(2, 3, dtype=torch.bool))) is None


def test_an_axis_in_hz_marks_octaves_where_the_filters_have_them(tmp_path, drawn):
    front_end = LogMel.Config(sample_rate=16000, n_mels=64)
    values = np.random.default_rng(0).normal(size=(64, 30))
    spectrogram(tmp_path / "x.png", values, front_end, start=2.0, title="a bird")
    panel = drawn[0].axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["125", "500", "1k", "2k", "4k", "8k"]  # 250 has no room
    assert panel.get_ylabel() == "frequency (Hz)"
    assert panel.get_xlim() == pytest.approx((2, 2.3))
    # A tone is loudest in the bin in which its frequency is marked.
    log_mel = LogMel(front_end)
    for hz, place in zip((500, 1000, 2000, 4000), panel.get_yticks()[1:5], strict=True):
        tone = torch.sin(2 * torch.pi * hz * torch.arange(4000) / 16000)
        assert abs(int(log_mel(tone).mean(dim=1).argmax()) + 0.5 - place) <= 1


def titles(panels):
    return [panel.get_title(loc="left") for panel in panels]


@pytest.mark.parametrize(("frames", "grid"), [(48, (1, 3)), (300, (3, 1))])
def test_three_spectrograms_share_scale_and_axes(tmp_path, drawn, frames, grid):
    given = picture(frames=frames)
    reconstruction(tmp_path / "x.png", given, seconds_per_frame=0.02, title="a clip")
    *panels, _ = drawn[0].axes  # the last one is the bar of colours
    assert panels[0].get_gridspec().get_geometry() == grid
    images = [panel.images[0] for panel in panels]
    for values, image in zip((given.clean, given.input, given.reconstruction), images, strict=True):
        np.testing.assert_array_equal(image.get_array().filled(np.nan), values)
        assert image.get_extent() == pytest.approx([0, 0.02 * frames, 0, 32])
        assert image.origin == "lower"
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_clim() == pytest.approx(np.percentile(given.clean, (0.5, 99.9)))
    assert titles(panels) == ["clean", "masked (50%)", with_errors(given)]
    assert panels[2].get_xlabel() == "time (s)"
    assert panels[0].get_ylabel() == "mel bin"
    assert drawn[0].get_suptitle() == "a clip"


@pytest.mark.parametrize(("frames", "grid"), [(48, (1, 4)), (300, (4, 1))])
def test_a_mask_that_other_values_cover_has_a_panel_of_its_own(tmp_path, drawn, frames, grid):
    given = picture(frames=frames, fill=-3.0, start=50)
    reconstruction(tmp_path / "x.png", given, seconds_per_frame=0.02)
    *panels, _ = drawn[0].axes
    assert panels[0].get_gridspec().get_geometry() == grid
    assert titles(panels) == ["clean", "corrupted", "mask (50%)", with_errors(given)]
    clean, corrupted, mask, rebuilt = (panel.images[0] for panel in panels)
    for values, image in zip(
        (given.clean, given.input, given.reconstruction), (clean, corrupted, rebuilt), strict=True
    ):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == clean.get_clim()
    np.testing.assert_array_equal(mask.get_array().mask, given.masked)
    for panel in panels:
        assert panel.images[0].get_extent() == pytest.approx([1, 1 + 0.02 * frames, 0, 32])
        assert panel.get_xlim() == pytest.approx((1, 1 + 0.02 * frames))


def test_hidden_values_are_grey(tmp_path, drawn):
    reconstruction(tmp_path / "x.png", picture(), seconds_per_frame=0.01)
    image = drawn[0].axes[1].images[0]
    red, green, blue, _ = image.to_rgba(image.get_array())[0, 0]
    assert red == green == blue
    colours = image.cmap(np.linspace(0, 1, 256))[1:-1]
    assert np.ptp(colours[:, :3], axis=1).min() > 0.01  # the colour map itself holds no grey


def test_numbers_that_are_not_finite_do_not_spoil_the_scale(tmp_path, drawn):
    given = picture()
    expected = np.percentile(given.clean[1:], (0.5, 99.9))
    given.clean[0], given.reconstruction[3, 3] = -torch.inf, torch.nan
    reconstruction(tmp_path / "x.png", given, seconds_per_frame=0.01)
    assert drawn[0].axes[0].images[0].get_clim() == pytest.approx(expected)


def test_a_picture_without_numbers_is_refused(tmp_path):
    given = picture()
    given.clean[:] = torch.nan
    with pytest.raises(MelpatchError, match="nothing to draw"):
        reconstruction(tmp_path / "x.png", given, seconds_per_frame=0.01)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(("frames", "grid"), [(44, (1, 2)), (300, (2, 1))])
def test_every_patch_has_the_colour_of_its_class(tmp_path, drawn, frames, grid):
    columns = -(-frames // 8)
    classes = torch.arange(4 * columns).view(4, columns) // 2 * 7
    given = picture(frames=frames, start=50, pseudo_labels=classes)
    pseudo_labels(tmp_path / "x.png", given, stride=(8, 8), seconds_per_frame=0.02, title="a clip")
    clean, below = drawn[0].axes
    assert clean.get_gridspec().get_geometry() == grid
    np.testing.assert_array_equal(clean.images[0].get_array(), given.clean)
    np.testing.assert_array_equal(below.images[0].get_array(), class_colours(classes))
    assert below.images[0].origin == "lower"
    assert below.images[0].get_extent() == pytest.approx([1, 1 + 0.02 * 8 * columns, 0, 32])
    assert below.get_xlim() == pytest.approx(
        (1, 1 + 0.02 * frames)
    )  # a patch may reach beyond the last frame
    assert titles(drawn[0].axes) == [
        "clean",
        f"the teacher's classes: {2 * columns} in {4 * columns} patches",
    ]
    assert drawn[0].get_suptitle() == "a clip"


def test_the_most_frequent_classes_are_named_and_the_others_counted(tmp_path, drawn):
    numbers = [900] * 9 + [3] * 7 + [*range(100, 148)]
    given = picture(frames=128, pseudo_labels=torch.tensor(numbers).view(4, 16))
    pseudo_labels(tmp_path / "x.png", given, stride=(8, 8), seconds_per_frame=0.01)
    (legend,) = drawn[0].legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == [
        "900: 9",
        "3: 7",
        *(f"{number}: 1" for number in range(100, 110)),
        "38 more: 38",
    ]
    shown = [patch.get_facecolor()[:3] for patch in legend.get_patches()]
    np.testing.assert_allclose(
        shown, class_colours(torch.tensor([900, 3, *range(100, 110)])), atol=1e-6
    )


def test_few_classes_are_all_named(tmp_path, drawn):
    given = picture(frames=16, pseudo_labels=torch.tensor([[5, 5], [5, 5], [5, 2], [2, 5]]))
    pseudo_labels(tmp_path / "x.png", given, stride=(8, 8), seconds_per_frame=0.01)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["5: 6", "2: 2"]


def test_a_picture_without_classes_is_refused(tmp_path):
    with pytest.raises(MelpatchError, match="without classes"):
        pseudo_labels(tmp_path / "x.png", picture(), stride=(8, 8), seconds_per_frame=0.01)


def lines(panel):
    return {line.get_label(): line.get_xydata() for line in panel.lines}


def test_curves_hold_the_numbers_of_the_records(tmp_path, drawn):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records()))
    curve(tmp_path / "x.png", file)
    loss, lr, rank = drawn[0].axes
    assert [panel.get_ylabel() for panel in (loss, lr, rank)] == ["loss", "lr", "rank"]
    assert {panel.get_xlabel() for panel in (loss, lr, rank)} == {"step"}
    steps = np.arange(1, 101)
    np.testing.assert_allclose(lines(loss)["training"], np.stack([steps, 5 / steps], axis=1))
    np.testing.assert_allclose(lines(loss)["validation"], [[50, 0.3], [100, 0.2]])
    np.testing.assert_allclose(lines(lr)["training"][:, 1], 1e-4 * steps)
    assert lines(lr).keys() == {"training"}  # nothing to smooth
    np.testing.assert_allclose(lines(rank)["training"], [[50, 7], [100, 8]])
    assert [text.get_text() for text in drawn[0].legends[0].texts] == [
        "training",
        "training, running mean",
        "validation",
    ]


def test_asked_metrics_are_drawn_in_the_asked_order(tmp_path, drawn):
    curve(tmp_path / "x.png", records(), ["rank", "loss"])
    assert [panel.get_ylabel() for panel in drawn[0].axes] == ["rank", "loss"]


def test_a_metric_of_the_validation_split_alone_is_drawn(tmp_path, drawn):
    curve(tmp_path / "x.png", [{"step": 1, "val_mAP": 0.5}])
    np.testing.assert_allclose(lines(drawn[0].axes[0])["validation"], [[1, 0.5]])
    assert drawn[0].axes[0].get_ylabel() == "mAP"


def test_the_majority_rate_is_a_line_beside_the_accuracy(tmp_path, drawn):
    numbers = {"val_accuracy": 0.75, "val_balanced_accuracy": 0.5, "val_majority_rate": 0.7}
    curve(tmp_path / "x.png", [{"step": 1} | numbers])
    accuracy, balanced = drawn[0].axes
    assert [accuracy.get_ylabel(), balanced.get_ylabel()] == ["accuracy", "balanced_accuracy"]
    assert lines(accuracy)["majority rate"][:, 1].tolist() == [0.7, 0.7]
    assert "majority rate" not in lines(balanced)


@pytest.mark.parametrize("count", [31, 80, 200])
def test_the_running_mean_is_that_of_the_finite_neighbours(tmp_path, drawn, count):
    values = np.random.default_rng(count).normal(size=count)
    values[10:25] = np.nan
    values[30] = np.inf
    curve(
        tmp_path / "x.png",
        [{"step": step, "loss": float(value)} for step, value in enumerate(values)],
    )
    values[30] = np.nan
    shown = lines(drawn[0].axes[0])
    np.testing.assert_allclose(shown["training"][:, 1], values)
    reach = count // 40
    windows = [values[max(i - reach, 0) : i + reach + 1] for i in range(count)]
    expected = [np.mean(w[np.isfinite(w)]) if np.isfinite(w).any() else np.nan for w in windows]
    np.testing.assert_allclose(shown["training, running mean"][:, 1], expected)


def test_records_of_skipped_steps_and_warnings_are_passed_over(tmp_path, drawn):
    others = [
        {"step": 2, "skipped": True, "clip_keys": [1]},
        {"step": 3, "warning": "it fails"},
        {"loss": 9.0},
    ]
    curve(tmp_path / "x.png", [*others, {"step": 1, "loss": 1.0}])
    assert len(drawn[0].axes) == 1
    np.testing.assert_allclose(lines(drawn[0].axes[0])["training"], [[1, 1.0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no metric to draw; there are: none"),
        ('{"step": 1, "loss": NaN}', "no metric to draw"),
        ('{"step": 1, "loss": 2}\n{"step": 2, "lo', r"metrics.jsonl, line 2: not JSON"),
        (None, "metrics.jsonl: cannot be read"),
    ],
)
def test_a_file_without_curves_says_so(tmp_path, content, message):
    file = tmp_path / "metrics.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(MelpatchError, match=message):
        curve(tmp_path / "x.png", file)


def test_an_unknown_metric_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(MelpatchError, match="no metric 'los'; there are: loss, lr, rank"):
        curve(tmp_path / "x.png", records(), ["los"])


def test_confusions_are_shares_of_their_rows_with_counts(tmp_path, drawn):
    matrix = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    confusion(tmp_path / "x.png", matrix, ("dog", "a$b$c", "cat"), "accuracy 0.75")
    panel = drawn[0].axes[0]
    shares = panel.images[0].get_array()
    np.testing.assert_allclose(shares.filled(-1), [[0.75, 0.25, 0], [-1, -1, -1], [0.25, 0, 0.75]])
    written = {text.get_position(): text.get_text() for text in panel.texts}
    assert written == {(0, 0): "6", (1, 0): "2", (0, 2): "1", (2, 2): "3"}
    assert [label.get_text() for label in panel.get_yticklabels()] == ["dog", "a$b$c", "cat"]
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("true class", "predicted class")
    assert drawn[0].get_suptitle() == "accuracy 0.75"


@pytest.mark.parametrize(("size", "counts"), [(1, 1), (15, 15), (16, 0), (50, 0)])
def test_large_matrices_bear_no_numbers(tmp_path, drawn, size, counts):
    confusion(tmp_path / "x.png", 3 * np.eye(size, dtype=int), [f"class {i}" for i in range(size)])
    assert len(drawn[0].axes[0].texts) == counts
    assert drawn[0].get_figwidth() * base.DPI <= 2000


def test_matrices_that_cannot_be_drawn_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="51 classes"):
        confusion(tmp_path / "x.png", np.eye(51, dtype=int), ["a"] * 51)
    with pytest.raises(MelpatchError, match=r"\(3, 3\) for 2 labels"):
        confusion(tmp_path / "x.png", np.eye(3, dtype=int), ["a", "b"])


def test_classes_are_sorted_by_their_score_with_their_number_of_clips(tmp_path, drawn):
    table = [*classes(4), {"label": "a$b$c", "positives": 0, "F1": None}]
    per_class(tmp_path / "x.png", table, "F1", "accuracy 0.50")
    (panel,) = drawn[0].axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "class 3",
        "class 2",
        "class 1",
        "class 0",
    ]
    assert [bar.get_width() for bar in panel.patches] == [0.75, 0.5, 0.25, 0.0]
    assert [text.get_text() for text in panel.texts] == [
        "0.75  (4)",
        "0.50  (3)",
        "0.25  (2)",
        "0.00  (1)",
    ]
    assert panel.yaxis_inverted()  # the best on top
    assert panel.get_xlabel() == "F1 (number of clips); 1 without a score: a$b$c"
    assert drawn[0].get_suptitle() == "accuracy 0.50"


def test_of_many_classes_the_best_and_the_worst_are_shown(tmp_path, drawn):
    per_class(tmp_path / "x.png", classes(100), "F1")
    (panel,) = drawn[0].axes
    shown = [label.get_text() for label in panel.get_yticklabels()]
    assert shown == [f"class {i}" for i in [*range(99, 69, -1), *range(29, -1, -1)]]
    assert panel.get_ylabel() == "best and worst 30 of 100 classes"


def test_classes_without_any_score_are_refused(tmp_path):
    with pytest.raises(
        MelpatchError, match=r"no class can be drawn, since none has a score \(AP\)"
    ):
        per_class(tmp_path / "x.png", classes(3), "AP")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(MelpatchError, match="cannot be written"):
        confusion(tmp_path, np.eye(2, dtype=int), ["a", "b"])


def test_without_matplotlib_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MelpatchError, match=r"pip install 'melpatch\[plots\]'"):
        confusion(tmp_path / "x.png", np.eye(2, dtype=int), ["a", "b"])


def test_matplotlib_is_fetched_late_and_its_global_state_left_alone(tmp_path):
    code = f"""
import sys, pathlib, numpy
from melpatch.plots.confusion import confusion
from melpatch.plots import curve, pseudo_labels, spectrogram
assert "matplotlib" not in sys.modules
confusion(pathlib.Path({str(tmp_path)!r}) / "x.png", numpy.eye(2, dtype=int), ["a", "b"])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert (tmp_path / "x.png").exists()


def test_a_reliability_diagram_is_drawn(tmp_path):
    bins = {"answers": [20.0, 20.0], "confidence": [0.4, 0.9], "right": [0.3, 0.95]}
    path = tmp_path / "reliability.png"
    reliability_diagram(path, {"calibrated (ECE 0.075)": bins, "uncalibrated": bins}, "a title")
    assert path.read_bytes()[:4] == b"\x89PNG"


def latent_picture(views):
    """A picture with maps of a grid of 4 x 6 patches, of which the first row has no target."""
    values = torch.arange(24.0).view(4, 6)
    values[0] = torch.nan
    masks = torch.arange(views)[:, None, None] == torch.arange(24).view(4, 6) % views
    return picture()._replace(latent=LatentMaps(masks, values, 10 * values))


def test_targets_and_errors_are_drawn_over_the_spectrogram(drawn):
    where = {"stride": (8, 8), "seconds_per_frame": 0.01}
    prediction_maps(Path("maps.png"), latent_picture(1), **where)
    clean, target, error = drawn[0].axes[:3]
    assert clean.get_xlim() == target.get_xlim() == (0, 0.48)
    shown = target.images[0].get_array()
    assert shown.mask[0].all()
    assert shown[1:].tolist() == latent_picture(1).latent.target[1:].tolist()
    assert error.images[0].get_array()[2, 3] == 150
    with pytest.raises(MelpatchError, match="a picture without targets in latent space"):
        prediction_maps(Path("maps.png"), picture(), **where)


@pytest.mark.parametrize("views", [1, 3, 6])
def test_every_view_has_its_mask(views, drawn):
    view_masks(Path("views.png"), latent_picture(views))
    titles = [panel.get_title(loc="left") for panel in drawn[0].axes]
    assert [title for title in titles if title] == [
        f"view {number} ({1 / views:.0%})" for number in range(1, views + 1)
    ]


@pytest.mark.parametrize("frames", [30, 400])
def test_a_clip_is_drawn_beside_its_views_or_above_them(frames, drawn):
    clip = torch.rand(16, frames)
    views = {"clip": clip, "view 1": clip + 5, "view 2": clip[:, :20]}
    clip_views(Path("two_views.png"), views, seconds_per_frame=0.01, title="a title")
    panels = drawn[0].axes[:3]
    assert [panel.get_title(loc="left") for panel in panels] == list(views)
    assert [panel.get_xlim()[1] for panel in panels] == pytest.approx(
        [frames * 0.01, frames * 0.01, 0.2]
    )
    beside = len({panel.get_gridspec().ncols for panel in panels} | {1}) > 1
    assert beside == (frames == 30)
    for panel, values in zip(panels, views.values(), strict=True):
        assert torch.equal(torch.tensor(panel.images[0].get_array().data), values)
        assert panel.images[0].get_clim() == panels[0].images[0].get_clim()
    with pytest.raises(MelpatchError, match="no views to draw"):
        clip_views(Path("two_views.png"), {}, seconds_per_frame=0.01)
