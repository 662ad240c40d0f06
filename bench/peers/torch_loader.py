"""A torch ``DataLoader`` with Pillow transforms, driven line by line from ``bench/input.py``.

    python bench/peers/torch_loader.py FOLDER_OF_JPEGS BATCH WORKERS DRAIN REST_S

One iterator without end. Each line ``N`` on standard input takes DRAIN batches, uncounted, which
are those made ahead, then N batches, rests, and answers with the wall seconds of the N. The
transform is torchvision's RandomResizedCrop(224) and RandomHorizontalFlip on PIL images, written
out, without the conversion to floats.
"""

from __future__ import annotations

import io
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler


def random_resized_crop(image: Image.Image, size: int = 224) -> Image.Image:
    """As torchvision's RandomResizedCrop with its defaults and bilinear interpolation."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            break
    else:
        w, h = min(width, round(height * 4 / 3)), height
        top, left = 0, (width - w) // 2
    box = (left, top, left + w, top + h)
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


class Photographs(Dataset):
    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        image = random_resized_crop(image)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)), index


def main() -> None:
    folder, batch, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    drain, rest_s = int(sys.argv[4]), float(sys.argv[5])
    torch.set_num_threads(1)
    data = Photographs([path.read_bytes() for path in sorted(folder.glob("*.jpg"))])
    sampler = RandomSampler(data, replacement=True, num_samples=2**40)
    loader = iter(DataLoader(data, batch_size=batch, sampler=sampler, num_workers=workers))
    for line in sys.stdin:
        for _ in range(drain):
            next(loader)
        start = time.perf_counter()
        for _ in range(int(line)):
            image, _ = next(loader)
            assert image.shape == (batch, 224, 224, 3)
        seconds = time.perf_counter() - start
        time.sleep(rest_s)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
