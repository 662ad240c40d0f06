"""The dual encoder: an image tower and a text tower with a joint embedding space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax

from vision.blocks.similarity import unit
from vision.config.ranges import Positive, checked
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, Tower, apply_tap, layers_above

Out = dict[str, jax.Array]


@checked
class Dual(nn.Module):
    """Two towers, each followed by a linear projection to the joint width and to length 1.

    Called with a dict that has ``image`` (B, h, w, C), ``text`` int ids (B, T), or both. With C
    captions per image, ids (B, C, T), all text outputs are (B, C, ...). ``out`` holds the towers'
    names below ``image/`` and ``text/``, but ``image/embedding`` (B, D) and ``text/embedding`` (B,
    D) or (B, C, D) are projected: float32 unit vectors; so are, with ``tokens``, ``image/tokens``
    and ``text/tokens``. A tap sees the entries of ``out`` under the same names, with captions as
    rows: (B C, ...). The first result is the image's embedding, or without an image the text's.
    With ``text_positions`` int (B, M) or (B, C, M), a text tower with a masked head predicts the
    tokens at those positions only.

    Parameters are below ``image``, ``text``, ``image_projection`` and ``text_projection``, so that
    rules can tell them apart: ``Rule("model/image/", learning_rate=0)`` freezes the image tower
    and nothing else, which is LiT (Zhai et al., 2022).

    Attributes:
      image: tower of the images.
      text: tower of the texts.
      width: of the joint space; None for no projections, if the towers have equal width.
      image_projection: whether the image has a projection; LiT leaves it out.
      bias: whether the projections have one; ``image`` or ``text``: that one alone.
      tokens: whether tokens are projected like embeddings, as late interaction needs.
      precision: number formats of the projections, which compute in its ``output``.
    """

    image: Tower
    text: Tower
    width: Positive[int] | None = 512
    image_projection: bool = True
    bias: bool | Literal["image", "text"] = False
    tokens: bool = False
    precision: Precision = Precision()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        side = {"image": self.image, "text": self.text}.get(path[0])
        return layers_above(side, path[1:])

    @nn.compact
    def __call__(
        self, inputs: Mapping[str, jax.Array], *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        if not {"image", "text"} & inputs.keys():
            raise ValueError(
                f"a dual encoder is called with image, text or both, not {', '.join(inputs)}"
            )
        out: Out = {}
        if "image" in inputs:
            out |= self._side("image", self.image, inputs["image"], train, tap)
        if "text" in inputs:
            ids = inputs["text"]
            rows = ids.shape[:-1]
            kwargs = {}
            if (positions := inputs.get("text_positions")) is not None:
                kwargs = {"positions": positions.reshape(-1, positions.shape[-1])}
            ids = ids.reshape(-1, ids.shape[-1])
            text_out = self._side("text", self.text, ids, train, tap, **kwargs)
            out |= {name: x.reshape(*rows, *x.shape[1:]) for name, x in text_out.items()}
        embeddings = [out[f"{side}/embedding"] for side in ("image", "text") if side in inputs]
        if len({x.shape[-1] for x in embeddings}) > 1:
            raise ValueError(
                f"the image's embedding has {embeddings[0].shape[-1]} numbers and the text's "
                f"{embeddings[1].shape[-1]}: set width and image_projection, or use equal widths"
            )
        return embeddings[0], out

    @nn.nowrap
    def _side(
        self, side: str, tower: Tower, x: jax.Array, train: bool, tap: Tap | None, **kwargs: Any
    ) -> Out:
        projected = ("embedding", "tokens") if self.tokens else ("embedding",)
        side_tap = None if tap is None else _Below(tap.fn, tap.sites, f"{side}/", projected)
        tower_out = tower(x, train=train, tap=side_tap, **kwargs)[1]  # pyright: ignore[reportCallIssue]
        if missing := [name for name in projected if name not in tower_out]:
            raise ValueError(f"the {side} tower {type(tower).__name__} has no output {missing[0]}")
        project = self._projection(side) if side == "text" or self.image_projection else None
        for name in projected:
            vectors = tower_out[name].astype(self.precision.output)
            if project is not None:
                vectors = constrain_batch(project(vectors))
            tower_out[name] = apply_tap(tap, f"{side}/{name}", unit(vectors))
        return {f"{side}/{name}": value for name, value in tower_out.items()}

    @nn.nowrap
    def _projection(self, side: str) -> nn.Dense | None:
        """One layer for embedding and tokens; its kernel is normal, D^-0.5 for an input of D."""
        if self.width is None:
            return None
        return nn.Dense(
            self.width,
            use_bias=self.bias in (True, side),
            dtype=self.precision.output,
            param_dtype=self.precision.params,
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            name=f"{side}_projection",
        )


@dataclasses.dataclass(frozen=True)
class _Below(Tap):
    """A tap for one of the two towers: sites get a prefix, and those in ``later`` are skipped."""

    prefix: str = ""
    later: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        return name not in self.later and super().wants(self.prefix + name)

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        return self.fn(self.prefix + name, x) if self.wants(name) else x
