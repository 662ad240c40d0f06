"""Functional hashing: candidates of a search are the same if they compute the same.

Most of what a search over programs or networks proposes was proposed before, in other words: with
summands exchanged, with steps that nothing reads. A candidate is run once on a small fixed input,
with fixed seeds, and the numbers that come out are its name:

    h <- sha256(h, exponent of v), h <- sha256(h, first bits of the mantissa of v)   for each v

Under its name stand the mean fitness and the number of evaluations that made it:

    unknown                    evaluate, remember
    fewer than ``max_evals``   evaluate again and average: for fitness with noise
    otherwise                  the mean; only the hash was paid. With ``remove_probability`` the
                               entry is then forgotten, so that no lucky one lasts

What is run for a name is up to the search: a program on random inputs, a network for a few steps
of training. Networks need weights by which equivalent ones agree: ``symmetric_variables`` draws
them by the kind of operation instead of its place, and alike for all states that are concatenated.

Gillard et al., Unified Functional Hashing in Automatic Machine Learning, 2023. Headline: large
savings on NAS-Bench-101 and in the discovery of algorithms (factors unconfirmed). The search is
``papers.functional_hash.search``, cells and their towers are ``vision.models.nasnet``. Different:
networks are named by the logits of one pass instead of accuracies in training, which costs no
training and tells more apart.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vision.models.nasnet import NasNet
from vision.parallel.mesh import path_of
from vision.train.tower import forward, initialise

Candidate = TypeVar("Candidate")
MANTISSA = 52


def functional_hash(values: Iterable[float], mantissa_bits: int = 24) -> int:
    """A whole number below 2^63 of numbers in their order, in float64.

    Numbers whose sign, exponent and first ``mantissa_bits`` (0 to 52) agree count as the same; so
    do 0 and -0, and all NaN.
    """
    if not 0 <= mantissa_bits <= MANTISSA:
        raise ValueError(f"mantissa_bits={mantissa_bits}: 0 to {MANTISSA}")
    numbers = np.asarray([*values], np.float64) + 0.0  # which turns -0 into 0
    numbers[np.isnan(numbers)] = np.nan
    bits = numbers.view(np.uint64)
    mantissas = (bits & np.uint64(2**MANTISSA - 1)) >> np.uint64(MANTISSA - mantissa_bits)
    parts = np.stack([bits >> np.uint64(MANTISSA), mantissas], -1).astype(">u8").tobytes()
    mixed = b""
    for i in range(0, len(parts), 8):
        mixed = hashlib.sha256(mixed + parts[i : i + 8]).digest()
    return int.from_bytes(mixed[:8], "big") >> 1


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """What is known of a function: its mean fitness and the evaluations behind it.

    Attributes:
      fitness: mean over the evaluations.
      count: of evaluations.
    """

    fitness: float
    count: int


Answer = Literal["miss", "partial", "hit"]


@dataclasses.dataclass
class Cache(Generic[Candidate]):
    """``evaluate`` for the functions that are new; see the module.

    Attributes:
      evaluate: fitness of a candidate, the dear part.
      name: the functional hash of a candidate.
      max_evals: evaluations of a function until it counts as known.
      remove_probability: of forgetting a function after a full hit.
      rng: decides that; needed where the probability is above 0.
      known: name to entry.
      answers: how often it knew nothing, not enough, enough.
    """

    evaluate: Callable[[Candidate], float]
    name: Callable[[Candidate], int]
    max_evals: int = 1
    remove_probability: float = 0.0
    rng: np.random.Generator | None = None
    known: dict[int, CacheEntry] = dataclasses.field(default_factory=dict)
    answers: dict[Answer, int] = dataclasses.field(
        default_factory=lambda: {"miss": 0, "partial": 0, "hit": 0}
    )

    def __post_init__(self) -> None:
        if self.max_evals < 1 or not 0 <= self.remove_probability <= 1:
            raise ValueError(
                f"max_evals={self.max_evals}, remove_probability={self.remove_probability}: at "
                "least one evaluation, and a probability"
            )
        if self.remove_probability and self.rng is None:
            raise ValueError("remove_probability above 0 needs rng")

    @property
    def evaluations(self) -> int:
        """How often ``evaluate`` was called."""
        return self.answers["miss"] + self.answers["partial"]

    def __call__(self, candidate: Candidate) -> float:
        """The candidate's fitness, as far as it is known."""
        name = self.name(candidate)
        entry = self.known.get(name, CacheEntry(0.0, 0))
        if entry.count < self.max_evals:
            self.answers["partial" if entry.count else "miss"] += 1
            total = entry.fitness * entry.count + self.evaluate(candidate)
            entry = self.known[name] = CacheEntry(total / (entry.count + 1), entry.count + 1)
            return entry.fitness
        self.answers["hit"] += 1
        if self.rng is not None and self.rng.random() < self.remove_probability:
            del self.known[name]
        return entry.fitness


def symmetric_variables(tower: NasNet, shape: tuple[int, ...], seed: int = 0) -> Any:
    """``(params, model_state)`` for images of ``shape``, as equivalent genotypes share them.

    Kernels are normal of variance 1 / fan-in, drawn by what an operation is, not by the step that
    it belongs to or the side of the sum; those that read the concatenated states of a cell do so
    alike for every block of ``tower.filters`` channels. The rest is as at the start of training.
    """
    shapes = jax.eval_shape(
        functools.partial(initialise, tower), jax.random.key(0), jax.ShapeDtypeStruct(shape, "f4")
    )

    def drawn(path: Any, leaf: Any) -> jax.Array:
        name = path_of(path)
        if not name.endswith("kernel"):
            ones = name.endswith(("scale", "var"))
            return jnp.full(leaf.shape, float(ones), leaf.dtype)
        kind = re.sub(r"step\d+[lr]_", "", name)
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        channels = leaf.shape[-2]
        read = tower.filters if re.search("squeeze|previous|head", kind) else channels
        values = rng.standard_normal((*leaf.shape[:-2], read, leaf.shape[-1]))
        places = np.arange(channels) % read
        return jnp.asarray(values[..., places, :] / math.prod(leaf.shape[:-1]) ** 0.5, leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def name_of_tower(tower: NasNet, images: jax.Array, seed: int = 0, mantissa_bits: int = 10) -> int:
    """The functional hash of a tower: of its logits for ``images``, with symmetric weights.

    Equal sums in another order differ by rounding in float32; ``mantissa_bits`` passes over that.
    """
    variables = symmetric_variables(tower, images.shape, seed)
    logits = forward(tower, *variables, images, train=False)[1]["logits"]
    return functional_hash(np.asarray(logits, np.float64).ravel(), mantissa_bits)
