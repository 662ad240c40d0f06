"""Defensive distillation, and the attack that sees through it: softness that hides the gradient.

Evaluating Adversarial Robustness: A Comparison Of FGSM, Carlini-Wagner Attacks, And The Role of
Distillation as Defense Mechanism, 2024. The attacks are Goodfellow et al. 2015 (FGSM) and Carlini
and Wagner 2017, the defence Papernot et al., Distillation as a Defense to Adversarial Perturbations
against Deep Neural Networks, 2016.

With z(x) the logits and T the temperature, 20 to 100:

    teacher    min  CE(y, softmax(z_t(x) / T))
    student    min  CE(softmax(z_t(x) / T), softmax(z_s(x) / T))      same T, same pictures
    deployed   softmax(z_s(x))                                         T = 1

To be sure at temperature T, logits have to differ T times as much. Deployed, the probability of
the answer is 1 up to exp(-T ...), which is less than float32 holds: the gradient of the
cross-entropy is zero in every pixel, its sign is too, and FGSM changes nothing. Nothing else about
the student is different: through z_s / T the same step finds its way again, and Carlini and Wagner,
who look at differences of logits, never lost it.

Headline of the paper: the error under FGSM climbs fast with its radius, Carlini-Wagner nearly
always succeeds, and distillation helps against FGSM only; ResNet-101 teaches ResNeXt-50 on
CIFAR-10. Known from this: with labels for a teacher and T = 1 the objective is cross-entropy; what
is deployed answers the same class at every temperature.

The attacks are in ``vision.blocks`` and their table in
``vision.evaluators.robustness.adversarial``. ``predict`` gives ``tempered_logits``, z / T, beside
``logits``, for the attack through them. The paper's table of seven attackers' models on
Tiny-ImageNet is that evaluator on those models, and not repeated here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vision.objectives.classify import to_targets
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import Tower, forward, initialise
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError

Tree = Any
TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class DefensiveDistillation(Objective):
    """Cross-entropy at a temperature with labels, or with what a frozen teacher says at the same.

    The teacher is the network ``teacher`` of the state, filled by ``TaughtBy``; it sees the
    student's pictures and does not learn, and an optimizer rule with learning rate 0 for
    ``^teacher/`` keeps it free of decay and of moments.

    Attributes:
      model: the tower that learns, with a classifier head; filled in from ``config.model``.
      temperature: T, of teacher and student.
      taught: learn from a teacher; else from labels, as the teacher itself does.
      teacher: its tower where that is another one than ``model``; its head has the model's classes
        where it says none.
    """

    temperature: float = 20.0
    taught: bool = False
    teacher: Tower | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: more than 0")
        if self.teacher is not None and not self.taught:
            raise ValueError("teacher is set, but taught is not: set taught=True")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        variables = super().init(key, batch)
        if not self.taught:
            return variables
        params, state = initialise(_teacher(self.model, self.teacher), key, batch["image"])
        # A teacher that nobody filled has to stop the run at its first loss.
        blank = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), {**state, "params": params})
        return variables.merge(params={TEACHER: blank})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        targets, valid = to_targets(batch["label"], logits.shape[-1])
        if self.taught:
            told = self._taught(variables.params, batch["image"])
            targets, valid = jax.nn.softmax(told / self.temperature), jnp.ones_like(valid)
        valid = valid & batch["_mask"]
        losses = optax.safe_softmax_cross_entropy(logits / self.temperature, targets)
        right = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        metrics = {"agreement" if self.taught else "top1": right}
        return averaged(jnp.where(valid, losses, 0), valid, state, **metrics)

    def _taught(self, params: Mapping[str, Tree], image: jax.Array) -> jax.Array:
        variables = jax.lax.stop_gradient(dict(params[TEACHER]))
        weights = variables.pop("params")
        tower = _teacher(self.model, self.teacher)
        out = forward(tower, weights, variables, image, train=False)[1]
        return out["logits"].astype(jnp.float32)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """What ``Classify`` gives, all at temperature 1, and ``tempered_logits`` (B, K)."""
        predictions = super().predict(variables, batch, ctx)
        return {**predictions, "tempered_logits": predictions["logits"] / self.temperature}


@dataclasses.dataclass(frozen=True)
class TaughtBy:
    """Where the teacher of ``DefensiveDistillation`` comes from; the student starts afresh.

    Attributes:
      source: as in ``InitFrom``, such as ``workdir:<the teacher's run>``.
      teacher: as in ``DefensiveDistillation``.
    """

    source: str
    teacher: Tower | None = None

    def __post_init__(self) -> None:
        InitFrom(self.source, head="read")

    def load(self, model: Tower, variables: Mapping[str, Tree]) -> dict[str, Tree]:
        """The variables with the teacher's weights in place.

        Raises:
          WeightsError: the objective has no teacher, or the source does not fit it.
        """
        others = dict(variables.get("objective", {}))
        if TEACHER not in others:
            raise WeightsError(
                "init_from=TaughtBy fills a teacher, and the objective has none: set "
                "config.objective.taught=True"
            )
        state = dict(others[TEACHER])
        params = state.pop("params")
        filled = InitFrom(self.source, head="read").load(
            _teacher(model, self.teacher), {"params": params, "model_state": state}
        )
        others[TEACHER] = {**filled["model_state"], "params": filled["params"]}
        return {**variables, "objective": others}

    def remarks(self, evaluations: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """As ``InitFrom``: student and teacher see the same pictures."""
        return InitFrom(self.source).remarks(evaluations)


def _teacher(model: Tower, teacher: Tower | None) -> Tower:
    if teacher is None:
        return model
    if getattr(teacher, "num_classes", 0) is None:
        return teacher.clone(num_classes=getattr(model, "num_classes", None))
    return teacher
