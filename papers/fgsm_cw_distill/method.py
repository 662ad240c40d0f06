"""Defensive distillation and gradient masking: what it stops (FGSM) and what not (Carlini-Wagner).

Evaluating Adversarial Robustness: A Comparison Of FGSM, Carlini-Wagner Attacks, And The Role of
Distillation as Defense Mechanism, 2024. The attacks are Goodfellow et al. 2015 (FGSM) and Carlini
and Wagner 2017, the defence Papernot et al., Distillation as a Defense to Adversarial Perturbations
against Deep Neural Networks, 2016.

With z(x) the logits and T the temperature, 20 to 100:

    teacher    min  CE(y, softmax(z_t(x) / T))
    student    min  CE(softmax(z_t(x) / T), softmax(z_s(x) / T))      same T, same images
    deployed   softmax(z_s(x))                                         T = 1

Confidence at temperature T needs logits T times as far apart. Deployed at T = 1, the probability of
the predicted class is 1 up to exp(-T ...), which underflows in float32: the gradient of the
cross-entropy and its sign are zero in every pixel, and FGSM does not change the image. The student
is not robust otherwise: the same step through z_s / T succeeds, and so does Carlini-Wagner, which
uses differences of logits.

Headline: the error under FGSM grows fast with the radius, Carlini-Wagner nearly always succeeds,
and distillation helps against FGSM only; ResNet-101 as teacher, ResNeXt-50 as student, CIFAR-10.
Identities: with labels instead of a teacher and T = 1 the objective is cross-entropy; the deployed
model predicts the same class at every temperature.

The attacks are in ``vision.blocks`` and their table in
``vision.evaluators.robustness.adversarial``. ``predict`` gives ``tempered_logits``, z / T, beside
``logits``, for the attack through them. Not here: the paper's table of seven attack models on
Tiny-ImageNet, which is that evaluator on those models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.fgsm_cw_distill.teacher import TEACHER, teacher_tower
from vision.config.ranges import Positive, checked
from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import Tower, forward, initialise

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class DefensiveDistillation(Objective):
    """Cross-entropy at a temperature with labels, or with a frozen teacher at the same temperature.

    The teacher is the network ``teacher`` of the state, loaded by ``TeacherFrom``. It gets the same
    images as the student and is not trained; an optimizer rule with learning rate 0 for
    ``^teacher/`` exempts it from weight decay and optimizer moments.

    Attributes:
      model: the trained tower, with a classifier head; filled in from ``config.model``.
      temperature: T, of teacher and student.
      distil: train on a teacher's probabilities; else on labels, as the teacher itself.
      teacher: the teacher's tower if it is not ``model``; a head without a number of classes gets
        the model's.
    """

    temperature: Positive[float] = 20.0
    distil: bool = False
    teacher: Tower | None = None

    def __post_init__(self) -> None:
        if self.teacher is not None and not self.distil:
            raise ValueError("teacher is set, but distil is not: set distil=True")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return {} if self.distil else class_labels(self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        variables = super().init(key, batch)
        if not self.distil:
            return variables
        params, state = initialise(teacher_tower(self.model, self.teacher), key, batch["image"])
        # A teacher that was not loaded has to stop the run at its first loss.
        blank = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), {**state, "params": params})
        return variables.merge(params={TEACHER: blank})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        targets, valid = to_targets(batch["label"], logits.shape[-1])
        if self.distil:
            teacher_logits = self._teacher_logits(variables.params, batch["image"])
            targets, valid = jax.nn.softmax(teacher_logits / self.temperature), jnp.ones_like(valid)
        valid = valid & batch["_mask"]
        losses = cross_entropy(logits / self.temperature, targets, "softmax", 0.0)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        metrics = {"agreement" if self.distil else "top1": correct}
        return averaged(losses, valid, state, **metrics)

    def _teacher_logits(self, params: Mapping[str, Tree], image: jax.Array) -> jax.Array:
        variables = jax.lax.stop_gradient(dict(params[TEACHER]))
        weights = variables.pop("params")
        tower = teacher_tower(self.model, self.teacher)
        out = forward(tower, weights, variables, image, train=False)[1]
        return out["logits"].astype(jnp.float32)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``, at temperature 1, and ``tempered_logits`` (B, K)."""
        predictions = super().predict(variables, batch, ctx)
        return {**predictions, "tempered_logits": predictions["logits"] / self.temperature}
