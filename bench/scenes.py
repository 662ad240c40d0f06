"""How many scenes one core draws in a second, by process CPU time.

    python -m bench.scenes [--examples 3000] [--size 64] [--repeats 7]

Median and best of the repeats; examples differ between repeats. Process CPU time leaves out
waiting, but another program on the same physical core still slows it. Written to
bench/results/scenes.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.common import record
from vision.data.sources.scenes import Scenes

READERS = {
    "image, label": ("image", "label"),
    "image, masks, boxes, caption": ("image", "label", "masks", "boxes", "caption"),
    "long caption only": ("caption_long",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Scenes drawn in a second of CPU time.")
    parser.add_argument("--examples", type=int, default=3000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    rows = []
    for name, features in READERS.items():
        total = arguments.examples * (arguments.repeats + 1)
        source = Scenes(num_examples=total, image_size=arguments.size, features=features)
        for index in range(200):
            source[index]
        rates = []
        for repeat in range(arguments.repeats):
            first = (repeat + 1) * arguments.examples
            start = time.process_time()
            for index in range(first, first + arguments.examples):
                source[index]
            rates.append(arguments.examples / (time.process_time() - start))
        rows.append(
            {
                "reader": name,
                "size_px": arguments.size,
                "examples_per_cpu_s": round(statistics.median(rates)),
                "best": round(max(rates)),
                "repeats": arguments.repeats,
            }
        )
    record("scenes", rows)


if __name__ == "__main__":
    main()
