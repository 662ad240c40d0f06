"""A job that stores a data set as the ids of a tokenizer of an earlier stage, and labels."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np

from papers.seit_plus_plus.codes import bits_of, pack_ids
from vision.data.pipeline import EvalData
from vision.run.restore import load_run
from vision.scenario.features import features_of


@dataclasses.dataclass(frozen=True)
class Tokenised:
    """``tokens.npz``: ``ids`` uint8 (N, bytes), packed, and ``label``; and ``codebook.npy``.

    The codebook is float32 (K, d), rows of unit length; ``papers.seit_plus_plus.codes.FromCodes``
    reads both. Metrics: ``bytes`` of the file per record; ``share`` of the uint8 size of an image;
    ``entries``, the number of codebook entries in use; ``error``, mean squared error of pixels.

    Attributes:
      run_of: folder of the tokenizer's run; its objective is ``Quantise``.
      data: all records, in the order they are stored.
    """

    run_of: str
    data: EvalData

    def run(self, folder: Path) -> dict[str, float]:
        run = load_run(Path(self.run_of))
        rows = features_of(run, self.data, ("ids", "error"), ("label",))
        ids = rows["ids"].astype(np.int64).reshape(len(rows["ids"]), -1)
        codebook = np.asarray(jax.device_get(run.variables.params["model"]["codebook"]), np.float32)
        codebook = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
        label = rows["label"]
        if label.min() >= 0:
            label = label.astype(np.min_scalar_type(label.max()))
        packed = pack_ids(ids, bits_of(len(codebook)))
        np.savez(folder / "tokens.npz", allow_pickle=False, ids=packed, label=label)
        np.save(folder / "codebook.npy", codebook)
        size = (folder / "tokens.npz").stat().st_size / len(ids)
        return {
            "bytes": size,
            "share": size / math.prod(run.data_spec.batch["image"][0][1:]),
            "entries": float(len(np.unique(ids))),
            "error": float(np.mean(rows["error"])),
        }
