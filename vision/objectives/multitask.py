"""Multi-task classification with one head, where labels may be missing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vision.train.labels import LabelKind
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Variables, apply, masked_mean

Tree = Any


@dataclasses.dataclass(frozen=True)
class MultiTask(BatchCoupled):
    """Sum over tasks of the mean cross-entropy of the examples that have a label of the task.

    The head has as many logits as all tasks have classes, concatenated in the order of ``tasks``. A
    task without labels in a batch adds 0, and exactly 0 to the gradient of its part of the head. A
    batch has an int (B,) entry per task, -1 for missing. Each task is averaged over other examples,
    so the loss is one of the whole batch (``batch_coupled``).

    Attributes:
      model: a tower with a classifier head of as many outputs as there are classes in all.
      tasks: entry of the batch to its number of classes, 2 or more, in the order of the logits.
    """

    tasks: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.tasks or min(self.tasks.values()) < 2:
            raise ValueError(f"tasks={dict(self.tasks)}: at least one, of two classes or more each")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return {task: LabelKind(classes) for task, classes in self.tasks.items()}

    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        """Logits of all tasks, float32 (B, sum of classes)."""
        out, state = apply(self.model, variables, batch["image"], ctx)
        return out["logits"].astype(jnp.float32), Aux(model_state=state)

    def loss_from_embeddings(
        self, variables: Variables, embeddings: jax.Array, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        total, metrics = jnp.zeros(()), {}
        for task, logits in self.split(embeddings).items():
            if task not in batch:
                raise ValueError(f"a batch has no {task!r}; it has {', '.join(sorted(batch))}")
            label = batch[task]
            valid = (label >= 0) & batch["_mask"]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
            # A loss that is not finite must not pass a label that is missing.
            total += masked_mean(jnp.where(valid, losses, 0), valid)
            metrics[f"{task}_top1"] = masked_mean(jnp.argmax(logits, -1) == label, valid)
        return total, Aux(metrics=metrics)

    def split(self, logits: jax.Array) -> dict[str, jax.Array]:
        """Logits (..., sum of classes) by task.

        Raises:
          ValueError: a head of another size.
        """
        ends = list(itertools.accumulate(self.tasks.values()))
        if logits.shape[-1] != ends[-1]:
            raise ValueError(
                f"the tasks have {ends[-1]} classes in all and the model {logits.shape[-1]}: set "
                f"config.model.num_classes={ends[-1]}"
            )
        return dict(zip(self.tasks, jnp.split(logits, ends[:-1], -1), strict=True))

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``logits/<task>`` (B, C) of every task and ``embedding`` (B, D), float32."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        logits = self.split(out["logits"].astype(jnp.float32))
        return {
            "embedding": out["embedding"].astype(jnp.float32),
            **{f"logits/{task}": logits[task] for task in logits},
        }
