"""Zoobot: practical galaxy morphology tools from deep supervised representation learning, 2022.

Volunteers answer the questions of a decision tree about each galaxy. A network is trained to
predict the counts of the answers, not the majority: with counts ``k``, ``n`` in total, and
concentrations ``a = 1 + 100 sigmoid(logits)``, for every question

    loss = -log DirMult(k; a) = -[ G(A) + G(n + 1) - G(n + A)
                                   + sum_j G(k_j + a_j) - G(a_j) - G(k_j + 1) ],  A = sum a,

G the logarithm of the gamma function. A question without votes, ``n = 0``, has no loss, images with
more votes have a larger weight, and where voters of similar images disagree the concentrations stay
low. The loss is summed over the questions. The features of such a network are used for similarity
search (neighbours on principal components), and for anomaly search by a Gaussian process that is
fitted to a few ratings at a time.

By Walmsley et al. Headline: all of the 100 most interesting anomalies found, and ring galaxies
classified better than from ImageNet weights at every number of labels. Not here: dropout at test,
and fine-tuning, which is an ordinary run with ``init_from`` and ``layer_decay``
(docs/finetuning.md). Ops and evaluator of votes are in ``papers.zoobot.votes``, similarity and
anomaly search in ``papers.zoobot.search``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from vision.config.ranges import Ge, NonEmpty, Positive, checked
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any
Likelihood = Literal["dirichlet", "multinomial"]


def log_multinomial_coefficient(counts: jax.Array) -> jax.Array:
    """Log of the multinomial coefficient of counts (..., J), (...)."""
    return gammaln(counts.sum(-1) + 1) - gammaln(counts + 1).sum(-1)


def dirichlet_multinomial(counts: jax.Array, concentrations: jax.Array) -> jax.Array:
    """Negative log-probability of counts (..., J), in nats, (...); 0 where there are none."""
    total, n = concentrations.sum(-1), counts.sum(-1)
    terms = gammaln(counts + concentrations) - gammaln(concentrations)
    log_probability = (
        gammaln(total) - gammaln(n + total) + terms.sum(-1) + log_multinomial_coefficient(counts)
    )
    return jnp.where(n > 0, -log_probability, 0)


def multinomial(counts: jax.Array, log_p: jax.Array) -> jax.Array:
    """Negative log-probability of independent votes with log-probabilities (..., J), (...)."""
    log_probability = log_multinomial_coefficient(counts) + jnp.where(
        counts > 0, counts * log_p, 0
    ).sum(-1)
    return jnp.where(counts.sum(-1) > 0, -log_probability, 0)


@dataclasses.dataclass(frozen=True)
@checked
class Votes(Objective):
    """Predicts vote counts. A batch has ``votes`` (B, sum of ``questions``), counts of 0 or more.

    Attributes:
      model: a tower whose head has an output per answer; filled in from ``config.model``.
      questions: number of answers of each question, in the order of the votes.
      likelihood: ``dirichlet``, the paper's; ``multinomial``, its baseline: the cross-entropy with
        the shares of votes, in which all images with votes have equal weight.
      ceiling: concentrations lie between 1 and 1 + ``ceiling``.
    """

    questions: NonEmpty[tuple[Annotated[int, Ge(2)], ...]]
    likelihood: Likelihood = "dirichlet"
    ceiling: Positive[float] = 100.0

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
        """Predicted vote ``shares`` (B, A), which sum to 1 per question, ``embedding``, ``logits``.

        If the batch has ``votes``, also ``vote_nll`` (B,), in nats.
        """
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
