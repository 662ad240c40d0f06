"""Zoobot: practical galaxy morphology tools from deep supervised representation learning, 2022.

Volunteers answer the questions of a decision tree about each galaxy. A network is trained to
predict how many give each answer, not which is the most frequent: with counts ``k``, together
``n``, and concentrations ``a = 1 + 100 sigmoid(logits)``, for every question

    loss = -log DirMult(k; a) = -[ G(A) + G(n + 1) - G(n + A)
                                   + sum_j G(k_j + a_j) - G(a_j) - G(k_j + 1) ],  A = sum a,

G the logarithm of the gamma function. A question that nobody was asked, ``n = 0``, costs nothing,
an image that many looked at counts more than one of few, and where voters of alike images disagree
concentrations stay low. The loss is summed over the questions. What such a network has learned then
finds galaxies like a given one (neighbours on principal components), and the interesting ones among
many by a Gaussian process that asks for a few ratings at a time.

By Walmsley et al. Headline: all of the 100 most interesting anomalies found, and ring galaxies told
better than from ImageNet at every number of labels. Not here: dropout at test, and fine-tuning,
which is an ordinary run with ``init_from`` and ``layer_decay`` (docs/finetuning.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from vision.blocks.nearest import nearest
from vision.data.ops.base import Example
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed, finite, normalised
from vision.probes.linear import FitError
from vision.probes.whitening import fit_whitening
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any
Likelihood = Literal["dirichlet", "multinomial"]


def choices(counts: jax.Array) -> jax.Array:
    """Of counts (..., J): log of the number of orders in which the votes can have come, (...)."""
    return gammaln(counts.sum(-1) + 1) - gammaln(counts + 1).sum(-1)


def dirichlet_multinomial(counts: jax.Array, concentrations: jax.Array) -> jax.Array:
    """Minus the log-probability of counts (..., J), in nats, (...); 0 where there are none."""
    total, n = concentrations.sum(-1), counts.sum(-1)
    each = gammaln(counts + concentrations) - gammaln(concentrations)
    found = gammaln(total) - gammaln(n + total) + each.sum(-1) + choices(counts)
    return jnp.where(n > 0, -found, 0)


def multinomial(counts: jax.Array, log_p: jax.Array) -> jax.Array:
    """The same of votes that are independent, with log-probabilities (..., J)."""
    found = choices(counts) + jnp.where(counts > 0, counts * log_p, 0).sum(-1)
    return jnp.where(counts.sum(-1) > 0, -found, 0)


@dataclasses.dataclass(frozen=True)
class Votes(Objective):
    """Predicts votes. A batch has ``votes`` (B, sum of ``questions``), counts of 0 or more.

    Attributes:
      model: a tower whose head has an output per answer; filled in from ``config.model``.
      questions: number of answers of each, in the order of the votes.
      likelihood: ``dirichlet``, the paper's; ``multinomial``, its baseline: the cross-entropy of
        the shares of votes, in which every image that was looked at counts the same.
      ceiling: concentrations lie between 1 and 1 more than this.
    """

    questions: tuple[int, ...]
    likelihood: Likelihood = "dirichlet"
    ceiling: float = 100.0

    def __post_init__(self) -> None:
        if not self.questions or min(self.questions) < 2:
            raise ValueError(f"questions={self.questions}: each has two answers at least")
        if self.likelihood not in get_args(Likelihood):
            raise ValueError(f"likelihood={self.likelihood!r}: {', '.join(get_args(Likelihood))}")
        if not self.ceiling > 0:
            raise ValueError(f"ceiling={self.ceiling}: must be positive")

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        votes = batch["votes"].astype(jnp.float32)
        losses = jnp.zeros(len(votes))
        for k, z in self._split(votes, out["logits"]):
            if self.likelihood == "dirichlet":
                losses += dirichlet_multinomial(k, self._concentrations(z))
            else:
                shares = k / jnp.maximum(k.sum(-1, keepdims=True), 1)
                losses -= jnp.sum(shares * jax.nn.log_softmax(z), -1)
        return averaged(losses, batch["_mask"], state)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``shares`` (B, A) that are expected, 1 for each question, ``embedding``, ``logits``,
        and, where the batch has ``votes``, ``vote_nll`` (B,) nats, as if each came in turn."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        votes = batch.get("votes", jnp.zeros(logits.shape)).astype(jnp.float32)
        nll, shares = jnp.zeros(len(logits)), []
        for k, z in self._split(votes, logits):
            if self.likelihood == "dirichlet":
                concentrations = self._concentrations(z)
                shares.append(concentrations / concentrations.sum(-1, keepdims=True))
                nll += dirichlet_multinomial(k, concentrations)
            else:
                shares.append(jax.nn.softmax(z))
                nll += multinomial(k, jax.nn.log_softmax(z))
        predictions = {"shares": jnp.concatenate(shares, -1), "logits": logits}
        predictions["embedding"] = out["embedding"]
        return {**predictions, "vote_nll": nll} if "votes" in batch else predictions

    def _concentrations(self, logits: jax.Array) -> jax.Array:
        return 1 + self.ceiling * jax.nn.sigmoid(logits.astype(jnp.float32))

    def _split(self, votes: jax.Array, logits: jax.Array) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Votes and logits of each question."""
        answers = sum(self.questions)
        if votes.shape[-1] != answers or logits.shape[-1] != answers:
            raise ValueError(
                f"questions={self.questions} have {answers} answers, votes are "
                f"{list(votes.shape)} and logits {list(logits.shape)}: set "
                f"config.model.num_classes={answers}"
            )
        start = 0
        for size in self.questions:
            part = slice(start, start + size)
            yield votes[:, part], logits[:, part]
            start += size


@dataclasses.dataclass(frozen=True)
class Tally:
    """Puts the answers of raters (R,), or columns of counts, into ``votes``, int32 (answers,).

    Of raters the first ``n`` count, between ``fewest`` and ``most`` of them; how many follows from
    what they say, so that an example always has the same votes.

    Attributes:
      answers: of raters: how many there are to choose from.
      fewest, most: raters who looked.
      raters: feature with the answer of each; empty where ``columns`` are given.
      columns: features with the count of each answer, in order.
    """

    answers: int = 0
    fewest: int = 5
    most: int = 40
    raters: str = "votes"
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.columns) == bool(self.answers):
            raise ValueError("give columns, or answers of raters, and not both")
        if not 0 <= self.fewest <= self.most:
            raise ValueError(f"fewest={self.fewest}, most={self.most}: 0 <= fewest <= most")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.columns:
            counts = np.asarray([example[name] for name in self.columns])
            rest = {name: x for name, x in example.items() if name not in self.columns}
            return {**rest, "votes": counts.astype(np.int32)}
        said = np.asarray(example[self.raters])
        mixed = int(said.astype(np.int64) @ (np.arange(len(said)) * 7919 + 1))
        n = self.fewest + mixed % (min(self.most, len(said)) - self.fewest + 1)
        counts = np.bincount(said[:n], minlength=self.answers)
        return {**example, "votes": counts.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class VoteLikelihood:
    """``nll`` (nats per image), ``share_error`` (mean over answers that somebody could give of the
    distance from the share of votes), ``majority`` (share of questions whose most frequent answer
    is the most expected one), ``examples``, and, where there are any, ``nonfinite`` (left out).

    Attributes:
      data: batches with ``votes``.
      questions: as of ``Votes``.
    """

    data: EvaluationData
    questions: tuple[int, ...]

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        rows = embed(predict, ctx, self.data, ("vote_nll", "shares"), ("votes",))
        good = np.isfinite(rows["vote_nll"]) & finite(rows["shares"])
        votes, shares = rows["votes"][good].astype(np.float64), rows["shares"][good]
        errors, right, start = [], [], 0
        for size in self.questions:
            k, p = votes[:, start : start + size], shares[:, start : start + size]
            asked = k.sum(1) > 0
            seen = k[asked] / k[asked].sum(1, keepdims=True)
            errors.append(np.abs(seen - p[asked]).ravel())
            right.append(k[asked].argmax(1) == p[asked].argmax(1))
            start += size
        yield "nll", float(rows["vote_nll"][good].mean(dtype=np.float64))
        yield "share_error", float(np.concatenate(errors).mean())
        yield "majority", float(np.concatenate(right).mean())
        yield "examples", int(good.sum())
        if lost := int((~good).sum()):
            yield "nonfinite", lost


def alike(features: np.ndarray, query: int, k: int, dimension: int = 40) -> np.ndarray:
    """The ``k`` rows most like row ``query`` by cosine of principal components, best first."""
    white = fit_whitening(features, dimension)
    lengths = np.linalg.norm(white.matrix, axis=0)
    unit = normalised((white(features) / lengths).astype(np.float32))
    if not 1 <= k < len(unit):
        raise FitError(f"k={k}: there are {len(unit) - 1} others")
    places = nearest(unit[query : query + 1], unit, k + 1)[1][0]
    return places[places != query][:k]


def interesting(
    features: np.ndarray,
    rate: Callable[[np.ndarray], np.ndarray],
    *,
    first: int = 10,
    batch: int = 10,
    rounds: int = 10,
    dimension: int = 15,
    noise: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """All rows of ``features`` (N, D), the most interesting first.

    A Gaussian process on whitened principal components (squared-exponential kernel, as long as the
    median distance) is told the ratings of ``first`` random rows, then of the ``batch`` rows that
    may be the most interesting, mean plus deviation, and so on.

    Args:
      rate: rows (M,) int to ratings (M,); called once per round.
      noise: variance of ratings, relative to that of the process.
    """
    x = fit_whitening(features, dimension)(features).astype(np.float64)
    draw = np.random.default_rng(seed)
    some = x[draw.permutation(len(x))[:500]]
    between = np.square(some[:, None] - some[None]).sum(-1)
    length = max(float(np.median(between[between > 0])), 1e-12)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        away = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
        return np.exp(-np.maximum(away, 0) / length / 2)

    asked = draw.permutation(len(x))[: min(first, len(x))]
    ratings = np.asarray(rate(asked), np.float64)
    for left in range(rounds, -1, -1):
        inverse = np.linalg.inv(kernel(x[asked], x[asked]) + noise * np.eye(len(asked)))
        cross = kernel(x, x[asked])
        mean = ratings.mean() + cross @ (inverse @ (ratings - ratings.mean()))
        if left == 0 or len(asked) == len(x):
            return np.argsort(-mean, kind="stable")
        size = max(float(ratings.std()), 1e-12)
        deviation = np.sqrt(np.maximum(1 - np.einsum("na,ab,nb->n", cross, inverse, cross), 0))
        hope = mean + size * deviation
        hope[asked] = -np.inf
        more = np.argsort(-hope, kind="stable")[: min(batch, len(x) - len(asked))]
        asked = np.concatenate([asked, more])
        ratings = np.concatenate([ratings, np.asarray(rate(more), np.float64)])
    raise AssertionError("the last round returns")
