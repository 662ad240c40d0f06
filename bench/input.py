"""Speed of the input pipeline on one core: ``python -m bench.input``.

Prints images per second of CPU time (robust on a busy machine), median over repetitions that
alternate between the variants:

    jpeg     500x375 JPEGs, quality 90, cut at run time from scikit-learn's two photographs:
             decode, RandomResizedCrop(224), flip; ours as the pipeline runs it, the bare decoder,
             and the same steps written directly in Pillow
    digits   8x8 images in memory: gathered a batch at a time, one by one, and one by one with
             pad-and-crop, flip and value range
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vision.data import decode as decode_module
from vision.data.decode import decode
from vision.data.ops.geometry import RandomCrop, RandomFlip, RandomResizedCrop
from vision.data.ops.values import Decode, Keep, ValueRange
from vision.data.pipeline import TrainData
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits

BATCH = 32


def photographs(count: int) -> list[bytes]:
    """``count`` different 500x375 crops of the two sample photographs as JPEGs."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(image) for image in load_sample_images().images]
    encoded = []
    for i in range(count):
        left, top = (int(rng.integers(0, side + 1)) for side in (640 - 500, 427 - 375))
        out = io.BytesIO()
        images[i % 2].crop((left, top, left + 500, top + 375)).save(out, "JPEG", quality=90)
        encoded.append(out.getvalue())
    return encoded


def batches(data: TrainData, count: int) -> Callable[[], int]:
    def run() -> int:
        with data.loader(seed=0) as loader:
            return sum(len(next(loader)["label"]) for _ in range(count))

    return run


def pillow(files: list[bytes], count: int) -> Callable[[], int]:
    """What a plain Pillow loader does, with the same distribution of crops."""
    op = RandomResizedCrop(224)

    def run() -> int:
        rng = np.random.default_rng(0)
        for i in range(count):
            rows = []
            for j in range(BATCH):
                image = Image.open(io.BytesIO(files[(i * BATCH + j) % len(files)])).convert("RGB")
                top, left, height, width = op.draw(image.height, image.width, rng)
                image = image.crop((left, top, left + width, top + height))
                image = image.resize((224, 224), Image.Resampling.BILINEAR)
                if rng.random() < 0.5:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                rows.append(np.asarray(image))
            np.stack(rows)
        return count * BATCH

    return run


def bare(files: list[bytes], count: int) -> Callable[[], int]:
    def run() -> int:
        for i in range(count * BATCH):
            decode(files[i % len(files)])
        return count * BATCH

    return run


def measure(variants: dict[str, Callable[[], int]], repetitions: int) -> dict[str, float]:
    """Median images per CPU second; the variants take turns."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(repetitions):
        for name, run in variants.items():
            start = time.process_time()
            images = run()
            rates[name].append(images / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def show(title: str, rates: dict[str, float], reference: str) -> None:
    print(f"\n{title}")
    for name, rate in rates.items():
        print(f"  {name:<40}{rate:>12,.0f} img/s/core{rate / rates[reference]:>9.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4, help="JPEG batches per repetition")
    arguments = parser.parse_args()

    files = photographs(64)
    source = Arrays(
        {"image": np.array(files, dtype=object), "label": np.arange(len(files))}, "photographs"
    )
    ops = (Decode(), RandomResizedCrop(224), RandomFlip(), Keep(("image", "label")))
    ours = TrainData(source, BATCH, ops, threads=0)
    which = "Pillow" if decode_module.simplejpeg is None else "simplejpeg"
    variants = {
        "Pillow, written directly": pillow(files, arguments.batches),
        "this pipeline": batches(ours, arguments.batches),
        f"bare decode ({which}, strict)": bare(files, arguments.batches),
    }
    size = np.mean([len(f) for f in files]) / 1024
    show(
        f"JPEG 500x375, {size:.0f} KiB -> crop 224, flip",
        measure(variants, arguments.repetitions),
        "Pillow, written directly",
    )

    digits = Digits("all")
    host = (RandomCrop(8, padding=1), RandomFlip(), ValueRange())
    variants = {
        "gathered by batch": batches(TrainData(digits, 128, threads=0), 200),
        "one by one": batches(TrainData(digits, 128, (Keep(("image", "label")),), threads=0), 20),
        "one by one, crop, flip, value range": batches(TrainData(digits, 128, host, threads=0), 20),
    }
    show("digits 8x8 in memory", measure(variants, arguments.repetitions), "one by one")


if __name__ == "__main__":
    main()
