"""Speed of the input pipeline, beside the bare decoder, Pillow and torch's DataLoader.

    python -m bench.input [--peers .venv-peers/bin/python]

64 different 500x375 JPEGs, quality 90, cut at run time from scikit-learn's two photographs, held in
memory, each 64 times in the source: decode, RandomResizedCrop(224), flip, batches of 32 uint8
images. Every pair of variants runs in turn (A B B A ...); the figure is the median of the ratios
pair by pair.

    one core   process CPU time of the pipeline (threads=0) against simplejpeg's strict decoder
               alone (no crop, no resize, no batch) and against the same steps in Pillow. The
               decoder runs twice: in a process of its own, as its documentation calls it, and
               here, into one buffer, where it gains from the pipeline's allocator setting.
               Pictures of 1280x854 show what decoding at half the size gains, which
               ``DecodeCrop`` does where the crop is at least twice as large as the result
    loaders    wall time against torch's DataLoader with Pillow transforms at 1 and 2 worker
               processes; ours once with that many threads and once with that many worker
               processes. All loaders live on between their turns, so that no start is in the
               time. A turn first takes what was made ahead, uncounted, then counts batches, then
               waits until the next ones are made ahead, so that the other's turn is undisturbed
    digits     8x8 images in memory, gathered by batch or one by one

Written to bench/results/input.csv.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from bench.common import Peer, ratio, record
from vision.data import ops
from vision.data.batches import ExampleRng
from vision.data.pipeline import Loader, TrainData
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits

BATCH = 32
DRAIN = 12  # batches: more than any loader here makes ahead
REST_S = 1.0
Run = Callable[[], float]


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


def large_photographs(count: int) -> list[bytes]:
    """1280x854: each sample photograph four times, mirrored at its edges and shifted."""
    rng = np.random.default_rng(0)
    encoded = []
    for i in range(count):
        image = load_sample_images().images[i % 2]
        image = np.concatenate([image, image[::-1]], axis=0)
        image = np.concatenate([image, image[:, ::-1]], axis=1)
        image = np.roll(image, (int(rng.integers(854)), int(rng.integers(1280))), axis=(0, 1))
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=90)
        encoded.append(out.getvalue())
    return encoded


def timed(clock: Callable[[], float], work: Callable[[], None]) -> Run:
    def run() -> float:
        start = clock()
        work()
        return clock() - start

    return run


def batches(data: TrainData, count: int) -> Callable[[], None]:
    def run() -> None:
        with data.loader(seed=0) as loader:
            for _ in range(count):
                next(loader)

    return run


def steady(loader: Loader, count: int) -> Run:
    """Wall seconds of ``count`` batches of a loader that is already running."""

    def run() -> float:
        for _ in range(DRAIN):
            next(loader)
        start = time.perf_counter()
        for _ in range(count):
            next(loader)
        seconds = time.perf_counter() - start
        time.sleep(REST_S)
        return seconds

    return run


def pipeline(
    files: list[bytes], first: tuple[Any, ...], threads: int = 0, workers: int = 0
) -> TrainData:
    image = np.array(files * 64, dtype=object)
    source = Arrays({"image": image, "label": np.arange(len(image))}, "photographs")
    chain = (*first, ops.RandomFlip(), ops.Keep(("image", "label")))
    return TrainData(source, BATCH, chain, threads=threads, workers=workers)


def pillow(files: list[bytes], count: int) -> Callable[[], None]:
    """What a plain Pillow loop does, with the same crops."""
    op = ops.RandomResizedCrop(224)

    def run() -> None:
        for i in range(count):
            rows = []
            for j in range(i * BATCH, (i + 1) * BATCH):
                rng = ExampleRng(0).at(j)
                image = Image.open(io.BytesIO(files[j % len(files)])).convert("RGB")
                top, left, height, width = op.draw(image.height, image.width, rng)
                image = image.crop((left, top, left + width, top + height))
                image = image.resize((224, 224), Image.Resampling.BILINEAR)
                if rng.random() < 0.5:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                rows.append(np.asarray(image))
            np.stack(rows)

    return run


def bare(files: list[bytes], count: int) -> Callable[[], None]:
    """simplejpeg alone, strict, into one buffer that is used again: the fastest it gets."""
    height, width, *_ = simplejpeg.decode_jpeg_header(files[0])
    buffer = np.empty(int(height) * int(width) * 3, np.uint8)

    def run() -> None:
        for i in range(count * BATCH):
            simplejpeg.decode_jpeg(files[i % len(files)], "RGB", buffer=buffer)

    return run


def compare(
    name: str, ours: Run, theirs: Run, other: str, images: int, pairs: int
) -> dict[str, Any]:
    """Both in turn, once before uncounted; ``speed`` is theirs over ours, more is better."""
    for run in (ours, theirs):
        run()
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append((ours, theirs)[which]())
    middle, low, high = ratio(times[1], times[0])
    return {
        "case": name,
        "ours_images_per_s": round(images / statistics.median(times[0])),
        "against": other,
        "their_images_per_s": round(images / statistics.median(times[1])),
        "speed_ratio": round(middle, 3),
        "ratio_min": round(low, 3),
        "ratio_max": round(high, 3),
        "pairs": pairs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batches", type=int, default=8, help="of 32 images, per turn")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with torch")
    arguments = parser.parse_args()
    count, pairs = arguments.batches, arguments.pairs
    files = photographs(64)
    cpu = time.process_time
    fast = (ops.DecodeCrop(ops.RandomResizedCrop(224, method="cv2_linear")),)
    what = "JPEG 500x375 to crop 224 and flip"
    parity = (ops.DecodeCrop(ops.RandomResizedCrop(224)),)

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(files):
            (Path(folder) / f"{i:03}.jpg").write_bytes(data)
        alone = Peer(sys.executable, "bare_decoder.py", count * BATCH, folder)
        for name, chain in (("cv2_linear", fast), ("Pillow's bilinear", parity)):
            ours = timed(cpu, batches(pipeline(files, chain), count))
            for other, theirs in (
                ("bare simplejpeg, own process", alone),
                ("bare simplejpeg, one buffer, same process", timed(cpu, bare(files, count))),
                ("the same in Pillow, by hand", timed(cpu, pillow(files, count))),
            ):
                case = f"{what}, {name}, one core, CPU time"
                rows.append(compare(case, ours, theirs, other, count * BATCH, pairs))
        alone.close()
        for workers in (1, 2) if Path(arguments.peers).exists() else ():
            rest = (str(BATCH), str(workers), str(DRAIN), str(REST_S))
            torch = Peer(arguments.peers, "torch_loader.py", 2 * count, folder, *rest)
            for kind in ("threads", "workers"):
                for name, chain in (("cv2_linear", fast), ("Pillow's bilinear", parity)):
                    with pipeline(files, chain, **{kind: workers}).loader(seed=0) as loader:
                        case = f"{what}, {name}, {workers} {kind}, wall time"
                        other = f"torch DataLoader, Pillow, {workers} workers"
                        ours = steady(loader, 2 * count)
                        images = 2 * count * BATCH
                        rows.append(compare(case, ours, torch, other, images, (pairs + 1) // 2))
            torch.close()
    large = large_photographs(8)
    ours = timed(cpu, batches(pipeline(large, fast), count))
    case = "JPEG 1280x854 to crop 224 and flip, cv2_linear, one core, CPU time"
    other = "bare simplejpeg, one buffer, same process"
    rows.append(compare(case, ours, timed(cpu, bare(large, count)), other, count * BATCH, pairs))
    if not Path(arguments.peers).exists():
        print(f"no {arguments.peers}: torch is left out; see bench/requirements-peers.txt")

    digits, many = Digits("all"), 25 * count
    gathered = timed(cpu, batches(TrainData(digits, 128, threads=0), many))
    keep = (ops.Keep(("image", "label")),)
    single = timed(cpu, batches(TrainData(digits, 128, keep, threads=0), many))
    rows.append(compare("digits 8x8, by batch", gathered, single, "one by one", many * 128, pairs))
    record("input", rows)


if __name__ == "__main__":
    main()
