"""The tower that a config.json of transformers' Swin V2 is of, and the config of a tower."""

from __future__ import annotations

from typing import Any

from vision.config.modes import Config
from vision.config.specs import spec
from vision.models.swin_v2 import SwinV2
from vision.weights.cards import CardObject
from vision.weights.mapping import WeightsError
from vision.weights.transformers_keys import check_keys, flag, whole

_KNOWN = (
    *("embed_dim", "depths", "num_heads", "num_layers", "hidden_size", "window_size", "patch_size"),
    *("pretrained_window_sizes", "mlp_ratio", "qkv_bias", "hidden_act", "layer_norm_eps"),
    *("use_absolute_embeddings", "path_norm", "_out_features", "_out_indices"),
)


def swin_tower(card: CardObject) -> Config:
    """``spec(SwinV2, ...)``, with the windows and shifts of the card's size of images.

    Raises:
      WeightsError: a key is not known, or has a value that no tower here has.
    """
    check_keys(card, _KNOWN)
    card.choice("hidden_act", {"gelu": ""}, "")
    if not flag(card, "qkv_bias", True):
        raise card.error("qkv_bias", "leaves out biases that the tower here has")
    if flag(card, "use_absolute_embeddings", False):
        raise card.error("use_absolute_embeddings", "are positions that the tower here has not")
    if card.numbers("layer_norm_eps", (1e-5,), 1)[0] != 1e-5:
        raise card.error("layer_norm_eps", "is not 1e-5, as in the tower here")
    classes = card.values.get("architectures") or ()
    if any("MaskedImage" in str(name) for name in classes):
        raise card.error("architectures", "has a head that no tower here has")
    patch, size = card.sides("patch_size", 4), card.sides("image_size", 224)
    for key, sides in (("patch_size", patch), ("image_size", size)):
        if sides[0] != sides[1]:
            raise card.error(key, "is not square, as windows and patches here are")
    depths = whole(card, "depths", (2, 2, 6, 2))
    trained = card.values.get("pretrained_window_sizes")
    trained = [0] * len(depths) if trained is None else trained
    if not isinstance(trained, (list, tuple)) or not all(type(x) is int for x in trained):
        raise card.error("pretrained_window_sizes", "are not whole numbers, one per stage")
    window = card.sides("window_size", 7)[0]
    windows, shifts = _windows(size[0] // patch[0], len(depths), window)
    return spec(
        SwinV2,
        width=card.sides("embed_dim", 96)[0],
        depths=depths,
        heads=whole(card, "num_heads", (3, 6, 12, 24)),
        windows=windows,
        trained_windows=tuple(trained[: len(depths)]),
        fixed_shifts=shifts,
        patch=patch[0],
        mlp_ratio=float(card.numbers("mlp_ratio", (4.0,), 1)[0]),
    )


def _windows(grid: int, stages: int, window: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sides of windows, and shifts, on a square grid that every stage halves."""
    sides = [grid // 2**i for i in range(stages)]
    return (
        tuple(min(side, window) for side in sides),
        tuple(0 if side <= window else window // 2 for side in sides),
    )


def swin_config(tower: SwinV2, side: int) -> dict[str, Any]:
    """What ``swin_tower`` reads, for a tower and square images of this side.

    Raises:
      WeightsError: transformers has no class for it.
    """
    stages = tower.resolved()
    windows = tuple(stage.window for stage in stages)
    window = max(windows)
    if (windows, tower.fixed_shifts) != _windows(side // tower.patch, len(stages), window):
        raise WeightsError(
            f"transformers: its Swin V2 for images of {side} px has windows and shifts that follow "
            f"from these, not windows={windows} with fixed_shifts={tower.fixed_shifts}; try timm"
        )
    return {
        "model_type": "swinv2",
        "image_size": side,
        "patch_size": tower.patch,
        "embed_dim": stages[0].width,
        "depths": [stage.depth for stage in stages],
        "num_heads": [stage.heads for stage in stages],
        "window_size": window,
        "pretrained_window_sizes": list(tower.trained_windows or (0,) * len(stages)),
        "mlp_ratio": tower.mlp_ratio,
    }
