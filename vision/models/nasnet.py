"""NASNet: two cells from architecture search on small images, stacked to any size."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Even, NonEmpty, NonNegative, Positive, Rate, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import (
    check_images,
    classify,
    drop_path,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

OPERATIONS = ("identity", "sep3", "sep5", "sep7", "avg3", "max3")
_SUMMAND = r"(\w+)\((\d+)\)"
_STEP = re.compile(rf"{_SUMMAND}\+{_SUMMAND}")


@dataclasses.dataclass(frozen=True)
@checked
class Cell:
    """The operations of a cell on its input, state 0, and the previous cell's input, state 1.

    Attributes:
      steps: texts such as ``"sep5(0)+identity(1)"``: step i makes state 2 + i, the sum of two
        operations (``OPERATIONS``) on earlier states.
      concat: the states that are concatenated to the result; empty for all that no step reads.
    """

    steps: NonEmpty[tuple[str, ...]]
    concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for i, step in enumerate(self.steps):
            match = _STEP.fullmatch(step)
            if match is None or not {match[1], match[3]} <= set(OPERATIONS):
                raise ValueError(
                    f"steps[{i}]={step!r}: 'a(i)+b(j)' with a, b of {', '.join(OPERATIONS)}"
                )
            if max(int(match[2]), int(match[4])) > i + 1:
                raise ValueError(f"steps[{i}]={step!r} reads a state that comes later")
        if not set(self.concat) <= set(range(len(self.steps) + 2)):
            raise ValueError(f"concat={self.concat}: states are 0..{len(self.steps) + 1}")

    def parsed(self) -> list[tuple[tuple[str, int], tuple[str, int]]]:
        """Per step operation and state, of the left and the right summand."""
        matches = (_STEP.fullmatch(step) for step in self.steps)
        return [((m[1], int(m[2])), (m[3], int(m[4]))) for m in matches if m is not None]

    def result(self) -> tuple[int, ...]:
        """The states that are concatenated."""
        if self.concat:
            return self.concat
        read = {state for step in self.parsed() for _, state in step}
        return tuple(i for i in range(len(self.steps) + 2) if i not in read)


@dataclasses.dataclass(frozen=True)
class Genotype:
    """The two cells of a network.

    Attributes:
      normal: keeps the resolution.
      reduction: halves it.
    """

    normal: Cell
    reduction: Cell

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Reads the output of ``to_json``.

        Raises:
          ValueError: the text is not a genotype.
        """
        try:
            plain = json.loads(text)
            cells = {
                kind: Cell(tuple(plain[kind]["steps"]), tuple(plain[kind]["concat"]))
                for kind in ("normal", "reduction")
            }
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a genotype: {text:.60}: {error!r}") from error
        return cls(**cells)


# Zoph et al. 2018, figure 4, as its authors' TensorFlow code has it.
NASNET_A = Genotype(
    normal=Cell(
        (
            "sep5(0)+sep3(1)",
            "sep5(1)+sep3(1)",
            "avg3(0)+identity(1)",
            "avg3(1)+avg3(1)",
            "sep3(0)+identity(0)",
        ),
        (1, 2, 3, 4, 5, 6),
    ),
    reduction=Cell(
        (
            "sep5(0)+sep7(1)",
            "max3(0)+sep7(1)",
            "avg3(0)+sep5(1)",
            "identity(3)+avg3(2)",
            "sep3(2)+max3(0)",
        ),
        (3, 4, 5, 6),
    ),
)


@checked
class NasNet(nn.Module):
    """A stem, then ``stages`` times ``depth`` normal cells with a reduction cell in between.

    Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018, with the
    stem for small images. NASNet-A (6 @ 768) is the default: 32 filters, doubled by both
    reductions, times six states.

    Called with images (B, H, W, C), gives ``(embedding, out)``: ``stem`` and ``block00``.. are the
    maps after the stem and after every cell, both kinds counted; ``tokens`` and ``map`` follow the
    last ReLU, ``pooled`` and ``embedding`` are its mean. There is no auxiliary head.

    ScheduledDropPath: in training, every operation but the identity is dropped for an example with
    a probability that grows with the cell and over ``drop_path_calls`` calls of training; the
    calls are counted in the collection ``schedule``, beside BatchNorm's statistics.

    Attributes:
      genotype: the cells.
      depth: N, normal cells of a stage.
      stages: of resolution.
      filters: channels of a state in the first stage.
      stem: its channels over those of a state.
      drop_path: highest probability of dropping an operation, that of the last cell at the end.
      drop_path_calls: 0: the highest from the start.
      num_classes: of the head; None for none.
      precision: number formats.
    """

    genotype: Genotype = NASNET_A
    depth: Positive[int] = 6
    stages: Positive[int] = 3
    filters: Even = 32
    stem: Positive[int] = 3
    drop_path: Rate = 0.0
    drop_path_calls: NonNegative[int] = 0
    num_classes: NonNegative[int] | None = None
    precision: Precision = Precision()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        cells = self.stages * (self.depth + 1) - 1
        return chain_layers_above(path[0], cells, ("stem", "norm_stem"))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        grown, precision = self._grown(train), self.precision
        key = self.make_rng("dropout") if train and self.drop_path else None
        x = conv(self.stem * self.filters, 3, precision=precision, name="stem")(x)
        x = apply_tap(tap, "stem", _norm(x, train, precision, "norm_stem"))
        out = {"stem": x}
        before, filters = x, self.filters
        kinds = ([False] * self.depth + [True]) * self.stages
        kinds.pop()
        for number, reduces in enumerate(kinds):
            filters *= 2 if reduces else 1
            site = f"block{number:02d}"
            cell = CellLayer(
                self.genotype.reduction if reduces else self.genotype.normal,
                filters,
                2 if reduces else 1,
                precision,
                name=site,
            )
            rate = self.drop_path * (number + 1) / len(kinds) * grown
            cell_key = None if key is None else jax.random.fold_in(key, number)
            before, x = x, constrain_batch(cell(x, before, train, cell_key, rate))
            x = out[site] = apply_tap(tap, site, x)
        x, out = spatial_sites(nn.relu(x), out, tap)
        pooled = x.mean((1, 2), dtype=jnp.float32)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled.astype(precision.output))
        return classify(pooled, out, tap, self.num_classes, False, precision)

    @nn.nowrap
    def _grown(self, train: bool) -> jax.Array | float:
        """Fraction of the final drop-path rate, 0..1."""
        if not self.drop_path or not self.drop_path_calls:
            return 1.0
        calls = self.variable("schedule", "calls", lambda: jnp.zeros((), jnp.float32))
        grown = jnp.minimum(1.0, calls.value / self.drop_path_calls)
        if train and not self.is_initializing() and self.is_mutable_collection("schedule"):
            calls.value = calls.value + 1
        return grown


class CellLayer(nn.Module):
    """A cell: of its input (B, h, w, C) and that of the cell before, the concatenated states.

    Attributes:
      cell: what it computes.
      filters: channels of a state.
      stride: 2 in a reduction cell.
      precision: number formats.
    """

    cell: Cell
    filters: int
    stride: int
    precision: Precision

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        before: jax.Array,
        train: bool,
        key: jax.Array | None,
        rate: jax.Array | float,
    ) -> jax.Array:
        first = _unit(nn.relu(x), self.filters, train, self.precision, "squeeze")
        if before.shape[1:3] != x.shape[1:3]:
            second = _factorised(before, self.filters, train, self.precision, "previous")
        elif before.shape[-1] != self.filters:
            second = _unit(nn.relu(before), self.filters, train, self.precision, "previous")
        else:
            second = before
        states = [first, second]
        for i, step in enumerate(self.cell.parsed()):
            summands = []
            for side, (operation, state) in zip("lr", step, strict=True):
                stride = self.stride if state < 2 else 1
                y = self._operate(operation, states[state], stride, train, f"step{i}{side}_")
                if operation != "identity":
                    operation_key = (
                        None if key is None else jax.random.fold_in(key, len(states) * 2)
                    )
                    operation_key = (
                        operation_key
                        if operation_key is None
                        else jax.random.fold_in(operation_key, "lr".index(side))
                    )
                    y = drop_path(y, operation_key, rate)
                summands.append(y)
            states.append(summands[0] + summands[1])
        results = []
        for state in self.cell.result():
            y = states[state]
            if state < 2 and self.stride > 1:
                y = _factorised(y, self.filters, train, self.precision, f"reduce{state}")
            results.append(y)
        return jnp.concatenate(results, -1)

    @nn.nowrap
    def _operate(
        self, operation: str, x: jax.Array, stride: int, train: bool, name: str
    ) -> jax.Array:
        precision, name = self.precision, name + operation
        if operation == "identity":
            if stride == 1:
                return x
            return _unit(nn.relu(x), self.filters, train, precision, name, stride)
        if operation == "max3":
            # TensorFlow's SAME padding has its odd pixel at the end.
            pads = tuple(jax.lax.padtype_to_pads(x.shape[1:3], (3, 3), (stride,) * 2, "SAME"))
            return max_pool(x, (3, 3), (stride, stride), pads)
        if operation == "avg3":
            strides = (stride, stride)
            return nn.avg_pool(x, (3, 3), strides, "SAME", count_include_pad=False)
        size = int(operation[-1])
        for i in range(2):
            x = conv(
                self.filters,
                size,
                stride if i == 0 else 1,
                groups=self.filters,
                padding="SAME",
                precision=precision,
                name=f"{name}_depthwise{i}",
            )(nn.relu(x))
            x = _unit(x, self.filters, train, precision, f"{name}_pointwise{i}")
        return x


def _unit(
    x: jax.Array, channels: int, train: bool, precision: Precision, name: str, stride: int = 1
) -> jax.Array:
    """1 x 1 convolution and BatchNorm."""
    x = conv(channels, 1, stride, precision=precision, name=name)(x)
    return _norm(x, train, precision, f"{name}_norm")


def _factorised(
    x: jax.Array, channels: int, train: bool, precision: Precision, name: str
) -> jax.Array:
    """Half the size: every second pixel, and every second of the image moved by one of each."""
    x = nn.relu(x)
    moved = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    parts: list[Any] = [
        conv(channels // 2, 1, 2, precision=precision, name=f"{name}_{side}")(part)
        for side, part in (("even", x), ("odd", moved))
    ]
    return _norm(jnp.concatenate(parts, -1), train, precision, f"{name}_norm")


def _norm(x: jax.Array, train: bool, precision: Precision, name: str) -> jax.Array:
    return batch_norm(x, train, precision, name, epsilon=1e-3, momentum=0.9997)
