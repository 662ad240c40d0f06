"""What jobs compute from the features of an earlier stage's run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vision.data.pipeline import EvalData
from vision.evaluate.evaluator import context
from vision.evaluators.image_text.embeddings import Rows, embed
from vision.probes.kmeans import kmeans
from vision.run.restore import Run, load_run


def features_of(
    run: Run, data: EvalData, outputs: tuple[str, ...], fields: tuple[str, ...] = ()
) -> Rows:
    """Outputs of a run's network on data: arrays (N, ...), see ``embeddings.embed``."""
    with jax.set_mesh(run.mesh):
        ctx = context(run.variables, run.step, run.mesh)
        return embed(run.predict, ctx, data, outputs, fields)


@dataclasses.dataclass(frozen=True)
class Clusters:
    """k-means on features: ``clusters.npy`` int32 (N,), a number 0..K-1 for every record.

    Attributes:
      run_of: folder of the run, such as ``stage:autoencoder``.
      data: all records of a source, in its order.
      clusters: K.
      output: name of the features (N, ...) that ``predict`` gives.
      seed: of the first centres.
    """

    run_of: str
    data: EvalData
    clusters: int
    output: str = "embedding"
    seed: int = 0

    def run(self, folder: Path) -> dict[str, float]:
        x = features_of(load_run(Path(self.run_of)), self.data, (self.output,))[self.output]
        result = kmeans(
            jnp.asarray(x.reshape(len(x), -1)), self.clusters, jax.random.key(self.seed)
        )
        assignment = np.asarray(result.assignment)
        sizes = np.bincount(assignment, minlength=self.clusters)
        np.save(folder / "clusters.npy", assignment)
        spread = {"smallest": float(sizes.min()), "largest": float(sizes.max())}
        return {"inertia": float(result.inertia), **spread}
