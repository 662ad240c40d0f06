"""Whether a tower is the one that the card beside weights states."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

from vision.config.specs import build
from vision.models.dual import Dual
from vision.models.maxvit import MaxVit
from vision.models.naflex import NaflexViT
from vision.models.relative_vit import RelativeViT
from vision.models.swin import Swin
from vision.models.swin_v2 import SwinV2
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.train.tower import Tower
from vision.weights.mapping import WeightsError
from vision.weights.tower_cards import TowerCard

log = logging.getLogger(__name__)
# Fields that change no number of a tower in evaluation, once its parameters are read: of training,
# of speed, of Flax; the classes of a head, which ``InitFrom.head`` is about; and the sizes that
# ``resolved`` gives.
_FREE = frozenset(
    {
        *("parent", "name", "num_classes", "head_zero_init", "initialisation", "precision"),
        *("drop_path", "dropout", "remat", "scan", "attention", "masked_head", "pooler", "tokens"),
    }
)
_SIZES = frozenset(
    {
        *("variant", "width", "depth", "mlp_dim", "heads", "patch", "depths", "dims", "layers"),
        *("growth", "windows", "window", "head_width", "width_multiplier", "depth_multiplier"),
        *("size", "mlp_ratio", "class_token"),
    }
)


def check(card: TowerCard, tower: Tower) -> None:
    """Raises unless a tower computes what the card's does; of a card of two towers, its own.

    Positions are resampled, and heads may be new. Patches and windows may be of another size, of
    which the log warns; ``trained_windows`` says which windows a Swin's biases are of.

    Raises:
      WeightsError: a field differs; the first is named, with both values.
    """
    stated = build(card.config)
    if isinstance(stated, Dual) and not isinstance(tower, Dual):
        stated = stated.text if isinstance(tower, TextTransformer) else stated.image
    for name, theirs, ours in differences(stated, tower):
        raise WeightsError(
            f"{card.path} is of a tower with {name}={theirs!r}, but the config's has "
            f"{name}={ours!r}: set it so, or take the tower from the file, model=spec(Pretrained, "
            "source=...); init_from.compare=False reads the weights all the same"
        )
    for name, theirs, ours in _resampled(stated, tower):
        log.warning(
            "%s is of a tower with %s=%r, but the config's has %s=%r: what it computes is near to, "
            "and not equal to, what the weights were trained for",
            card.path,
            name,
            theirs,
            name,
            ours,
        )


def differences(stated: Any, tower: Any, within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Names of fields in which two towers differ, with both values."""
    if isinstance(stated, NaflexViT) and isinstance(tower, ViT):
        stated = stated.as_vit()  # for images of one size
    if type(stated) is not type(tower):
        yield f"{within}constructor", type(stated).__name__, type(tower).__name__
        return
    if isinstance(stated, Dual):
        for side in ("image", "text"):
            yield from differences(getattr(stated, side), getattr(tower, side), f"{side}.")
    resolved = hasattr(stated, "resolved")
    if resolved:
        yield from _sizes(stated, tower, within)
    for field in dataclasses.fields(stated):
        name = field.name
        if name in _FREE or (resolved and name in _SIZES) or name in ("image", "text"):
            continue
        if name == "window" and isinstance(stated, MaxVit):
            continue
        theirs, ours = getattr(stated, name), getattr(tower, name)
        if name == "trained_windows":
            theirs, ours = _table_windows(stated), _table_windows(tower)
        if name == "layer_scale":
            theirs, ours = theirs is not None, ours is not None
        if name == "mlp_dim" and isinstance(stated, (TextTransformer, RelativeViT, NaflexViT)):
            pair: tuple[Any, Any] = (stated, tower)
            theirs, ours = (x.mlp_dim or 4 * x.width for x in pair)
        if theirs != ours:
            yield f"{within}{name}", theirs, ours


def _table_windows(tower: Any) -> tuple[int, ...]:
    """Sides of the windows that the biases of a Swin's stages are of; of ``SwinV2`` in relation to
    which, 0 for its own."""
    stages = tower.resolved()
    trained = tower.trained_windows or (0,) * len(stages)
    if isinstance(tower, SwinV2):
        return trained
    return tuple(own or stage.window for own, stage in zip(trained, stages, strict=True))


def _resampled(stated: Any, tower: Any) -> Iterator[tuple[str, Any, Any]]:
    """Sizes of patches and windows that differ, with both values."""
    if isinstance(stated, Dual) and isinstance(tower, Dual):
        stated, tower = stated.image, tower.image
    if isinstance(tower, ViT) and isinstance(stated, (ViT, NaflexViT)):
        theirs = stated.resolved().patch if isinstance(stated, ViT) else stated.patch
        ours = tower.resolved().patch
        if theirs != ours:
            yield "patch", theirs, ours
    if isinstance(tower, Swin) and isinstance(stated, Swin):
        windows = [tuple(stage.window for stage in x.resolved()) for x in (stated, tower)]
        if windows[0] != windows[1]:
            yield "windows", windows[0], windows[1]


def _sizes(stated: Any, tower: Any, within: str) -> Iterator[tuple[str, Any, Any]]:
    theirs, ours = stated.resolved(), tower.resolved()
    if isinstance(stated, ViT):
        for name in ("width", "depth", "mlp_dim", "heads"):
            pair = getattr(theirs, name), getattr(ours, name)
            if pair[0] != pair[1]:
                yield f"{within}{name}", *pair
        if stated.has_class_token() != tower.has_class_token():
            yield f"{within}class_token", stated.has_class_token(), tower.has_class_token()
        return
    if isinstance(stated, Swin):
        theirs, ours = ([stage._replace(window=0) for stage in plan] for plan in (theirs, ours))
        if stated.mlp_ratio != tower.mlp_ratio:
            yield f"{within}mlp_ratio", stated.mlp_ratio, tower.mlp_ratio
    if theirs != ours:
        names = [f.name for f in dataclasses.fields(stated) if f.name in _SIZES]
        pairs = [(n, getattr(stated, n), getattr(tower, n)) for n in names]
        yield from ((f"{within}{n}", a, b) for n, a, b in pairs if a != b)
