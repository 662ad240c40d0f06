"""Jobs of a stream of tasks: the exemplar memory after a stage, and the test of all stages."""

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
        keys_by_class: dict[str, list[str]] = json.loads(before.read_text()) if before else {}
        new = sorted(set(rows["label"].tolist()))
        per_class = self.total // (len(keys_by_class) + len(new))
        keys_by_class = {name: keys[:per_class] for name, keys in keys_by_class.items()}
        for label in new:
            of_class = np.flatnonzero(rows["label"] == label)
            chosen = of_class[herd(rows["embedding"][of_class], min(per_class, len(of_class)))]
            places = rows["_index"][chosen].tolist()
            keys_by_class[str(label)] = [self.data.source.key(int(i)) for i in places]
        (folder / "classes.json").write_text(json.dumps(keys_by_class))
        keys = [key for keys_of_class in keys_by_class.values() for key in keys_of_class]
        (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys))
        return {"exemplars": float(len(keys)), "per_class": float(per_class)}


@dataclasses.dataclass(frozen=True)
class ContinualEvaluation:
    """Accuracy of every stage on every task: ``matrix.json`` and the numbers of ``continual``.

    Attributes:
      runs: folder of the run that predicts after each stage.
      test: test records of all classes.
      tasks: classes of each task.
      means: per stage the records whose class means classify, instead of the head; empty for
        the head.
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
        correct, sizes = np.zeros((stages, stages)), np.zeros(stages)
        floats = 0
        for b, run_folder in enumerate(self.runs):
            run = load_run(Path(run_folder))
            output = "embedding" if self.means else "log_probabilities"
            rows = features_of(run, self.test, (output,), ("label",))
            outputs, label = rows[output], rows["label"]
            if self.means:
                exemplar_rows = features_of(run, self.means[b], (output,), ("label",))
                classes = np.unique(exemplar_rows["label"])
                means = [
                    normalised(exemplar_rows[output])[exemplar_rows["label"] == c].mean(0)
                    for c in classes
                ]
                predicted = classes[
                    np.argmax(normalised(outputs) @ normalised(np.stack(means)).T, 1)
                ]
                floats = len(classes) * outputs.shape[1] if not self.exemplars else 0
            else:
                predicted = np.argmax(outputs, 1)
            for k, task in enumerate(self.tasks[: b + 1]):
                of_task = np.isin(label, task)
                correct[b, k], sizes[k] = (
                    (predicted[of_task] == label[of_task]).sum(),
                    of_task.sum(),
                )
            if b == stages - 1:
                floats += count_params(run.variables.params["model"]) * (2 if self.teacher else 1)
        exemplars = 0
        if self.exemplars:
            exemplars = len((Path(self.exemplars) / "keys.txt").read_text().split("\n")) - 1
        (folder / "matrix.json").write_text(
            json.dumps({"right": correct.tolist(), "sizes": sizes.tolist()})
        )
        memory = {"memory_bytes": float(floats * 4 + exemplars * self.example_bytes)}
        return {**continual(correct, sizes), **memory}
