"""Attribution maps compared with boxes and masks of the object, and by deletion and insertion."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vision.config.ranges import Gt, Le, NonEmpty, NonNegative, Positive, checked
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluate.metrics import undefined_rows
from vision.metrics.localisation import best_iou, energy, near, parts, pixel_auroc, pointing
from vision.train.objective import Batch, Variables
from vision.train.tower import Tap

Target = Literal["label", "predicted"]
# Images (B, H, W, C), and a tap, to the scalar to be explained (B,).
Asked = Callable[..., jax.Array]


class Explain(Protocol):
    """A frozen dataclass that makes heat maps."""

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        """Evidence in ``images`` (B, H, W, C) for ``asked``: (B, H, W), not negative.

        Args:
          asked: ``asked(images, tap=None)`` gives (B,): the logit of each image's class.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The largest absolute gradient over channels (Simonyan et al., Deep Inside Convolutional
    Networks, 2014)."""

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        slope = jax.grad(lambda x: asked(x).sum())(images)
        return jnp.abs(slope).max(-1)


@dataclasses.dataclass(frozen=True)
@checked
class IntegratedGradients:
    """Input minus a baseline, times the mean gradient on the way between them; its absolute value,
    added over channels (Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017).

    The baseline is the mean colour of each image.

    Attributes:
      steps: gradients that are averaged, at the middles of as many equal parts of the way.
    """

    steps: Positive[int] = 16

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        base = images.mean((1, 2), keepdims=True)
        shares = (jnp.arange(self.steps) + 0.5) / self.steps

        def slope(total: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
            between = base + share * (images - base)
            return total + jax.grad(lambda x: asked(x).sum())(between), None

        total, _ = jax.lax.scan(slope, jnp.zeros_like(images), shares)
        return jnp.abs((images - base) * total / self.steps).sum(-1)


@dataclasses.dataclass(frozen=True)
@checked
class Attribution:
    """Heat maps compared with boxes and masks of the object, and with the classifier itself.

    Yields ``top1`` and, for every map, ``<map>_pointing`` (the share whose largest value hits the
    object, see ``vision.metrics.localisation``), ``<map>_iou`` (mean overlap of the box around the
    map's largest part and the object's), ``<map>_error`` (share with an overlap below 0.5, and, of
    predicted classes, also of wrong ones: the localisation error of ILSVRC), ``<map>_parts`` (mean
    number of connected parts above the threshold); with ``masks`` ``<map>_auroc`` (mean over
    images, of pixels) and ``<map>_energy`` (mean share of the map on the object); with ``steps``
    ``<map>_deletion`` and ``<map>_insertion`` (Petsiuk et al., RISE, 2018: mean probability of the
    class while pixels are removed, or added, in the map's order; good are low and high) with the
    figure ``deletion_and_insertion``. Then ``centre_pointing`` (of the middle of the image),
    ``examples``, and, only where there are any, ``unlabelled``, ``<map>_flat`` (constant maps: they
    hit nothing) and ``<map>_nonfinite`` (the same).

    Attributes:
      data: images, labels and boxes.
      maps: name to what makes them, such as ``{"cam": spec(GradCam)}``.
      target: the class that is explained.
      boxes: name of (B, 4) or (B, K, 4): y0, x0, y1, x1 in pixels of the batch's images, the last
        two exclusive; rows of zeros are none.
      masks: name of bool (B, H, W) or (B, K, H, W); "" for none.
      objects: how many of the K, the first ones, are of the class that is explained.
      threshold: share of the largest value from which a pixel belongs to a part.
      tolerance_px: of pointing.
      steps: of deletion and insertion, each 1 / steps of the pixels; 0 for neither. Removed pixels
        have the mean colour of their image.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled, and left out.
    """

    data: EvalData
    maps: NonEmpty[Mapping[str, Explain]]
    target: Target = "label"
    boxes: str = "boxes"
    masks: str = ""
    objects: Positive[int] = 1
    threshold: Annotated[float, Gt(0), Le(1)] = 0.15
    tolerance_px: NonNegative[int] = 15
    steps: NonNegative[int] = 0
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no labelled records.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        values: dict[str, list[Any]] = {}
        unlabelled = 0
        names = {self.label, self.boxes, *((self.masks,) if self.masks else ())}
        for batch in ctx.batches(self.data):
            if missing := sorted({"image", *names} - set(batch)):
                raise ValueError(
                    f"a batch of {self.data.source.info.name} has no {missing[0]!r}; it has "
                    f"{', '.join(sorted(batch))}"
                )
            rows = jax.device_get(self._program(predict, batch)(ctx.variables, dict(batch)))
            for i in np.flatnonzero(rows["_mask"]):
                if rows[self.label][i] < 0:
                    unlabelled += 1
                    continue
                for name, number in self._measured({k: x[i] for k, x in rows.items()}):
                    values.setdefault(name, []).append(number)
        if not values:
            raise DataError(f"{self.data.source.info.name}: no labelled records to explain")
        curves = {name: np.mean(x, 0) for name, x in values.items() if name.startswith("curve/")}
        for name, x in values.items():
            if name in curves:
                continue
            value = np.asarray(x, np.float64)
            if not name.endswith(("_flat", "_nonfinite")):
                yield name, float(np.nanmean(value)) if np.isfinite(value).any() else math.nan
            elif value.any():
                yield name, int(value.sum())
        yield "examples", len(values["top1"])
        if unlabelled:
            yield "unlabelled", unlabelled
        if curves:
            x = np.linspace(0, 1, self.steps + 1)
            lines = tuple(Line(name.removeprefix("curve/"), x, y) for name, y in curves.items())
            yield "deletion_and_insertion", Curve(lines, "share of pixels", "probability")

    def _measured(self, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Metrics of one record."""
        target_correct = bool(row["target_is_right"])
        boxes = row[self.boxes].reshape(-1, 4)[: self.objects]
        yield "top1", bool(row["right"])
        shape = row[f"map/{next(iter(self.maps))}"].shape
        middle = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
        yield "centre_pointing", near(middle, boxes, self.tolerance_px)
        mask = None
        if self.masks:
            mask = row[self.masks].reshape(-1, *shape)[: self.objects].any(0)
        for name in self.maps:
            heat = row[f"map/{name}"]
            finite = bool(np.isfinite(heat).all())
            heat = heat if finite else np.zeros_like(heat)
            iou = best_iou(heat, boxes, self.threshold)
            yield f"{name}_pointing", pointing(heat, boxes, self.tolerance_px)
            yield f"{name}_iou", iou
            yield f"{name}_error", not (target_correct and iou >= 0.5)
            yield f"{name}_parts", parts(heat, self.threshold)[1]
            if mask is not None:
                yield f"{name}_auroc", pixel_auroc(heat, mask)
                yield f"{name}_energy", energy(heat, mask)
            for way in ("deletion", "insertion") if self.steps else ():
                curve = row[f"{way}/{name}"]
                yield f"{name}_{way}", float(np.trapezoid(curve, dx=1 / self.steps))
                yield f"curve/{name} {way}", curve
            yield f"{name}_flat", finite and not np.ptp(heat) > 0
            yield f"{name}_nonfinite", not finite

    def _program(self, predict: Predict, batch: Batch) -> Any:
        sharding = batch["_mask"].sharding
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec())
        keep = tuple(name for name in (self.label, self.boxes, self.masks, "_mask") if name)
        maps = tuple(self.maps.items())
        return _compiled(predict, maps, self.target, self.steps, self.logits, keep, sharding)


@functools.lru_cache(maxsize=32)
def _compiled(
    predict: Predict,
    maps: tuple[tuple[str, Explain], ...],
    target: Target,
    steps: int,
    logits: str,
    keep: tuple[str, ...],
    sharding: Any,
) -> Any:
    label = keep[0]

    def program(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        def scores(images: jax.Array, tap: Tap | None = None) -> jax.Array:
            arguments = (variables, {**batch, "image": images})
            outputs = predict(*arguments) if tap is None else predict(*arguments, tap)  # pyright: ignore
            if logits not in outputs:
                raise ValueError(
                    f"this evaluator needs {logits!r} from the objective's predict; it gives "
                    f"{', '.join(sorted(outputs)) or 'nothing'}"
                )
            return outputs[logits].astype(jnp.float32)

        images = batch["image"]
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"'image' is {images.dtype}: put ops.ValueRange into data.ops")
        values = scores(images)
        best, undefined = jnp.argmax(values, -1), undefined_rows(values)
        target_class = jnp.maximum(batch[label], 0) if target == "label" else best

        def asked(images: jax.Array, tap: Tap | None = None) -> jax.Array:
            return jnp.take_along_axis(scores(images, tap), target_class[:, None], 1)[:, 0]

        rows = {name: batch[name] for name in keep}
        right = (best == batch[label]) & ~undefined
        target_is_right = target_class == batch[label]
        rows |= {"right": right, "target_is_right": target_is_right}
        for name, explain in maps:
            heat = rows[f"map/{name}"] = explain(asked, images).astype(jnp.float32)
            if steps:
                rows[f"deletion/{name}"], rows[f"insertion/{name}"] = deletion_and_insertion(
                    lambda x: jax.nn.log_softmax(scores(x), -1), images, target_class, heat, steps
                )
        return rows

    return jax.jit(program, out_shardings=sharding)


def deletion_and_insertion(
    log_probabilities: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    target_class: jax.Array,
    heat: jax.Array,
    steps: int,
) -> tuple[jax.Array, jax.Array]:
    """Probabilities of a class while pixels are removed, or added, in a map's order.

    Removed pixels have the mean colour of their image (Petsiuk et al., RISE, 2018). Traceable.

    Args:
      log_probabilities: of images (B, H, W, C), (B, K).
      images: (B, H, W, C).
      target_class: int (B,).
      heat: maps (B, H, W).
      steps: of the curves, each 1 / steps of the pixels.

    Returns:
      float32 (B, steps + 1) twice: with none to all pixels removed, and added.
    """
    flat = heat.reshape(len(heat), -1)
    rank = jnp.argsort(jnp.argsort(-flat, axis=1), axis=1).reshape(heat.shape)[..., None]
    mean = images.mean((1, 2), keepdims=True)

    def probability(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        selected = rank < share * flat.shape[1]
        perturbed = jnp.concatenate(
            [jnp.where(selected, mean, images), jnp.where(selected, images, mean)]
        )
        log = jax.lax.map(log_probabilities, perturbed.reshape(2, *images.shape))
        chosen = jnp.exp(jnp.take_along_axis(log, target_class[None, :, None], 2)[..., 0])
        return chosen[0], chosen[1]

    deletion, insertion = jax.lax.map(probability, jnp.linspace(0, 1, steps + 1))
    return deletion.T, insertion.T
