"""A job that compares unlearned runs with one retrained without the forget set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from papers.worst_forget.unlearning import average_gap, unlearning
from vision.data.pipeline import EvalData
from vision.run.restore import load_run
from vision.scenario.features import features_of


@dataclasses.dataclass(frozen=True)
class CompareUnlearning:
    """A job: compares unlearned runs with a run retrained without the forget set.

    Writes ``unlearning.json``. Metrics of every run: ``NAME/ua``, ``mia``, ``ra``, ``ta``
    (``papers.worst_forget.unlearning``), and ``gap``, the mean distance to the retrained run.

    Attributes:
      forget: file of the keys of the forget set.
      retrained: folder of the run that was trained without the forget set.
      runs: name to folder of the unlearned runs.
      data: all training records, with ``label``.
      test: test records.
    """

    forget: str
    retrained: str
    runs: Mapping[str, str]
    data: EvalData
    test: EvalData

    def run(self, folder: Path) -> dict[str, float]:
        """Raises CheckpointError or WorkdirError where a run cannot be read."""
        names = set(Path(self.forget).read_text(encoding="utf-8").splitlines())
        metrics = {}
        for name, path in {"retrained": self.retrained, **self.runs}.items():
            run = load_run(Path(path))
            train, test = (
                features_of(run, data, ("log_probabilities",), ("label",))
                for data in (self.data, self.test)
            )
            keys = [self.data.source.key(int(i)) for i in train["_index"]]
            metrics[name] = unlearning(
                train["log_probabilities"],
                train["label"],
                np.asarray([key in names for key in keys]),
                test["log_probabilities"],
                test["label"],
            )
        for name in self.runs:
            metrics[name]["gap"] = average_gap(metrics[name], metrics["retrained"])
        (folder / "unlearning.json").write_text(json.dumps(metrics, indent=2) + "\n")
        return {f"{name}/{key}": x for name, row in metrics.items() for key, x in row.items()}
