"""Builds exported models in timm, open_clip or transformers, asked by ``bench/exports.py``.

Every line on standard input is a JSON object: ``library``, ``folder`` (config, weights and
``picture.png``) and ``text``, rows of token ids or null. So is the answer: ``numbers`` (logits,
or the embeddings of picture and text, of length 1), ``class`` and ``versions``, or ``failed``.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import torch
from PIL import Image
from timm_step import timm_without_operators  # beside this file


def build(library: str, folder: str):
    """The model, and what makes an input of a picture."""
    if library == "timm":
        timm = timm_without_operators()
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        return model, lambda picture: transform(picture)[None]
    if library == "open_clip":
        timm_without_operators()
        import open_clip

        model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        return model, lambda picture: prepare(picture)[None]
    timm_without_operators()
    import transformers

    config = json.loads((Path(folder) / "config.json").read_text())
    model, report = getattr(transformers, config["architectures"][0]).from_pretrained(
        folder, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # Counters of training steps and the token of masked pretraining are ours nowhere, and
        # change nothing that is computed.
        left = ("num_batches_tracked", "mask_token")
        found = [key for key in report[problem] if not str(key).endswith(left)]
        if found:
            raise ValueError(f"{problem}: {found}")
    processor = json.loads((Path(folder) / "preprocessor_config.json").read_text())
    # The processors on Pillow; those on torchvision round resized pixels otherwise.
    kind = getattr(transformers, processor["image_processor_type"] + "Pil")
    prepare = kind.from_pretrained(folder)
    return model, lambda picture: prepare(picture, return_tensors="pt")["pixel_values"]


def numbers(library: str, model, image, text) -> torch.Tensor:
    if text is None:
        found = model(image)
        if library == "timm":
            return found
        return found.logits if "logits" in found else found.pooler_output
    ids = torch.tensor(text)
    if library == "open_clip":
        sides = model.encode_image(image), model.encode_text(ids)
    else:
        found = model(input_ids=ids, pixel_values=image)
        sides = found.image_embeds, found.text_embeds
    return torch.cat([side / side.norm(dim=-1, keepdim=True) for side in sides], 1)


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            model, prepare = build(asked["library"], asked["folder"])
            model.eval()
            with torch.inference_mode(), Image.open(Path(asked["folder"]) / "picture.png") as file:
                image = prepare(file.convert("RGB"))
                found = numbers(asked["library"], model, image, asked["text"])
            package = sys.modules[asked["library"]]
            answer = {
                "numbers": found.ravel().tolist(),
                "class": type(model).__name__,
                "versions": f"{asked['library']} {package.__version__}, torch {torch.__version__}",
            }
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
