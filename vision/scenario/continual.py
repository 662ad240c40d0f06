"""Works of a stream of tasks: the memory after a stage, and the test of all of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from vision.data.pipeline import EvalData
from vision.evaluators.image_text.embeddings import normalised
from vision.metrics.continual import continual
from vision.probes.herding import herd
from vision.run.restore import load_run
from vision.scenario.features import features_of
from vision.train.tower import count_params


@dataclasses.dataclass(frozen=True)
class Exemplars:
    """The memory after a stage: ``keys.txt``, and ``classes.json``, keys by class as herded.

    Attributes:
      run_of: folder of the stage's run.
      data: all training records of the stage's new classes.
      total: exemplars of all classes so far, shared out equally.
      earlier: folder of the memory before; empty for none. Its classes keep their first ones.
    """

    run_of: str
    data: EvalData
    total: int
    earlier: str = ""

    def run(self, folder: Path) -> dict[str, float]:
        rows = features_of(load_run(Path(self.run_of)), self.data, ("embedding",), ("label",))
        before = Path(self.earlier) / "classes.json" if self.earlier else None
        kept: dict[str, list[str]] = json.loads(before.read_text()) if before else {}
        new = sorted(set(rows["label"].tolist()))
        each = self.total // (len(kept) + len(new))
        kept = {name: keys[:each] for name, keys in kept.items()}
        for label in new:
            mine = np.flatnonzero(rows["label"] == label)
            chosen = mine[herd(rows["embedding"][mine], min(each, len(mine)))]
            places = rows["_index"][chosen].tolist()
            kept[str(label)] = [self.data.source.key(int(i)) for i in places]
        (folder / "classes.json").write_text(json.dumps(kept))
        keys = [key for one in kept.values() for key in one]
        (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys))
        return {"exemplars": float(len(keys)), "per_class": float(each)}


@dataclasses.dataclass(frozen=True)
class ContinualEvaluation:
    """What each stage knows of each task: ``matrix.json`` and the numbers of ``continual``.

    Attributes:
      runs: folder of the run that answers after each stage.
      test: test records of all classes.
      tasks: classes of each task.
      means: per stage the records whose class means answer, instead of the head; empty for it.
      teacher: whether a copy of the network is carried along.
      exemplars: the last memory's folder; empty for none.
      example_bytes: of a stored example.
    """

    runs: tuple[str, ...]
    test: EvalData
    tasks: tuple[tuple[int, ...], ...]
    means: tuple[EvalData, ...] = ()
    teacher: bool = False
    exemplars: str = ""
    example_bytes: int = 0

    def run(self, folder: Path) -> dict[str, float]:
        stages = len(self.tasks)
        right, sizes = np.zeros((stages, stages)), np.zeros(stages)
        floats = 0
        for b, place in enumerate(self.runs):
            run = load_run(Path(place))
            output = "embedding" if self.means else "log_probabilities"
            rows = features_of(run, self.test, (output,), ("label",))
            said, label = rows[output], rows["label"]
            if self.means:
                known = features_of(run, self.means[b], (output,), ("label",))
                classes = np.unique(known["label"])
                means = [normalised(known[output])[known["label"] == c].mean(0) for c in classes]
                answer = classes[np.argmax(normalised(said) @ normalised(np.stack(means)).T, 1)]
                floats = len(classes) * said.shape[1] if not self.exemplars else 0
            else:
                answer = np.argmax(said, 1)
            for k, task in enumerate(self.tasks[: b + 1]):
                mine = np.isin(label, task)
                right[b, k], sizes[k] = (answer[mine] == label[mine]).sum(), mine.sum()
            if b == stages - 1:
                floats += count_params(run.variables.params["model"]) * (2 if self.teacher else 1)
        kept = 0
        if self.exemplars:
            kept = len((Path(self.exemplars) / "keys.txt").read_text().split("\n")) - 1
        (folder / "matrix.json").write_text(
            json.dumps({"right": right.tolist(), "sizes": sizes.tolist()})
        )
        memory = {"memory_bytes": float(floats * 4 + kept * self.example_bytes)}
        return {**continual(right, sizes), **memory}
