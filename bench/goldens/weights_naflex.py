"""Writes tests/golden/weights/naflex.safetensors: SigLIP2 on images of several shapes.

    .venv-peers/bin/python bench/goldens/weights_naflex.py

A narrow Siglip2VisionModel of transformers with random weights (``weights/``), the cards of it and
of its processor, in the file's metadata, and for pictures of several aspect ratios (``picture/0``
and so on, uint8) what its Pillow processor makes of them (``patches``, ``grids``) and the model of
that (``embedding``). The picture of one row of patches and the one that is enlarged are among them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers.models.siglip2 import image_processing_pil_siglip2 as processing  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "naflex.safetensors"
SHAPES = ((24, 24), (17, 41), (63, 22), (9, 90), (5, 7))
MOST, PATCH = 13, 4


def main() -> None:
    torch.manual_seed(0)
    config = transformers.Siglip2VisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=PATCH,
        num_patches=9,
    )
    model = transformers.Siglip2VisionModel(config).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.ndim == 1 and name.endswith("weight"):
                x.uniform_(0.5, 1.5)
            else:
                x.normal_(0, 0.4 if x.ndim == 1 or "position" in name else x[0].numel() ** -0.5)
            x.copy_(x.half().float())
    processor = processing.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=MOST)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    inputs = processor([Image.fromarray(x) for x in pictures], return_tensors="pt")
    with torch.no_grad():
        embedding = model(**inputs).pooler_output
    saved = {f"picture/{i}": torch.from_numpy(x) for i, x in enumerate(pictures)}
    saved |= {"patches": inputs["pixel_values"], "grids": inputs["spatial_shapes"]}
    saved |= {f"weights/{k}": x.half() for k, x in model.state_dict().items()}
    cards = {}
    with tempfile.TemporaryDirectory() as folder:
        model.config.architectures = ["Siglip2VisionModel"]
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        for file in ("config.json", "preprocessor_config.json"):
            content = json.loads((Path(folder) / file).read_text())
            content.pop("transformers_version", None)
            cards[file] = json.dumps(content)
    save_file({k: x.contiguous() for k, x in {**saved, "embedding": embedding}.items()}, OUT, cards)
    OUT.chmod(0o644)
    print(OUT.stat().st_size, inputs["spatial_shapes"].tolist(), cards)


if __name__ == "__main__":
    main()
