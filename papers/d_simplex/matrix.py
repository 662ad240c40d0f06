"""Every model of a stream searches what every earlier one has indexed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from papers.d_simplex.simplex import compatibility
from vision.blocks.nearest import nearest
from vision.config.ranges import NonEmpty, checked
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.run.restore import load_run
from vision.scenario.features import features_of


@dataclasses.dataclass(frozen=True)
@checked
class CrossSearch:
    """A job of a scenario: ``matrix.json``, M of ``papers.d_simplex.method``, and its numbers.

    Attributes:
      runs: folders of the models' runs, the oldest first.
      gallery: labelled records that models index.
      queries: labelled records that are searched for; an answer is right where the nearest record
        of the gallery has the same label.
    """

    runs: NonEmpty[tuple[str, ...]]
    gallery: EvalData
    queries: EvalData

    def run(self, folder: Path) -> dict[str, float]:
        """Raises DataError where gallery or queries have a record without a label."""
        indexed, asked = [], []
        for name in self.runs:
            run = load_run(Path(name))
            for rows, data in ((indexed, self.gallery), (asked, self.queries)):
                found = features_of(run, data, ("embedding",), ("label",))
                if (found["label"] < 0).any():
                    raise DataError(f"{data.source.info.name}: a record has no label")
                rows.append((found["embedding"], found["label"]))
        matrix = np.zeros((len(self.runs), len(self.runs)))
        for j, (x, label) in enumerate(indexed):
            for i in range(j, len(asked)):
                queries, wanted = asked[i]
                best = nearest(queries, x, 1)[1][:, 0]
                matrix[i, j] = np.mean(label[best] == wanted)
        (folder / "matrix.json").write_text(json.dumps(matrix.tolist()))
        return compatibility(matrix)
