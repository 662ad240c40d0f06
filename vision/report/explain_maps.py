"""Heat maps of one image by several methods, and how the model's answer follows them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vision.blocks.activation_maps import relative
from vision.blocks.relevance import Lrp, RelevanceError, magnitude
from vision.blocks.sites import SiteError
from vision.evaluate.evaluator import Predict
from vision.evaluators.attribution import (
    Asked,
    Explain,
    Gradient,
    IntegratedGradients,
    deletion_and_insertion,
)
from vision.parallel.mesh import to_device
from vision.predict.explain import bank_of, class_scores
from vision.predict.images import Images
from vision.predict.predictor import Predictor
from vision.train.objective import Variables
from vision.train.tower import Tap

GRAD_CAM, RANDOM = "Grad-CAM", "random order"


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Layer-wise relevance propagation, the mean over channels (``vision.blocks.relevance``)."""

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        return magnitude(asked, images, Lrp(dense="alpha_beta")).mean(-1)


PIXELS: Mapping[str, Explain] = {
    "relevance": Relevance(),
    "gradient": Gradient(),
    "integrated gradients": IntegratedGradients(),
}
"""Methods beside Grad-CAM, which need no site of the tower."""
METHODS = (GRAD_CAM, *PIXELS)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMaps:
    """Where several methods saw evidence for one class of one image.

    Attributes:
      class_name: that is explained.
      probability: of it, 0..1.
      heat: method to float32 (H, W) in 0..1, relative to its maximum.
      curves: method, and ``RANDOM``, to the probability with 0 to all pixels removed, and added,
        in the map's order: float32 (steps + 1,) twice. Empty where none were asked for.
      failed: method to the reason why it has no map.
    """

    class_name: str
    probability: float
    heat: dict[str, np.ndarray]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    failed: dict[str, str]


def class_maps(predictor: Predictor, image: Images, class_name: str, steps: int) -> ClassMaps:
    """All maps of one class.

    Args:
      predictor: the model.
      image: one image, as ``predictor.gather`` gives it.
      class_name: one of its classes.
      steps: of the curves; 0 for none.

    Raises:
      DataError: an image that cannot be used.
      PredictError: no such class, or a model without classes.
    """
    heat: dict[str, np.ndarray] = {}
    failed: dict[str, str] = {}
    probability = float("nan")
    try:
        found = predictor.explain(image, class_name)
        heat[GRAD_CAM], probability = found.heat, found.probability
    except SiteError as error:
        failed[GRAD_CAM] = str(error)
    _, batch = predictor.single(image)
    target = jnp.int32(predictor.classes.index(class_name))
    bank = bank_of(predictor.texts)
    with jax.set_mesh(predictor.mesh):
        if not np.issubdtype(batch["image"].dtype, np.floating):
            failed |= dict.fromkeys(PIXELS, f"its input is {batch['image'].dtype}, no numbers")
        for name in PIXELS.keys() - failed.keys():
            on_mesh = to_device(batch, predictor.mesh)
            program = _map(predictor.forward, PIXELS[name], on_mesh["_mask"].sharding)
            try:
                found = np.asarray(program(predictor.variables, on_mesh, bank, target)[0])
            except RelevanceError as error:
                failed[name] = str(error)
                continue
            if np.isfinite(found).all():
                heat[name] = found
            else:
                failed[name] = "the map is NaN or infinite"
        ordered = {name: heat[name] for name in METHODS if name in heat}
        curves = _curves(predictor, batch, ordered, target, steps) if steps and ordered else {}
    return ClassMaps(class_name, probability, ordered, curves, failed)


def _curves(
    predictor: Predictor,
    batch: Mapping[str, np.ndarray],
    heat: Mapping[str, np.ndarray],
    target: jax.Array,
    steps: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One row of a batch per map, and one for pixels in random order."""
    shape = next(iter(heat.values())).shape
    rows = {**heat, RANDOM: np.random.default_rng(0).random(shape, np.float32)}
    parts = len(batch["image"])
    count = -(-len(rows) // parts) * parts
    repeated = {name: np.resize(x[:1], (count, *x.shape[1:])) for name, x in batch.items()}
    orders = np.stack([*rows.values(), *[next(iter(heat.values()))] * (count - len(rows))])
    on_mesh = to_device({**repeated, "_order": orders}, predictor.mesh)
    texts = predictor.texts
    program = _curves_program(
        predictor.forward, steps, texts is not None and texts.independent,
        on_mesh["_mask"].sharding,
    )  # fmt: skip
    removed, added = map(
        np.asarray, program(predictor.variables, on_mesh, bank_of(texts), target)
    )  # fmt: skip
    return {name: (removed[i], added[i]) for i, name in enumerate(rows)}


def _whole(sharding: Any) -> Any:
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding


@functools.lru_cache(maxsize=32)
def _map(forward: Predict, method: Explain, sharding: Any) -> Any:
    def program(
        variables: Variables, batch: Mapping[str, jax.Array], bank: Any, target: jax.Array
    ) -> jax.Array:
        def asked(images: jax.Array, tap: Tap | None = None) -> jax.Array:
            given = {**batch, "image": images}
            return class_scores(forward, variables, given, bank, tap)[0][:, target]

        return relative(method(asked, batch["image"]).astype(jnp.float32))

    return jax.jit(program, out_shardings=_whole(sharding))


@functools.lru_cache(maxsize=32)
def _curves_program(forward: Predict, steps: int, independent: bool, sharding: Any) -> Any:
    def program(
        variables: Variables, batch: Mapping[str, jax.Array], bank: Any, target: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        order = batch["_order"]
        rest = {name: x for name, x in batch.items() if name != "_order"}

        def log_probabilities(images: jax.Array) -> jax.Array:
            scores, said = class_scores(forward, variables, {**rest, "image": images}, bank)
            if bank is None:
                return said
            return jax.nn.log_sigmoid(scores) if independent else jax.nn.log_softmax(scores, -1)

        targets = jnp.full(len(order), target)
        return deletion_and_insertion(log_probabilities, batch["image"], targets, order, steps)

    return jax.jit(program, out_shardings=_whole(sharding))


def area(curve: np.ndarray) -> float:
    """Under a curve over 0..1."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def mean_areas(found: Sequence[ClassMaps]) -> dict[str, tuple[float, float]]:
    """Method to the mean areas under its deletion and insertion curves, of those that have some."""
    areas: dict[str, list[tuple[float, float]]] = {}
    for each in found:
        for name, (removed, added) in each.curves.items():
            areas.setdefault(name, []).append((area(removed), area(added)))
    means = {name: np.mean(values, 0) for name, values in areas.items()}
    return {name: (float(low), float(high)) for name, (low, high) in means.items()}
