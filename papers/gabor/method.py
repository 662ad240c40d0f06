"""Textures of a few regions, seen by Gabor filters, beside what a network sees of the whole image.

A gate reads the mean of the network's last map over every proposal of a region and keeps the best.
They are cut from the image, zoomed to one size and filtered; each filter's angle and frequency are
learned within an interval of its own, so that the bank as a whole goes on covering the plane:

    p     = lo + (hi - lo) sigmoid(u)               for every value of every filter
    T_r   = MLP(mean size, deviation, log energy of each response on region r)
    y     = head(M + sum over kept regions of gate_r T_r),  M the network's embedding
    L     = cross-entropy + budget * mean gate

The MLP's last layer starts at zero, so that the network begins as it is without textures.

Zhu et al., Learning Gabor Texture Features for Fine-Grained Recognition, 2023. There is no public
code. The statistics, the gate's form and the numbers of filters are not known and are ours. The
paper looks for the filters' values by a learning method of its own; here they follow the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.gabor.bank import GaborBank, Textures
from papers.gabor.regions import proposals, shares_of_cells
from vision.blocks.crops import crop_and_resize
from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked
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
    output_shapes,
)


@dataclasses.dataclass(frozen=True)
@checked
class GaborTexture(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    Attributes:
      model: a tower with ``map`` and a head on its embedding.
      sides: of the proposed regions, shares of the image.
      keep: how many are kept.
      size: that they are zoomed to, in pixels.
      orientations, frequencies: intervals of the filters' angles and frequencies.
      filter_side: of the filters, in pixels.
      hidden: width of the MLP.
      budget: weight of the mean gate.
      label_smoothing: of the cross-entropy.
    """

    sides: NonEmpty[tuple[float, ...]] = (0.5, 0.25)
    keep: Positive[int] = 4
    size: Positive[int] = 32
    orientations: Positive[int] = 6
    frequencies: Positive[int] = 3
    filter_side: Positive[int] = 9
    hidden: Positive[int] = 256
    budget: NonNegative[float] = 0.1
    label_smoothing: Rate = 0.0

    def __post_init__(self) -> None:
        if not all(0 < side <= 1 for side in self.sides):
            raise ValueError(f"sides={self.sides}: shares of the image, above 0 and up to 1")
        if self.keep > len(proposals(self.sides)):
            raise ValueError(f"keep={self.keep} of {len(proposals(self.sides))} regions")
        if self.size < self.filter_side:
            raise ValueError(f"size={self.size} is less than filter_side={self.filter_side}")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_gate, k_textures = jax.random.split(key, 3)
        variables = super().init(k_model, batch)
        out = output_shapes(self.model, variables, batch["image"])
        head = variables.params["model"].get("head", {}).get("kernel")
        if "map" not in out or head is None:
            raise ValueError(f"{type(self.model).__name__} has no map, or no head on its embedding")
        if min(batch["image"].shape[1:3]) * min(self.sides) < 2:
            raise ValueError(f"sides={self.sides}: the smallest region has less than 2 pixels")
        gate = 0.01 * jax.random.normal(k_gate, (out["map"].shape[-1], 1))
        textures = self._textures(head.shape[0]).init(
            {"params": k_textures}, jnp.zeros((1, self.size, self.size))
        )
        gated = {"kernel": gate, "bias": jnp.zeros(())}
        return variables.merge(params={"gate": gated, "textures": textures["params"]})

    def _textures(self, width: int) -> Textures:
        bank = GaborBank(self.orientations, self.frequencies, self.filter_side)
        return Textures(bank, self.hidden, width)

    def forward(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        """Logits (B, K) float32; ``embedding`` (B, D), ``gate`` (B, R) of all regions, 0..1, and
        ``boxes`` (B, keep, 4) in pixels: top, left, bottom, right; and the tower's state."""
        out, state = apply(self.model, variables, image, ctx)
        whole = out["embedding"].astype(jnp.float32)
        grid, boxes = out["map"].shape[1:3], proposals(self.sides)
        cells = shares_of_cells(boxes, (grid[0], grid[1]))
        pooled = jnp.einsum("rhw,bhwc->brc", cells, out["map"].astype(jnp.float32))
        gate = variables.params["gate"]
        gate = jax.nn.sigmoid((pooled @ gate["kernel"])[..., 0] + gate["bias"])
        weight, kept = jax.lax.top_k(gate, self.keep)
        height, width = image.shape[1:3]
        scaled = jnp.asarray(boxes)[kept] * jnp.array([height, width, height, width])
        textures = self.textures(variables, image, scaled)
        seen = (weight[..., None] * textures).sum(1)
        kernel = variables.params["model"]["head"]["kernel"].astype(jnp.float32)
        logits = out["logits"].astype(jnp.float32) + seen @ kernel
        found = {"embedding": whole + seen, "gate": gate, "boxes": scaled}
        return logits, found, state

    def textures(self, variables: Variables, image: jax.Array, boxes: jax.Array) -> jax.Array:
        """(B, keep, D) float32 of boxes (B, keep, 4) in pixels."""
        params = variables.params["textures"]
        rows, width = len(image) * self.keep, params["fc2"]["bias"].shape[0]
        grey = jnp.repeat(image.astype(jnp.float32).mean(-1, keepdims=True), self.keep, 0)
        shown = crop_and_resize(grey, boxes.reshape(rows, 4), (self.size, self.size))
        found: Any = self._textures(width).apply({"params": params}, shown[..., 0])
        return found.reshape(len(image), self.keep, width)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        logits, out, state = self.forward(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        kept = out["gate"].mean(1)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        valid = labelled & batch["_mask"]
        return averaged(losses + self.budget * kept, valid, state, top1=correct, gate=kept)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``, and ``gate`` and ``boxes`` of ``forward``."""
        logits, out, _ = self.forward(variables, batch["image"], ctx)
        return {**classified(logits, out["embedding"]), "gate": out["gate"], "boxes": out["boxes"]}
