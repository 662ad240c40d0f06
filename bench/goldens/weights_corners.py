"""Corners of the families of weights_families.py, in which a library differs from what is usual.

    .venv-peers/bin/python bench/goldens/weights_corners.py

``open_clip_last`` reads a text at its last place, padding or not; ``transformers_dinov2_none`` is
of the class with registers, without one; Swin V2 of transformers keeps windows and shifts whatever
the size of images. Files and cards are those of weights_families.py.
"""

from __future__ import annotations

import json
from functools import partial

import torch
import transformers
from weights_families import (
    CARDS,
    CLASSES,
    HF,
    OUT,
    TALL,
    logits,
    outputs,
    pooled,
    randomise,
    transformers_case,
    write,
)


def last(case: str) -> None:
    import open_clip

    text = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
    config = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 16,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 4,
        },
        "text_cfg": {**text, "pool_type": "last"},
        "custom_text": True,
    }
    CARDS[case] = {
        "scheme": "open_clip",
        "file": "open_clip_config.json",
        "content": {"model_cfg": config, "preprocess_cfg": {}},
    }
    model = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    randomise(model)
    ids = torch.tensor([[38, 5, 6, 39, 0, 0, 0, 0], [38, 1, 2, 3, 4, 5, 6, 39]])

    def run(images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {"image": model.encode_image(images), "text": model.encode_text(ids)}
        return {f"{side}/embedding": x / x.norm(dim=-1, keepdim=True) for side, x in found.items()}

    write(case, model.state_dict(), outputs("", 16, run) | {"ids": ids.int()})


def main() -> None:
    t = transformers
    file = OUT / "cards.json"
    CARDS.update(json.loads(file.read_text()))
    none = t.Dinov2WithRegistersConfig(**HF, mlp_ratio=2, num_register_tokens=0, num_labels=CLASSES)
    registers = partial(t.Dinov2WithRegistersForImageClassification, none)
    two = {"embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2]}
    cases = {
        "open_clip_last": last,
        "transformers_swin_v2": lambda case: transformers_case(
            case,
            t.Swinv2ForImageClassification(
                t.Swinv2Config(
                    **two,
                    image_size=32,
                    window_size=5,
                    pretrained_window_sizes=[6, 0],
                    num_labels=CLASSES,
                )
            ),
            (40, 44),
            logits,
        ),
        "transformers_swin_v2_headless": lambda case: transformers_case(
            case,
            t.Swinv2Model(t.Swinv2Config(**two, image_size=16, window_size=4)),
            (32, 12),
            pooled,
        ),
        "transformers_dinov2_none": lambda case: transformers_case(case, registers(), TALL, logits),
    }
    for case, make in cases.items():
        torch.manual_seed(sum(map(ord, case)))
        make(case)
        CARDS[case]["content"].pop("transformers_version", None)
    file.write_text(json.dumps(dict(sorted(CARDS.items())), indent=1) + "\n")
    file.chmod(0o644)


if __name__ == "__main__":
    main()
