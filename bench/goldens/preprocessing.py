"""What timm, open_clip and transformers make of pictures, by the cards that lie beside weights.

    .venv-peers/bin/python bench/goldens/preprocessing.py

Cards go to tests/golden/weights/preprocessing.json, case to ``scheme`` and ``files``, two pictures
and what became of them to preprocessing.safetensors:

    images/<i>        uint8 (H, W, 3), neither square
    <case>/<i>        float32 (h, w, 3), for transformers by its processors on Pillow
    <case>/<i>/torch  the same by its processors on torchvision

and to preprocessing_files.safetensors files of every kind, and what became of them, opened with
Pillow as each library does:

    files/<kind>       uint8, the bytes
    timm/<kind>        float32 (16, 16, 3); so for open_clip and transformers
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers  # noqa: E402
from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights"
SIDE = 16
SQUARE = {"height": SIDE, "width": SIDE}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
TIMM = {
    "timm_center": {"crop_pct": 0.9, **HALF},
    "timm_defaults": {"interpolation": "bilinear", "input_size": [3, SIDE, SIDE]},
    "timm_squash": {"crop_mode": "squash", "crop_pct": 0.8},
    "timm_border": {"crop_mode": "border", "crop_pct": 0.9, "interpolation": "lanczos"},
    "timm_border_whole": {"crop_mode": "border", "crop_pct": 1.0},
    "timm_wide": {"input_size": [3, SIDE, 20], "crop_pct": 0.95},
}
OPEN_CLIP = {
    "open_clip_default": {},
    "open_clip_squash": {**HALF, "interpolation": "bilinear", "resize_mode": "squash"},
    "open_clip_longest": {"resize_mode": "longest", "fill_color": 127},
}
TRANSFORMERS = {
    "transformers_clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
    },
    "transformers_clip_old": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": SIDE,
        "crop_size": SIDE,
        "resample": 2,
        "image_mean": [0.4, 0.5, 0.6],
    },
    "transformers_siglip": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    "transformers_vit": {"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE},
    "transformers_dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 18},
        "crop_size": SQUARE,
    },
    "transformers_deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 18, "width": 18},
        "crop_size": SQUARE,
    },
    "transformers_convnext": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_pct": 0.875,
    },
}


def pictures() -> list[np.ndarray]:
    """Waves, edges and noise."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in ((40, 56), (67, 45)):
        y, x = np.mgrid[:height, :width]
        waves = [127 + 100 * np.sin(x / (3 + c) + y / (7 - c)) for c in range(3)]
        picture = np.stack(waves, -1) + rng.normal(0, 20, (height, width, 3))
        picture[: height // 3, : width // 2] = (250, 20, 90)
        made.append(picture.clip(0, 255).astype(np.uint8))
    return made


def files() -> dict[str, bytes]:
    """A picture in every kind of file: grey, indexed, transparent, turned, of 16 bits."""
    rgb = Image.fromarray(pictures()[0])
    height, width = rgb.height, rgb.width
    grey = rgb.convert("L")
    ramp = (np.linspace(0, 1, width) * 255).astype(np.uint8)
    alpha = Image.fromarray(np.broadcast_to(ramp, (height, width)).copy())
    indexed = rgb.quantize(32)
    wide = np.asarray(grey).astype(np.uint16) * 257
    turned = Image.Exif()
    turned[0x0112] = 6

    def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **more)
        return stream.getvalue()

    return {
        "rgb": encoded(rgb, "PNG"),
        "rgb_jpeg": encoded(rgb, "JPEG", quality=95),
        "grey": encoded(grey, "PNG"),
        "grey_jpeg": encoded(grey, "JPEG", quality=95),
        "two_levels": encoded(grey.convert("1"), "PNG"),
        "palette": encoded(indexed, "PNG"),
        "cmyk_jpeg": encoded(rgb.convert("CMYK"), "JPEG", quality=95),
        "cmyk_tiff": encoded(rgb.convert("CMYK"), "TIFF"),
        "palette_transparent": encoded(indexed, "PNG", transparency=3),
        "rgba": encoded(Image.merge("RGBA", (*rgb.split(), alpha)), "PNG"),
        "grey_alpha": encoded(Image.merge("LA", (grey, alpha)), "PNG"),
        "grey_16_bit": encoded(Image.fromarray(wide), "PNG"),
        "turned_by_exif": encoded(rgb, "JPEG", quality=95, exif=turned),
    }


def write_files() -> None:
    card = {"input_size": [3, SIDE, SIDE], "crop_pct": 0.9}
    timm = create_transform(**resolve_data_config({}, pretrained_cfg=card))
    open_clip = image_transform_v2(PreprocessCfg(size=SIDE), is_train=False)
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    libraries: dict[str, Callable[[Image.Image], object]] = {
        "timm": lambda image: timm(image.convert("RGB")),  # as its datasets and readers do
        "open_clip": open_clip,
        "transformers": lambda image: processor(image, return_tensors="np")["pixel_values"][0],
    }
    found = {}
    for kind, content in files().items():
        found[f"files/{kind}"] = np.frombuffer(content, np.uint8).copy()
        for library, transform in libraries.items():
            found[f"{library}/{kind}"] = channels_last(transform(Image.open(io.BytesIO(content))))
    save_file(found, FOLDER / "preprocessing_files.safetensors")
    (FOLDER / "preprocessing_files.safetensors").chmod(0o644)


def channels_last(tensor) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(tensor, np.float32).transpose(1, 2, 0))


def main() -> None:
    images = pictures()
    pillow = [Image.fromarray(image) for image in images]
    cards, found = {}, {f"images/{i}": image for i, image in enumerate(images)}
    for case, values in TIMM.items():
        card = {"input_size": [3, SIDE, SIDE], "num_classes": 5, **values}
        config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": card}
        cards[case] = {"scheme": "timm", "files": {"config.json": config}}
        transform = create_transform(**resolve_data_config({}, pretrained_cfg=card))
        found |= {f"{case}/{i}": channels_last(transform(x)) for i, x in enumerate(pillow)}
    for case, values in OPEN_CLIP.items():
        config = {"model_cfg": {"vision_cfg": {"image_size": SIDE}}, "preprocess_cfg": values}
        cards[case] = {"scheme": "open_clip", "files": {"open_clip_config.json": config}}
        transform = image_transform_v2(PreprocessCfg(size=SIDE, **values), is_train=False)
        found |= {f"{case}/{i}": channels_last(transform(x)) for i, x in enumerate(pillow)}
    for case, values in TRANSFORMERS.items():
        cards[case] = {"scheme": "transformers", "files": {"preprocessor_config.json": values}}
        name = next(iter(values.values())).replace("FeatureExtractor", "ImageProcessor")
        fields = {k: v for k, v in values.items() if not k.endswith("_type")}
        for kind, suffix in (("Pil", ""), ("", "/torch")):
            process = getattr(transformers, name + kind)(**fields)
            for i, picture in enumerate(pillow):
                pixels = process(picture, return_tensors="np")["pixel_values"][0]
                found[f"{case}/{i}{suffix}"] = channels_last(pixels)
    save_file(found, FOLDER / "preprocessing.safetensors")
    (FOLDER / "preprocessing.safetensors").chmod(0o644)
    (FOLDER / "preprocessing.json").write_text(json.dumps(cards, indent=1) + "\n")
    write_files()
    for name, array in found.items():
        print(name, array.shape)


if __name__ == "__main__":
    main()
