"""The job between fine-tuning stages: rounds of active self-paced learning on a run's features."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from papers.aspl.method import Labels, SelfPaced
from papers.aspl.oracle import HeldBack
from vision.data.pipeline import EvalData
from vision.run.restore import load_run
from vision.scenario.features import features_of


def scaled(x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Features (N, D) with mean 0 and mean squared length 1; others shifted and scaled alike."""
    centre = x.mean(0, dtype=np.float64)
    size = np.sqrt(np.mean(np.sum((x - centre) ** 2, 1)))
    return [
        ((features - centre) / max(size, 1e-12)).astype(np.float32) for features in (x, *others)
    ]


def initial_records(truth: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices int64 of the initially labelled records: ``per_class`` of every class at random."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(truth == c) for c in np.unique(truth)]
    return np.concatenate([rng.choice(members, per_class, replace=False) for members in rows])


@dataclasses.dataclass(frozen=True)
class Rounds:
    """A job: rounds of ``SelfPaced`` on the features of a run.

    Writes ``label.npy`` int32 (N,), oracle labels and pseudo-labels, -1 for none; ``keys.txt``, the
    keys of labelled records; ``labels.npz``, the fields of ``Labels``; and ``rounds.json``, a row
    per round.

    Attributes:
      run_of: folder of the run that computes the features.
      data: all training records in order; only the oracle reads their labels.
      test: records on which the SVMs are evaluated.
      loop: the algorithm of a round.
      rounds: number of rounds.
      first: initially labelled records per class.
      earlier: folder of the job with the rounds before; empty for none.
      noise: share of wrong oracle labels.
      output: name of the features (N, D) that ``predict`` gives.
    """

    run_of: str
    data: EvalData
    test: EvalData
    loop: SelfPaced = SelfPaced()  # noqa: RUF009 - frozen
    rounds: int = 3
    first: int = 1
    earlier: str = ""
    noise: float = 0.0
    output: str = "embedding"

    def run(self, folder: Path) -> dict[str, float]:
        run = load_run(Path(self.run_of))
        train, test = (
            features_of(run, data, (self.output,), ("label",)) for data in (self.data, self.test)
        )
        x, y = scaled(
            *(rows[self.output].reshape(len(rows["label"]), -1) for rows in (train, test))
        )
        truth, classes = train["label"].astype(np.int64), len(self.data.source.info.class_names)
        oracle = HeldBack(truth, classes, self.noise, self.loop.seed)
        if self.earlier:
            with np.load(Path(self.earlier) / "labels.npz", allow_pickle=False) as arrays:
                labels = Labels(
                    arrays["asked"], arrays["guessed"], arrays["pace"], int(arrays["rounds"])
                )
        else:
            start = initial_records(truth, self.first, self.loop.seed)
            labels = self.loop.begin(oracle, start, len(truth), classes)
        rows = []
        for _ in range(self.rounds):
            labels = self.loop.round(x, labels, oracle)
            predicted = self.loop.fit(x, labels).logits(y).argmax(1)
            guessed = labels.guessed >= 0
            accuracy = float((labels.guessed == truth)[guessed].mean()) if guessed.any() else None
            row = {"asked": int((labels.asked >= 0).sum()), "guessed": int(guessed.sum())}
            rows.append(
                {
                    **row,
                    "guessed_right": accuracy,
                    "top1": float(np.mean(predicted == test["label"])),
                }
            )
        (folder / "rounds.json").write_text(json.dumps(rows, indent=2) + "\n")
        np.savez(folder / "labels.npz", **dataclasses.asdict(labels))
        np.save(folder / "label.npy", labels.known.astype(np.int32))
        keys = [self.data.source.key(int(i)) for i in train["_index"][labels.known >= 0]]
        (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys))
        return {name: float(value) for name, value in rows[-1].items() if value is not None}
