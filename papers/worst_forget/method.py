r"""Challenging forgets: worst-case forget sets of machine unlearning, by bi-level optimisation.

Unlearning methods are usually evaluated on random forget sets, which is optimistic. Here the forget
set is optimised. With weights w in [0, 1]^N, sum w = m, of the N examples that theta_0 was trained
on,

    lower   theta_u(w): from theta_0, a few epochs of SignSGD on sum_i (1 - w_i) CE_i(theta)
    upper   min_w sum_i w_i CE_i(theta_u(w)) + gamma |w|^2:
            w <- Proj(w - lr (CE(theta_u) + 2 gamma w))

The sign of the gradient is constant under small changes of w, so the upper gradient has no term
through theta_u. The projection onto {0 <= w <= 1, sum w = m} is clip(w - mu, 0, 1), mu by
bisection. The forget set is the m largest of w: examples whose loss stays low without training on
them.

``WorstForget`` is a job between stages and not an objective with phases, since every upper step
needs the losses of all N examples after a lower problem that restarts from theta_0. It writes the
keys of records, so that retraining and unlearning are ordinary runs on ``Subset``;
``papers.worst_forget.comparison`` compares them.

Fan et al., Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning, 2024.
Headline: on such sets the accuracy on the forget set stays near 100 % for approximate methods, and
even a network retrained without it classifies it correctly. Differences: w starts at m/N with a
learning rate of 10, since losses of 1e-3 do not move a 0/1 start; the lower problem is fine-tuning,
not SCRUB, random labels or sparsity.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from papers.worst_forget.problems import Losses, losses_of, project, relearn
from vision.config.ranges import Gt, Lt, NonNegative, Positive, checked
from vision.data.pipeline import EvalData
from vision.run.restore import load_run
from vision.scenario.features import features_of

Tree = Any
_ROWS = 1024  # examples whose losses are computed at once


@dataclasses.dataclass(frozen=True)
@checked
class WorstForget:
    """A job: writes ``forget.txt`` and ``retain.txt``, keys of records, and ``w.npy`` (N,).

    Attributes:
      run_of: folder of the run of theta_0; its ``predict`` gives ``log_probabilities``.
      data: its training records with ``label``, with the preprocessing of the run, in order.
      share: m / N, above 0 and below 1.
      rounds: alternations of lower and upper problem; 0 gives a random set.
      steps: of the lower problem.
      batch_size: of the lower problem.
      learning_rate: of the lower problem, the change of every parameter in a step.
      w_learning_rate: of the upper problem.
      gamma: of the upper problem.
      easiest: the easiest set to forget instead: the upper problem is maximised.
      by_class: all records of a class have one w, and ``share`` of the classes is forgotten.
      seed: of batches, and of a random set.
    """

    run_of: str
    data: EvalData
    share: Annotated[float, Gt(0), Lt(1)] = 0.1
    rounds: NonNegative[int] = 3
    steps: Positive[int] = 40
    batch_size: Positive[int] = 64
    learning_rate: float = 1e-3
    w_learning_rate: float = 10.0
    gamma: float = 0.0
    easiest: bool = False
    by_class: bool = False
    seed: int = 0

    def run(self, folder: Path) -> dict[str, float]:
        """Metrics: ``size`` and, after the last lower problem, mean losses of both sets."""
        run, data = load_run(Path(self.run_of)), self.data
        rows = features_of(run, data, (), ("image", "label"))
        images, labels = jnp.asarray(rows["image"]), jnp.asarray(rows["label"])
        group = rows["label"] if self.by_class else np.arange(len(labels))
        w, losses = self.searched(losses_of(run), run.variables.params, images, labels, group)
        forget = np.zeros(len(w), bool)
        ties = np.random.default_rng(self.seed).permutation(len(w))
        forget[np.lexsort((ties, -w))[: self.size(len(w))]] = True
        forget = forget[group]
        np.save(folder / "w.npy", w)
        for name, mask in (("forget", forget), ("retain", ~forget)):
            records = rows["_index"][np.flatnonzero(mask)].tolist()
            lines = "".join(f"{data.source.key(int(i))}\n" for i in records)
            (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
        metrics = {"size": float(forget.sum())}
        if losses is not None:
            metrics |= {"loss_forget": float(losses[forget].mean())}
            metrics |= {"loss_retain": float(losses[~forget].mean())}
        return metrics

    def size(self, count: int) -> int:
        """m for ``count`` examples or classes: at least 1 and at most ``count - 1``."""
        return min(max(1, round(self.share * count)), count - 1)

    def searched(
        self, losses: Losses, params: Tree, images: jax.Array, labels: jax.Array, group: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """w (G,) of the groups int (N,), and the last losses (N,), None without rounds."""
        count, groups = len(labels), int(group.max()) + 1
        total = self.size(groups)
        sign = -1.0 if self.easiest else 1.0
        members, group_of = np.bincount(group, minlength=groups), jnp.asarray(group)

        @jax.jit
        def lower(w: jax.Array, key: jax.Array) -> Tree:
            epochs = -(-self.steps * self.batch_size // count)
            keys = jax.random.split(key, epochs)
            order = jax.vmap(lambda k: jax.random.permutation(k, count))(keys).reshape(-1)
            order = order[: self.steps * self.batch_size].reshape(self.steps, -1)
            return relearn(
                losses, params, 1 - w[group_of], images, labels, order, self.learning_rate
            )

        @jax.jit
        def upper(w: jax.Array, losses_of_examples: jax.Array) -> jax.Array:
            gradient = (
                sign
                * jax.ops.segment_sum(losses_of_examples, group_of, groups)
                / jnp.maximum(members, 1)
            )
            return project(w - self.w_learning_rate * (gradient + 2 * self.gamma * w), float(total))

        losses_fn, last = jax.jit(losses), None
        w = jnp.full(groups, total / groups)
        for number in range(self.rounds):
            params_u = lower(w, jax.random.fold_in(jax.random.key(self.seed), number))
            parts = [slice(i, i + _ROWS) for i in range(0, count, _ROWS)]
            last = jnp.concatenate([losses_fn(params_u, images[i], labels[i]) for i in parts])
            w = upper(w, last)
        return np.asarray(w), None if last is None else np.asarray(last)
