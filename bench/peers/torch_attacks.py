"""Attacks of torchattacks on an exported model, asked by ``bench/attacks.py``.

    python bench/peers/torch_attacks.py FOLDER IMAGES THREADS

FOLDER is what ``vision.weights.export`` writes for timm; its normalisation is part of the attacked
model. IMAGES is an .npz of ``image`` (N, H, W, C) float32 in 0..1 and ``label`` (N,). The first
line it prints is a JSON object with the logits of the first images; then each line on standard
input, a JSON object of ``attack``, a class of torchattacks, ``arguments`` and ``output``, runs it,
writes the images to that .npy file and answers with the CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from build_exported import build  # beside this file


def main() -> None:
    folder, images, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    torch.set_num_threads(int(threads))
    model, _ = build("timm", folder)
    import torchattacks

    card = model.pretrained_cfg
    mean, std = (torch.tensor(card[name]).view(1, -1, 1, 1) for name in ("mean", "std"))

    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner((x - mean) / std)

    attacked = Normalised().eval()
    with np.load(images, allow_pickle=False) as kept:
        x = torch.from_numpy(kept["image"]).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(kept["label"]).long()
    with torch.inference_mode():
        logits = attacked(x[:8]).tolist()
    version = f"torchattacks {torchattacks.__version__}, torch {torch.__version__}"
    print(json.dumps({"logits": logits, "versions": version}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        torch.manual_seed(0)
        attack = getattr(torchattacks, asked["attack"])(attacked, **asked["arguments"])
        start = time.process_time()
        found = attack(x, y)
        seconds = time.process_time() - start
        np.save(asked["output"], found.detach().permute(0, 2, 3, 1).numpy(), allow_pickle=False)
        print(seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
