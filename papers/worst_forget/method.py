r"""Challenging forgets: the training examples that are hardest to make a network forget.

Methods of unlearning are tested on random examples, which flatters them. Here the forget set is
searched for, by two nested problems. With weights w in [0, 1]^N, sum w = m, of the N examples that
theta_0 was trained on,

    lower   theta_u(w): from theta_0, a few epochs of SignSGD on sum_i (1 - w_i) CE_i(theta)
    upper   min_w sum_i w_i CE_i(theta_u(w)) + gamma |w|^2:
            w <- Proj(w - lr (CE(theta_u) + 2 gamma w))

Since steps by signs do not change with small changes of w, the upper gradient goes through CE
alone. The projection onto {0 <= w <= 1, sum w = m} is clip(w - mu, 0, 1), mu by bisection. The set
is the m largest of w: examples whose loss stays low though nothing was trained on them.

``WorstForget`` is a job between stages and not an objective with phases: every upper move needs
the losses of all N examples after a lower problem that begins anew from theta_0, where moves of one
step share a batch and go on from each other. Its files are names of records, so that retraining and
unlearning are ordinary runs on ``Subset``; ``Unlearned`` compares them.

Fan et al., Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning, 2024.
Headline: on such sets the accuracy on what should be forgotten stays near 100 % for approximate
methods, and even a network trained without them is right about them. Differences: w begins at m/N
everywhere and moves at 10, since losses of 1e-3 move a 0/1 start by nothing; the lower problem is
fine-tuning, not SCRUB, random labels or sparsity.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from papers.worst_forget.unlearning import average_gap, unlearning
from vision.data.pipeline import EvalData
from vision.run.restore import Run, load_run
from vision.scenario.features import features_of

Tree = Any
# Parameters, images (B, H, W, C) and labels (B,) to losses (B,).
Losses = Callable[[Tree, jax.Array, jax.Array], jax.Array]
_BISECTIONS = 60
_ROWS = 1024  # examples whose losses are computed at once


def project(w: jax.Array, total: float) -> jax.Array:
    """The nearest point to ``w`` (N,) with entries in [0, 1] that add up to ``total``, 0..N."""

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        more = jnp.clip(w - middle, 0, 1).sum() > total
        return jnp.where(more, middle, low), jnp.where(more, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (w.min() - 1, w.max()))
    return jnp.clip(w - (low + high) / 2, 0, 1)


def relearn(
    losses: Losses,
    params: Tree,
    kept: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    learning_rate: float,
) -> Tree:
    """The lower problem: SignSGD on the examples, each counting as ``kept`` (N,) says.

    Args:
      order: int (steps, B), the examples of every step.
    """

    def step(params: Tree, places: jax.Array) -> tuple[Tree, None]:
        def loss(params: Tree) -> jax.Array:
            return jnp.mean(kept[places] * losses(params, images[places], labels[places]))

        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - learning_rate * jnp.sign(g), params, grads), None

    return jax.lax.scan(step, params, order)[0]


@dataclasses.dataclass(frozen=True)
class WorstForget:
    """A forget set: ``forget.txt`` and ``retain.txt``, names of records, and ``w.npy`` (N,).

    Attributes:
      run_of: folder of the run that theta_0 comes from; its ``predict`` gives
        ``log_probabilities``.
      data: its training records, as its network sees them, in their order.
      share: m / N, above 0 and below 1.
      rounds: of both problems; 0 gives a random set.
      steps: of the lower problem.
      batch_size: of its steps.
      learning_rate: of its steps, what every parameter moves by.
      w_learning_rate: of the upper problem.
      gamma: of the upper problem.
      easiest: the set that is easiest to forget instead: the upper problem is maximised.
      by_class: whole classes are forgotten, ``share`` of them, each with one w.
      label: name of the labels.
      seed: of batches, and of a random set.
    """

    run_of: str
    data: EvalData
    share: float = 0.1
    rounds: int = 3
    steps: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    w_learning_rate: float = 10.0
    gamma: float = 0.0
    easiest: bool = False
    by_class: bool = False
    label: str = "label"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.rounds < 0 or min(self.steps, self.batch_size) < 1:
            raise ValueError(
                f"share={self.share}, rounds={self.rounds}, steps={self.steps}, batch_size="
                f"{self.batch_size}: a share between 0 and 1, at least 0 rounds and 1 of the others"
            )

    def run(self, folder: Path) -> dict[str, float]:
        """Numbers: ``size`` and, after the last lower problem, mean losses of both sets."""
        run, data = load_run(Path(self.run_of)), self.data
        rows = features_of(run, data, (), ("image", self.label))
        images, labels = jnp.asarray(rows["image"]), jnp.asarray(rows[self.label])
        group = rows[self.label] if self.by_class else np.arange(len(labels))
        w, last = self.searched(losses_of(run), run.variables.params, images, labels, group)
        forget = np.zeros(len(w), bool)
        ties = np.random.default_rng(self.seed).permutation(len(w))
        forget[np.lexsort((ties, -w))[: self.size(len(w))]] = True
        forget = forget[group]
        np.save(folder / "w.npy", w)
        for name, chosen in (("forget", forget), ("retain", ~forget)):
            places = rows["_index"][np.flatnonzero(chosen)].tolist()
            lines = "".join(f"{data.source.key(int(i))}\n" for i in places)
            (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
        found = {"size": float(forget.sum())}
        if last is not None:
            found |= {"loss_forget": float(last[forget].mean())}
            found |= {"loss_retain": float(last[~forget].mean())}
        return found

    def size(self, count: int) -> int:
        """m, of so many examples or classes: at least one, and not all."""
        return min(max(1, round(self.share * count)), count - 1)

    def searched(
        self, losses: Losses, params: Tree, images: jax.Array, labels: jax.Array, group: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """w (G,) of the groups int (N,), and the last losses (N,); None without rounds."""
        count, groups = len(labels), int(group.max()) + 1
        total = self.size(groups)
        sign = -1.0 if self.easiest else 1.0
        members, of = np.bincount(group, minlength=groups), jnp.asarray(group)

        @jax.jit
        def lower(w: jax.Array, key: jax.Array) -> Tree:
            epochs = -(-self.steps * self.batch_size // count)
            keys = jax.random.split(key, epochs)
            order = jax.vmap(lambda k: jax.random.permutation(k, count))(keys).reshape(-1)
            order = order[: self.steps * self.batch_size].reshape(self.steps, -1)
            return relearn(losses, params, 1 - w[of], images, labels, order, self.learning_rate)

        @jax.jit
        def upper(w: jax.Array, found: jax.Array) -> jax.Array:
            g = sign * jax.ops.segment_sum(found, of, groups) / jnp.maximum(members, 1)
            return project(w - self.w_learning_rate * (g + 2 * self.gamma * w), float(total))

        told, last = jax.jit(losses), None
        w = jnp.full(groups, total / groups)
        for number in range(self.rounds):
            after = lower(w, jax.random.fold_in(jax.random.key(self.seed), number))
            parts = [slice(i, i + _ROWS) for i in range(0, count, _ROWS)]
            last = jnp.concatenate([told(after, images[i], labels[i]) for i in parts])
            w = upper(w, last)
        return np.asarray(w), None if last is None else np.asarray(last)


def losses_of(run: Run) -> Losses:
    """Cross-entropies of a classifier's run, as a function of its parameters."""

    def losses(params: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = dataclasses.replace(run.variables, params=params)
        said = run.predict(variables, {"image": images, "label": labels})["log_probabilities"]
        return -jnp.take_along_axis(said, labels[:, None], 1)[:, 0]

    return losses


@dataclasses.dataclass(frozen=True)
class Unlearned:
    """What runs know of a forget set, beside one that never saw it: ``unlearning.json``.

    Numbers: ``NAME/ua``, ``mia``, ``ra``, ``ta`` (``papers.worst_forget.unlearning``) and ``gap``,
      to
    the retrained one, of every run.

    Attributes:
      forget: file of the names of the forget set.
      retrained: folder of the run that was trained without it.
      runs: name to folder of others.
      data: all training records.
      test: test records.
      label: name of the labels.
    """

    forget: str
    retrained: str
    runs: Mapping[str, str]
    data: EvalData
    test: EvalData
    label: str = "label"

    def run(self, folder: Path) -> dict[str, float]:
        """Raises CheckpointError or WorkdirError where a run cannot be read."""
        names = set(Path(self.forget).read_text(encoding="utf-8").splitlines())
        found = {}
        for name, place in {"retrained": self.retrained, **self.runs}.items():
            run = load_run(Path(place))
            seen, test = (
                features_of(run, data, ("log_probabilities",), (self.label,))
                for data in (self.data, self.test)
            )
            keys = [self.data.source.key(int(i)) for i in seen["_index"]]
            found[name] = unlearning(
                seen["log_probabilities"],
                seen[self.label],
                np.asarray([key in names for key in keys]),
                test["log_probabilities"],
                test[self.label],
            )
        for name in self.runs:
            found[name]["gap"] = average_gap(found[name], found["retrained"])
        (folder / "unlearning.json").write_text(json.dumps(found, indent=2) + "\n")
        return {f"{name}/{key}": x for name, row in found.items() for key, x in row.items()}
