"""Maps of embeddings."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from melpatch.errors import MelpatchError
from melpatch.plots import embedding_map as module
from melpatch.plots.embedding_map import embedding_map, principal_components


def test_points_are_principal_components():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)) * np.arange(1, 9)
    points, shares = principal_components(vectors)
    pca = PCA(2).fit(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(pca.transform(vectors)), atol=1e-8)
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_)


def test_the_commonest_labels_are_named_and_others_grey(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    labels = [f"class {number}" for number in range(10) for _ in range(number + 2)] + [""]
    vectors = np.random.default_rng(0).normal(size=(len(labels), 4))
    embedding_map(tmp_path / "x.png", vectors, labels, "a run")
    names = [words.get_text() for words in figures[0].legends[0].get_texts()]
    assert names[0] == "others: 6"
    assert names[1:] == [f"class {number}: {number + 2}" for number in range(9, 1, -1)]
    shapes = figures[0].axes[0].collections
    assert len({tuple(shape.get_facecolor()[0]) for shape in shapes}) == 9
    assert "of the variance" in figures[0].axes[0].get_xlabel()


@pytest.mark.parametrize("vectors", [np.ones((5, 4)), np.eye(2), np.arange(5.0)[:, None]])
def test_embeddings_that_do_not_differ_have_no_map(tmp_path, vectors):
    with pytest.raises(MelpatchError, match="a map needs three clips"):
        embedding_map(tmp_path / "x.png", vectors, [""] * len(vectors))
