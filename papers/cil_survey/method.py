"""Class-incremental learning: one protocol, its baselines, and comparison at equal memory.

Classes arrive in tasks. A stage trains on the new task's data and on the stored exemplars of old
classes, starts from the network of the stage before, and is tested on all classes so far without a
task label. With old classes O, new ones N, logits z over O and N, and the frozen network of the
stage before (the teacher) with logits t:

    finetune, replay    CE(z, y); replay has exemplars, selected by herding
    lwf, icarl          CE(z, y) + KD,  KD = -sum_O softmax(t / 2) log softmax(z / 2)
    wa                  (1 - s) CE + s KD,  s = |O| / (|O| + |N|); afterwards the head's weight
                        vectors of N are scaled by mean_O |w| / mean_N |w|
    prototypes          the first stage's network, and the mean feature of every class
    joint               all data at once: the upper bound

iCaRL predicts the class with the nearest mean of exemplar features. Memory is everything that a
learner carries from stage to stage, in bytes: a method with distillation carries its teacher, and
one without may spend those bytes on exemplars (463,504 parameters of a ResNet-32 are worth 603
CIFAR images). The stages are in ``papers/cil_survey/config.py``, exemplar memory and evaluation in
``vision.scenario.continual``; this module has ``Incremental``, the objective.

Zhou et al., Deep Class-Incremental Learning: A Survey, 2023. Headline: areas under average accuracy
against memory, CIFAR-100 in ten tasks: FOSTER 11.12, DER 10.74, iCaRL 10.81, GEM 4.31. Networks
that grow (DER, FOSTER, MEMO), EWC and generative replay are not here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from papers.cil_survey.head import aligned, masked_to
from vision.config.ranges import NonEmpty, NonNegative, checked
from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    classified,
)
from vision.train.tower import forward

Tree = Any
TEMPERATURE = 2.0


@dataclasses.dataclass(frozen=True)
@checked
class Incremental(Objective):
    """One stage. ``batch["label"]`` int (B,), classes of the tasks so far only, or -1 for none.

    An image without a label counts in neither term.

    Attributes:
      model: a tower whose head has the classes of all tasks.
      tasks: the classes of every stage's task, in order.
      stage: index of the task that is trained, from 0.
      distil: distillation from the network of the stage before, which the run starts from:
        ``none``, ``added`` to the cross-entropy, or ``shared``: weighted by the share of old
        classes.
      align: scale the head's weight vectors of new classes, in ``predict`` and before the next
        stage.
    """

    tasks: NonEmpty[tuple[NonEmpty[tuple[int, ...]], ...]]
    stage: NonNegative[int] = 0
    distil: Literal["none", "added", "shared"] = "none"
    align: bool = False

    def __post_init__(self) -> None:
        classes = [c for task in self.tasks for c in task]
        if len(set(classes)) < len(classes):
            raise ValueError(f"tasks={self.tasks}: a class occurs twice")
        if self.stage >= len(self.tasks):
            raise ValueError(f"stage={self.stage} of {len(self.tasks)} tasks, counted from 0")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        return self._with_teacher(super().init(key, batch))

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """The teacher is the network of the stage before, with the head that it predicted with."""
        if self.align and self.stage:
            old, new = self.classes(self.stage - 1)
            student = aligned(variables.params["model"], old, new)
            variables = variables.merge(params={"model": student})
        return self._with_teacher(variables)

    def classes(self, stage: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Old and new classes of a stage."""
        return tuple(c for task in self.tasks[:stage] for c in task), self.tasks[stage]

    def _with_teacher(self, variables: Variables) -> Variables:
        if self.distil == "none" or not self.stage:
            return variables
        params, state = variables.params["model"], variables.model_state["model"]
        teacher = jax.tree.map(jnp.copy, {"params": params, "model_state": state})
        return variables.merge(extra_state={"teacher": teacher})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        old, new = self.classes(self.stage)
        logits = out["logits"].astype(jnp.float32)
        allowed = masked_to(logits, (*old, *new))
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(allowed, targets, "softmax", 0.0)
        if "teacher" in variables.extra_state:
            distillation = self._distillation(
                logits, variables.extra_state["teacher"], batch["image"]
            )
            share = len(old) / len((*old, *new))
            mixed = (1 - share) * losses + share * distillation
            losses = losses + distillation if self.distil == "added" else mixed
        correct = jnp.argmax(allowed, -1) == batch["label"]
        return averaged(losses, labelled & batch["_mask"], state, top1=correct)

    def _distillation(self, logits: jax.Array, teacher: Tree, image: jax.Array) -> jax.Array:
        """(B,) cross-entropy with the teacher over old classes, both at ``TEMPERATURE``."""
        _, out, _ = forward(
            self.model, teacher["params"], teacher["model_state"], image, train=False
        )
        old = jnp.asarray(self.classes(self.stage)[0])
        target = jax.nn.softmax(out["logits"].astype(jnp.float32)[:, old] / TEMPERATURE)
        return -jnp.sum(target * jax.nn.log_softmax(logits[:, old] / TEMPERATURE), -1)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``logits`` and ``log_probabilities`` (B, K), future classes masked, and ``embedding``."""
        old, new = self.classes(self.stage)
        if self.align:
            model = aligned(variables.params["model"], old, new)
            variables = variables.merge(params={"model": model})
        predictions = super().predict(variables, batch, ctx)
        logits = masked_to(predictions["logits"], (*old, *new))
        return classified(logits, predictions["embedding"])
