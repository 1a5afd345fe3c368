"""The records of an evaluation by protocol: a dict, a table in a notebook, and a frame."""

from typing import Any

from melpatch.data_frames import Column, Tabular
from melpatch.markup import Html, table


class Scores(dict[str, dict[str, Any]], Tabular):
    """The record of each protocol by its name, as :func:`melpatch.evaluate` returns them.

    A notebook shows it as a table; :meth:`to_pandas` and :meth:`to_polars` make frames of it, with
    a row per protocol.
    """

    def columns(self) -> dict[str, Column]:
        """Return protocol, corpus, metric, value, the ends of its 95 % interval, clips, and all metrics."""
        records = [*self.values()]
        names = dict.fromkeys(name for record in records for name in record["metrics"])
        intervals = [record["interval_95"] or (None, None) for record in records]
        return {
            "protocol": [*self],
            "corpus": [record["corpus"] for record in records],
            "metric": [record["metric"] for record in records],
            "value": [record["value"] for record in records],
            "low_95": [low for low, _ in intervals],
            "high_95": [high for _, high in intervals],
            "clips": [record["n"] for record in records],
            **{name: [record["metrics"].get(name) for record in records] for name in names},
        }

    def _repr_html_(self) -> Html:
        columns = self.columns()
        heads = ["protocol", "corpus", "metric", "value", "low_95", "high_95", "clips"]
        rows = zip(*(columns[head] for head in heads), strict=True)
        return table(["protocol", "corpus", "metric", "value", "95 % from", "to", "clips"], rows)
