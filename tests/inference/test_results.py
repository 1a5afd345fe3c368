"""What a model returns: still lists and tuples, with columns for frames and tables for notebooks."""

import pickle

import numpy as np
from test_markup import Reader

from melpatch.inference.results import Frames, Prediction, Predictions

LOW = Prediction(0.0, 1.0, {"<low>": 0.75, "high": 0.25})
HIGH = Prediction(1.0, 2.0, {"<low>": 0.1, "high": 0.9}, silent=True, novelty=0.5)


def frames(count=3):
    return Frames(np.arange(count) * 0.5, np.arange(count) * 0.5 + 0.5, np.ones((count, 4)))


def test_predictions_are_a_list():
    both = Predictions([LOW, HIGH])
    assert both == [LOW, HIGH]
    assert both[1].label == "high"
    assert pickle.loads(pickle.dumps(both)) == both


def test_predictions_have_a_row_each():
    assert Predictions([LOW, HIGH]).columns() == {
        "start": [0.0, 1.0],
        "end": [1.0, 2.0],
        "label": ["<low>", "high"],
        "silent": [False, True],
        "novelty": [None, 0.5],
        "<low>": [0.75, 0.1],
        "high": [0.25, 0.9],
    }
    assert Predictions([]).columns()["start"] == []


def test_a_class_that_is_called_like_a_column_keeps_a_column_of_its_own():
    columns = Predictions([Prediction(0.0, 1.0, {"label": 0.75, "b": 0.25})]).columns()
    assert columns["label"] == ["label"]
    assert [0.75] in columns.values()
    assert len(columns) == 7


def test_frames_are_a_tuple_of_three():
    start, end, vectors = frames()
    assert (len(start), len(end), vectors.shape) == (3, 3, (3, 4))
    assert repr(frames()).startswith("Frames(start=")
    columns = frames().columns()
    assert [*columns] == ["start", "end", "0", "1", "2", "3"]
    assert columns["end"].tolist() == [0.5, 1.0, 1.5]
    again = pickle.loads(pickle.dumps(frames()))
    assert isinstance(again, Frames)
    np.testing.assert_array_equal(again.vectors, vectors)


def test_a_notebook_shows_labels_as_text_and_no_more_rows_than_can_be_read():
    for shown in (LOW, Predictions([LOW, HIGH])):
        page = Reader(shown._repr_html_())
        assert "<low>" in page.text
        assert not any(name == "low" for name, _ in page.elements)
    page = Reader(Predictions([LOW] * 50)._repr_html_())
    assert "50 predictions, of which the first 20 are shown" in page.text
    assert sum(name == "tr" for name, _ in page.elements) == 21
    page = Reader(frames()._repr_html_())
    assert "3 vectors of 4 dimensions" in page.text
    assert "2.000" in page.text  # the length of (1, 1, 1, 1)
