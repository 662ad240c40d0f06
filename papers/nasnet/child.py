"""What a NASNet pools of images, in NumPy: a network per genotype, and no program to compile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vision.models.nasnet import Cell, Genotype

Draw = Callable[[str, tuple[int, ...]], np.ndarray]


def pooled(genotype: Genotype, x: np.ndarray, filters: int, draw: Draw) -> np.ndarray:
    """(N, D) of images (N, H, W, C): ``NasNet`` with one cell per stage, two stages, in training.

    Args:
      genotype: of the cells.
      x: images.
      filters: channels of a state of the first stage.
      draw: a kernel by the name ``NasNet`` gives it, ``block00/squeeze``, and its shape.
    """
    x = _norm(_conv(x, draw("stem", (3, 3, x.shape[-1], 3 * filters)), 1))
    before = x
    for number, reduces in enumerate((False, True, False)):
        filters *= 2 if reduces else 1
        cell = genotype.reduction if reduces else genotype.normal
        stride, prefix = 2 if reduces else 1, f"block{number:02d}/"

        def named(name: str, shape: tuple[int, ...], prefix: str = prefix) -> np.ndarray:
            return draw(prefix + name, shape)

        before, x = x, _cell(cell, x, before, filters, stride, named)
    return np.maximum(x, 0).mean((1, 2))


def _cell(
    cell: Cell, x: np.ndarray, before: np.ndarray, filters: int, stride: int, draw: Draw
) -> np.ndarray:
    if before.shape[1:3] != x.shape[1:3]:
        second = _factorised(before, filters, "previous", draw)
    elif before.shape[-1] != filters:
        second = _unit(before, filters, "previous", draw)
    else:
        second = before
    states = [_unit(x, filters, "squeeze", draw), second]
    for i, step in enumerate(cell.parsed()):
        states.append(
            _sum(
                _operate(name, states[state], stride if state < 2 else 1, f"step{i}{side}_", draw)
                for side, (name, state) in zip("lr", step, strict=True)
            )
        )
    results = [
        _factorised(states[k], filters, f"reduce{k}", draw) if k < 2 and stride > 1 else states[k]
        for k in cell.result()
    ]
    return np.concatenate(results, -1)


def _operate(name: str, x: np.ndarray, stride: int, prefix: str, draw: Draw) -> np.ndarray:
    filters = x.shape[-1]
    if name == "identity":
        return x if stride == 1 else _unit(x, filters, f"{prefix}{name}", draw, stride)
    if name == "max3":
        return functools.reduce(np.maximum, (part for _, _, part in _taps(x, 3, stride, -np.inf)))
    if name == "avg3":
        parts, counts = (_taps(given, 3, stride, 0.0) for given in (x, np.ones_like(x[:1])))
        return _sum(part for _, _, part in parts) / _sum(part for _, _, part in counts)
    size = int(name[-1])
    for i in (0, 1):
        kernel = draw(f"{prefix}{name}_depthwise{i}", (size, size, 1, filters))
        taps = _taps(np.maximum(x, 0), size, stride if i == 0 else 1, 0.0)
        x = _sum(part * kernel[row, column, 0] for row, column, part in taps)
        x = _unit(x, filters, f"{prefix}{name}_pointwise{i}", draw, relu=False)
    return x


def _unit(
    x: np.ndarray, channels: int, name: str, draw: Draw, stride: int = 1, relu: bool = True
) -> np.ndarray:
    x = np.maximum(x, 0) if relu else x
    kernel = draw(name, (1, 1, x.shape[-1], channels))
    return _norm(x[:, ::stride, ::stride] @ kernel[0, 0])


def _factorised(x: np.ndarray, channels: int, name: str, draw: Draw) -> np.ndarray:
    x = np.maximum(x, 0)
    moved = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    shape = (1, 1, x.shape[-1], channels // 2)
    parts = [
        part[:, ::2, ::2] @ draw(f"{name}_{side}", shape)[0, 0]
        for side, part in (("even", x), ("odd", moved))
    ]
    return _norm(np.concatenate(parts, -1))


def _conv(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    taps = _taps(x, len(kernel), stride, 0.0)
    return _sum(part @ kernel[row, column] for row, column, part in taps)


def _taps(
    x: np.ndarray, size: int, stride: int, fill: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """What every row and column of a kernel sees of (N, H, W, C), padded as TensorFlow's SAME."""
    out = [-(-side // stride) for side in x.shape[1:3]]
    pads = []
    for side, count in zip(x.shape[1:3], out, strict=True):
        whole = max((count - 1) * stride + size - side, 0)
        pads.append((whole // 2, whole - whole // 2))
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    last = [(count - 1) * stride + 1 for count in out]
    for row in range(size):
        for column in range(size):
            yield (
                row,
                column,
                x[:, row : row + last[0] : stride, column : column + last[1] : stride],
            )


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    return functools.reduce(np.add, parts)


def _norm(x: np.ndarray) -> np.ndarray:
    """By the batch's statistics, as BatchNorm before its scale and shift have moved."""
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
