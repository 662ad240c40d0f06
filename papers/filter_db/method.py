"""What the 3x3 filters of a network say: how good layers are, and how far distributions lie apart.

A layer has n = inputs x outputs filters of nine numbers, each a row of F (n, 9).

    sparsity        share of filters with max |f| < 0.01 max |F|
    entropy         H = - sum_i r_i log10 r_i,  r_i = s_i^2 / sum s^2,  s singular values, mean off
    ratio           H / T(n),  T(n) = 1.2618 / (1 + exp(-0.88768 (log2 n - 2.30436))) - 0.31051
    orthogonality   1 - mean |cos| of the different kernels of a layer, flattened per output

H is log10 9 = 0.954 where all nine directions carry the same variance and 0 where all filters are
multiples of one. Few random filters have less entropy than many, so that H is compared with T(n),
the least that was seen of n random filters: a ratio from 1 on is that of a layer that learned no
structure, one near 0 of a layer whose filters repeat each other.

For the shift between sets of filters, each filter is divided by the largest |weight| of its layer;
all of them together have principal components, and along component i the sets have histograms p_i,
q_i of 70 bins over their common range, empty bins being the float's epsilon:

    D(P, Q) = sum_i e_i (KL(p_i || q_i) + KL(q_i || p_i)),    e_i the share of variance

Gavrikov and Keuper, CNN Filter DB: An Empirical Investigation of Trained Convolutional Filters,
2022; authors' code: paulgavrikov/CNN-Filter-DB and paulgavrikov/torchconvquality. Differences: the
principal components are of the sets that are compared, not of the authors' data base of 1.4 billion
filters; logarithms of D are natural; a layer of zeros has entropy 0. A depthwise convolution has
one filter per channel. Other sizes than 3x3 are not counted, as there: T(n) was fitted to nine
numbers, so that a ConvNeXt (7x7) or a ViT (patches) has nothing to measure and says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision.config.errors import UserError

BINS = 70
NEAR_ZERO = 0.01
_EPSILON = float(np.finfo(np.float32).eps)


class FilterError(UserError):
    """There are no filters that could be measured."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A 3x3 convolution.

    Attributes:
      name: path of its kernel among the parameters, with slashes.
      kernel: float32 (3, 3, inputs of a group, outputs).
      depth: 0..1, its place among the 3x3 convolutions of the network, in the order of the forward
        pass; 0 for the only one.
    """

    name: str
    kernel: np.ndarray
    depth: float

    @property
    def filters(self) -> np.ndarray:
        """float32 (n, 9), a row for every pair of an input and an output."""
        return self.kernel.reshape(9, -1).T


@dataclasses.dataclass(frozen=True)
class Quality:
    """The measures of one layer, see the module.

    Attributes:
      filters: n.
      sparsity: 0..1.
      entropy: 0..0.954.
      ratio: of the entropy to that of n random filters.
      orthogonality: 0..1; NaN for a single output.
    """

    filters: int
    sparsity: float
    entropy: float
    ratio: float
    orthogonality: float


def quality(layer: Layer) -> Quality:
    """All measures of a layer."""
    filters = layer.filters
    found = entropy(filters)
    return Quality(
        len(filters),
        sparsity(filters),
        found,
        found / random_entropy(len(filters)),
        orthogonality(layer.kernel),
    )


def sparsity(filters: np.ndarray) -> float:
    """Share of filters (n, 9) whose largest |weight| is below a hundredth of the layer's."""
    largest = np.abs(filters).max(1)
    return float(np.mean(largest < NEAR_ZERO * largest.max())) if largest.any() else 1.0


def entropy(filters: np.ndarray) -> float:
    """Entropy to the base 10 of the shares of variance of filters (n, 9)."""
    x = filters.astype(np.float64)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    if not values.sum() > 0:
        return 0.0
    share = values / values.sum()
    share = share[share > 1e-12]
    return float(-(share * np.log10(share)).sum()) + 0.0


def random_entropy(count: int) -> float:
    """T(n): the least entropy that the authors saw of ``count`` filters drawn at random.

    Raises:
      FilterError: fewer than four filters, of which T(n) is not positive.
    """
    threshold = 1.2618 / (1 + np.exp(-0.88768 * (np.log2(max(count, 1)) - 2.30436))) - 0.31051
    if count < 4 or threshold <= 0:
        raise FilterError(f"{count} filters are too few: random ones have no entropy to compare")
    return float(threshold)


def orthogonality(kernel: np.ndarray) -> float:
    """1 - mean |cosine| of the different outputs' kernels, of a kernel (3, 3, inputs, outputs).

    A kernel of zeros is orthogonal to all others.
    """
    rows = kernel.reshape(-1, kernel.shape[-1]).T.astype(np.float64)
    if len(rows) < 2:
        return float("nan")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    cosine = np.abs(unit @ unit.T)
    return float(1 - (cosine.sum() - np.trace(cosine)) / (len(rows) * (len(rows) - 1)))


@dataclasses.dataclass(frozen=True, eq=False)
class Shifts:
    """How far sets of filters lie apart.

    Attributes:
      distance: float64 (S, S), D of every two sets; symmetric, 0 on the diagonal.
      components: float64 (9, 3, 3), principal components of all sets, the largest first.
      share: float64 (9,), of the variance.
    """

    distance: np.ndarray
    components: np.ndarray
    share: np.ndarray


def scaled(layers: Sequence[Layer]) -> np.ndarray:
    """float64 (N, 9): the filters of all layers, each divided by its layer's largest |weight|."""
    parts = []
    for layer in layers:
        largest = np.abs(layer.kernel).max()
        parts.append(layer.filters.astype(np.float64) / (largest if largest > 0 else 1.0))
    return np.concatenate(parts)


def shifts(sets: Sequence[np.ndarray]) -> Shifts:
    """D of every two of S sets of filters (N_s, 9).

    Raises:
      FilterError: no set, an empty one, or filters that do not differ.
    """
    if not sets or any(not len(each) for each in sets):
        raise FilterError("a set of filters is empty")
    every = np.concatenate(sets)
    mean = every.mean(0)
    _, values, components = np.linalg.svd(every - mean, full_matrices=False)
    # Of either sign: the largest number of each is positive.
    largest = np.abs(components).argmax(1)
    components *= np.sign(np.take_along_axis(components, largest[:, None], 1))
    variance = np.zeros(9)
    variance[: len(values)] = values**2
    if not variance.sum() > 0:
        raise FilterError("all filters are the same: they have no principal components")
    share = variance / variance.sum()
    along = [(each - mean) @ components.T for each in sets]
    distance = np.zeros((len(sets), len(sets)))
    for i, weight in enumerate(share[: len(components)]):
        column = [each[:, i] for each in along]
        low, high = min(x.min() for x in column), max(x.max() for x in column)
        p = np.stack([_histogram(x, float(low), float(high)) for x in column])
        logs = np.log(p)
        kl = (p * logs).sum(1)[:, None] - p @ logs.T
        distance += weight * (kl + kl.T)
    np.fill_diagonal(distance, 0.0)
    filled = np.zeros((9, 9))
    filled[: len(components)] = components
    return Shifts(np.maximum(distance, 0.0), filled.reshape(9, 3, 3), share)


def _histogram(x: np.ndarray, low: float, high: float) -> np.ndarray:
    counts, _ = np.histogram(x, BINS, (low, high if high > low else low + 1))
    p = np.where(counts > 0, counts / counts.sum(), _EPSILON)
    return p / p.sum()
