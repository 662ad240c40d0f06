"""Cards: the JSON files beside weights in which libraries keep their preprocessing.

    timm           config.json               ``pretrained_cfg``, or all of it in old files
    open_clip      open_clip_config.json     ``preprocess_cfg``, and ``model_cfg`` for the size
    transformers   preprocessor_config.json
    ours           preprocessing.json        the fields of ``Preprocessing``

A key that is not known here may change pixels: it is an error, unless it is null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vision.weights import hub, packages, zoo
from vision.weights.mapping import WeightsError
from vision.weights.naflex import NaflexPreprocessing
from vision.weights.preprocessing import Mode, Preprocessing
from vision.weights.processors import CLIP, IMAGENET, KEYS, PROCESSORS, SUFFIXES

OURS = "preprocessing.json"
FILES: Mapping[str, str] = {
    "timm": "config.json",
    "open_clip": "open_clip_config.json",
    "transformers": "preprocessor_config.json",
    "safetensors": OURS,
    zoo.SCHEME: OURS,
}
_LARGEST = 1 << 28  # bytes; the largest are tokenizers, of some ten million
_PILLOW = tuple(method.name.lower() for method in Image.Resampling)


@dataclasses.dataclass(frozen=True)
class CardObject:
    """An object in a JSON file, for messages that name the file and the key.

    Attributes:
      path: the file.
      values: key to value.
      within: the key of this object in the file, with a dot after it, or nothing.
    """

    path: Path
    values: Mapping[str, Any]
    within: str = ""

    def part(self, key: str) -> CardObject:
        """The object under a key; empty where there is none."""
        values = self.values.get(key) or {}
        if not isinstance(values, dict):
            raise self.error(key, "is not an object")
        return CardObject(self.path, values, f"{self.within}{key}.")

    def error(self, key: str, what: str) -> WeightsError:
        value = json.dumps(self.values.get(key))
        return WeightsError(f"{self.path}: {self.within}{key} {what}: {value[:80]}")

    def check_keys(self, known: Collection[str]) -> None:
        for key, value in self.values.items():
            if key not in known and value is not None:
                raise self.error(key, "is not known here, and may change what images become")

    def choice(self, key: str, choices: Mapping[Any, str], default: str) -> str:
        """The meaning of the value of a key; None, and no value, mean ``default``."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, (dict, list)) or value not in choices:
            raise self.error(key, f"is none of {', '.join(map(str, choices))}")
        return choices[value]

    def numbers(self, key: str, default: tuple[float, ...], count: int) -> tuple[float, ...]:
        """``count`` numbers; one stands for as many, and nothing for ``default``."""
        value = self.values.get(key)
        if value is None:
            value = default
        listed = tuple(value) if isinstance(value, (list, tuple)) else (value,) * count
        if len(listed) != count or not all(type(x) in (int, float) for x in listed):
            raise self.error(key, f"is not {count} numbers")
        return listed

    def sides(self, key: str, default: int | tuple[int, int]) -> tuple[int, int]:
        """(height, width), given as a number, two numbers or an object."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, dict) and value.keys() == {"height", "width"}:
            value = (value["height"], value["width"])
        pair: list[Any] = [*value] if isinstance(value, (list, tuple)) else [value, value]
        if len(pair) != 2 or not all(type(x) is int and x > 0 for x in pair):
            raise self.error(key, "is no size")
        return pair[0], pair[1]

    def check_square(self, key: str) -> None:
        """Raises if a size of images, for which a file has positions, is of a rectangle."""
        if self.values.get(key) is not None and len(set(self.sides(key, 1))) > 1:
            raise self.error(key, "is not square, and a file does not say how positions lie in it")


def read(source: str) -> tuple[Preprocessing | NaflexPreprocessing, Path] | None:
    """The preprocessing of a source of ``InitFrom``, and the file that it stands in.

    None where there is no such file: ``big_vision:`` and ``workdir:`` never have one.

    Raises:
      WeightsError: the file is not what it should be; it and the key are named.
    """
    card = card_beside(source, FILES)
    if card is None:
        return None
    return _READERS[source.partition(":")[0]](card), card.path


def card_beside(source: str, files: Mapping[str, str]) -> CardObject | None:
    """The card of a source of ``InitFrom``; None where there is none.

    Args:
      source: of ``InitFrom``.
      files: scheme to the name of its file.

    Raises:
      WeightsError: the file is not what it should be, or there is no such package.
    """
    scheme, _, text = source.partition(":")
    if scheme == packages.SCHEME:
        return CardObject(packages.file_of(text), packages.known(text).card())
    if scheme not in files:
        return None
    if scheme == zoo.SCHEME:
        return read_card(zoo.folder_of(text) / files[scheme])
    path = hub.beside(scheme, text, files[scheme])
    return None if path is None else read_card(path)


def read_card(path: Path) -> CardObject:
    """A JSON file that holds an object."""
    try:
        if path.stat().st_size > _LARGEST:
            raise WeightsError(f"{path} has {path.stat().st_size} bytes, which no card has")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} does not hold a JSON object")
    return CardObject(path, values)


# Of ``pretrained_cfg``, and in old files of the whole.
TIMM_KEYS = (
    *("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"),
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture"),
    *("tag", "custom_load", "test_input_size", "min_input_size", "fixed_input_size"),
    *("test_crop_pct", "num_classes", "label_offset", "label_names", "label_descriptions"),
    *("pool_size", "test_pool_size", "first_conv", "classifier", "license", "description"),
    *("origin_url", "paper_name", "paper_ids", "notes", "num_features", "global_pool", "labels"),
    *("model_args", "paper_url", "repo_url", "hf_hub", "input_size_test"),
)
_TIMM_MODES: Mapping[str, str] = {"center": "shortest", "squash": "squash", "border": "longest"}


def _timm(card: CardObject) -> Preprocessing:
    card = card.part("pretrained_cfg") if "pretrained_cfg" in card.values else card
    card.check_keys(TIMM_KEYS)
    channels, *size = card.numbers("input_size", (3, 224, 224), 3)
    channels, height, width = int(channels), *map(int, size)
    mean, std = (
        card.numbers(key, default[:channels], channels)
        for key, default in zip(("mean", "std"), IMAGENET, strict=True)
    )
    (ratio,) = card.numbers("crop_pct", (0.875,), 1)
    mode: Any = card.choice("crop_mode", _TIMM_MODES, "shortest")
    method: Any = card.choice("interpolation", {name: name for name in _PILLOW}, "bicubic")
    resized = (math.floor(height / ratio), math.floor(width / ratio))
    fill = tuple(round(255 * x) for x in mean)
    return _preprocessing(card, (height, width), resized, mode, method, mean, std, fill)


def _open_clip(card: CardObject) -> Preprocessing:
    images = card.part("preprocess_cfg")
    images.check_keys(("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"))
    images.choice("mode", {"RGB": "RGB"}, "RGB")
    # The size with which the tower is made comes before that of the images.
    vision = card.part("model_cfg").part("vision_cfg")
    tower = "image_size" in vision.values
    size = vision.sides("image_size", 224) if tower else images.sides("size", 224)
    mean, std = images.numbers("mean", CLIP[0], 3), images.numbers("std", CLIP[1], 3)
    # In evaluation ``random`` means bicubic there.
    methods = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
    method: Any = images.choice("interpolation", methods, "bicubic")
    modes = {name: name for name in ("shortest", "longest", "squash")}
    mode: Any = images.choice("resize_mode", modes, "shortest")
    (fill,) = images.numbers("fill_color", (0,), 1)
    return _preprocessing(images, size, size, mode, method, mean, std, (int(fill),) * 3)


def _transformers(card: CardObject) -> Preprocessing | NaflexPreprocessing:
    values = card.values
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or ""
    key = "image_processor_type" if "image_processor_type" in values else "feature_extractor_type"
    name = next((kind.removesuffix(s) for s in SUFFIXES if kind.endswith(s)), kind)
    patched = name == "Siglip2"
    card.check_keys((*KEYS, "do_pad", *(("patch_size", "max_num_patches") if patched else ())))
    if name not in PROCESSORS and not patched:
        raise card.error(key, f"is none of {', '.join((*PROCESSORS, 'Siglip2'))} (ImageProcessor)")
    default = PROCESSORS["Siglip" if patched else name]
    for switch in ("do_resize", "do_rescale", "do_normalize"):
        if values.get(switch) is False:
            raise card.error(switch, "leaves a step out, which has no counterpart here")
    if values.get("do_pad"):
        raise card.error("do_pad", "has no counterpart here")
    (factor,) = card.numbers("rescale_factor", (1 / 255,), 1)
    if abs(factor * 255 - 1) > 1e-6:
        raise card.error("rescale_factor", "is not 1/255")
    numbers: Mapping[Any, str] = {method.value: method.name.lower() for method in Image.Resampling}
    method: Any = card.choice("resample", numbers, "bilinear" if patched else default.method)
    mean = card.numbers("image_mean", default.statistics[0], 3)
    std = card.numbers("image_std", default.statistics[1], 3)

    if patched:
        return _naflex(card, method, mean, std)
    size = values.get("size") or default.size
    if isinstance(size, int):
        size = {"shortest_edge": size} if default.shortest else {"height": size, "width": size}
    shortest = isinstance(size, dict) and size.keys() == {"shortest_edge"}
    if shortest:
        resized = CardObject(card.path, size, f"{card.within}size.").sides("shortest_edge", 0)
    else:
        resized = CardObject(card.path, {"size": size}, card.within).sides("size", 0)
    if name == "ConvNext":
        return _convnext(card, resized, method, mean, std)
    mode: Mode = "shortest" if shortest else "squash"
    cropped = values.get("do_center_crop")
    if cropped is None:
        cropped = default.crop is not None
    if shortest and not cropped:
        raise card.error("do_center_crop", "leaves images of many sizes")
    final = card.sides("crop_size", default.crop or resized) if cropped else resized
    return _preprocessing(card, final, resized, mode, method, mean, std, (0, 0, 0))


def _naflex(
    card: CardObject, method: Any, mean: tuple[float, ...], std: tuple[float, ...]
) -> NaflexPreprocessing:
    # Its images have the size that their shape says; a size of a card's is of no use there.
    if card.values.get("do_center_crop"):
        raise card.error("do_center_crop", "is no step of SigLIP2's processor")
    patch, most = card.sides("patch_size", 16), card.sides("max_num_patches", 256)[0]
    if patch[0] != patch[1]:
        raise card.error("patch_size", "is not square, as patches here are")
    return NaflexPreprocessing(patch[0], most, method, mean, std)


def _convnext(
    card: CardObject,
    size: tuple[int, int],
    method: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Preprocessing:
    # From 384 pixels on, images are squashed there instead of cropped.
    (ratio,) = card.numbers("crop_pct", (224 / 256,), 1)
    if size[0] >= 384:
        return _preprocessing(card, size, size, "squash", method, mean, std, (0, 0, 0))
    resized = (int(size[0] / ratio), int(size[1] / ratio))
    return _preprocessing(card, size, resized, "shortest", method, mean, std, (0, 0, 0))


def _ours(card: CardObject) -> Preprocessing | NaflexPreprocessing:
    kind = NaflexPreprocessing if "most" in card.values else Preprocessing
    fields = {f.name for f in dataclasses.fields(kind)}
    card.check_keys(fields)
    fields_given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in card.values.items()
    }
    try:
        return kind(**fields_given)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{card.path}: {error}") from error


_READERS = {
    "timm": _timm,
    packages.SCHEME: _timm,
    "open_clip": _open_clip,
    "transformers": _transformers,
    "safetensors": _ours,
    zoo.SCHEME: _ours,
}


def _preprocessing(
    card: CardObject,
    size: tuple[int, int],
    resized: tuple[int, int],
    mode: Mode,
    method: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    fill: tuple[int, ...],
) -> Preprocessing:
    try:
        return Preprocessing(
            size=size,
            resized=None if resized == size else resized,
            mode=mode,
            method=method,
            mean=mean,
            std=std,
            fill=fill if mode == "longest" else (0, 0, 0),
        )
    except ValueError as error:
        raise WeightsError(f"{card.path}: {card.within.rstrip('.')} {error}") from error


def written(scheme: str, card: Preprocessing | NaflexPreprocessing) -> dict[str, Any]:
    """The part of a library's card that ``read`` reads, for this preprocessing.

    Raises:
      WeightsError: the library cannot express it.
    """
    if scheme == "safetensors":
        return dataclasses.asdict(card)
    if isinstance(card, NaflexPreprocessing):
        raise WeightsError(f"{scheme} gets no card here of images of any shape, as patches")
    methods = ("bicubic", "bilinear") if scheme == "open_clip" else _PILLOW
    if card.method not in methods:
        raise WeightsError(
            f"{scheme} does not resize by {card.method!r}; it knows {', '.join(methods)}"
        )
    if scheme == "timm":
        ratio = _ratio(card)
        modes = {ours: theirs for theirs, ours in _TIMM_MODES.items()}
        return {
            "input_size": [len(card.mean), *card.size],
            "interpolation": card.method,
            "crop_pct": ratio,
            "crop_mode": modes[card.mode],
            "mean": list(card.mean),
            "std": list(card.std),
        }
    if scheme == "open_clip":
        if card.before_crop != card.size or len(set(card.fill)) > 1:
            raise WeightsError("open_clip neither resizes beyond the crop nor fills with colours")
        return {
            "size": list(card.size),
            "mode": "RGB",
            "mean": list(card.mean),
            "std": list(card.std),
            "interpolation": card.method,
            "resize_mode": card.mode,
            "fill_color": card.fill[0],
        }
    return _written_transformers(card)


def _ratio(card: Preprocessing) -> float:
    """``crop_pct``, by which timm divides the size, rounding down, for the size before the crop."""
    sides = tuple(zip(card.size, card.before_crop, strict=True))
    ratio = min(size / before for size, before in sides)
    while any(math.floor(size / ratio) < before for size, before in sides):
        ratio = math.nextafter(ratio, 0)
    if tuple(math.floor(side / ratio) for side in card.size) != card.before_crop:
        raise WeightsError(f"timm has one crop_pct for both sides; no one gives {card.before_crop}")
    return ratio


def _written_transformers(card: Preprocessing) -> dict[str, Any]:
    if card.mode == "longest" or (card.mode == "shortest" and len(set(card.before_crop)) > 1):
        raise WeightsError(f"transformers has no class that resizes as mode={card.mode!r} here")
    height, width = card.before_crop
    size = {"shortest_edge": height} if card.mode == "shortest" else {"height": height}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": size if card.mode == "shortest" else size | {"width": width},
        "resample": int(Image.Resampling[card.method.upper()]),
        "do_center_crop": True,
        "crop_size": {"height": card.size[0], "width": card.size[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card.mean),
        "image_std": list(card.std),
        "do_convert_rgb": True,
    }
