"""Writes tests/golden/contrast/open_clip.npz: open_clip's ClipLoss and SigLipLoss, with gradients.

    .venv-peers/bin/python bench/goldens/contrast_losses.py

Needs open_clip_torch and torch. Only open_clip's loss module is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "contrast" / "open_clip.npz"
SIZES = ((1, 4), (2, 8), (7, 16), (32, 64), (96, 24))


def losses() -> Any:
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).with_name("loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    module = losses()
    cases = {
        # name: loss, log scale, bias
        "softmax": (module.ClipLoss(), math.log(1 / 0.07), None),
        "softmax_hot": (module.ClipLoss(), math.log(90.0), None),
        "sigmoid": (module.SigLipLoss(), math.log(10.0), -10.0),
        "sigmoid_unbiased": (module.SigLipLoss(), math.log(3.0), 0.0),
    }
    arrays: dict[str, np.ndarray] = {}
    for rows, width in SIZES:
        generator = torch.Generator().manual_seed(rows)
        image = torch.randn(rows, width, generator=generator)
        text = 0.7 * image + torch.randn(rows, width, generator=generator)
        image, text = (torch.nn.functional.normalize(side, dim=-1) for side in (image, text))
        arrays[f"{rows}x{width}/image"] = image.numpy()
        arrays[f"{rows}x{width}/text"] = text.numpy()
        for name, (loss, log_scale, bias) in cases.items():
            x, t = (side.clone().requires_grad_() for side in (image, text))
            a = torch.tensor(log_scale, requires_grad=True)
            b = torch.tensor(0.0 if bias is None else bias, requires_grad=True)
            value = loss(x, t, a.exp(), b) if bias is not None else loss(x, t, a.exp())
            value.backward()
            key = f"{rows}x{width}/{name}"
            found = {"log_scale": a, "loss": value}
            found |= {"d_image": x.grad, "d_text": t.grad, "d_log_scale": a.grad}
            if bias is not None:
                found |= {"bias": b, "d_bias": b.grad}
            for part, tensor in found.items():
                assert tensor is not None
                arrays[f"{key}/{part}"] = tensor.detach().numpy()
    versions = [f"{p} {importlib.metadata.version(p)}" for p in ("open_clip_torch", "torch")]
    arrays["versions"] = np.array(versions)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, allow_pickle=False, **arrays)
    print(f"{OUT}: {len(cases) * len(SIZES)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
