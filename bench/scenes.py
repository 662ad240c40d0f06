"""How many scenes one core draws in a second, by process CPU time.

    python bench/scenes.py [--examples 3000] [--size 64] [--repeats 3]

Each line is the best of the repeats; examples differ between repeats. Process CPU time leaves
out waiting, but another program on the same physical core still slows it.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

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
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name, features in READERS.items():
        total = arguments.examples * (arguments.repeats + 1)
        source = Scenes(num_examples=total, image_size=arguments.size, features=features)
        for index in range(200):
            source[index]
        best = 0.0
        for repeat in range(arguments.repeats):
            first = (repeat + 1) * arguments.examples
            start = time.process_time()
            for index in range(first, first + arguments.examples):
                source[index]
            best = max(best, arguments.examples / (time.process_time() - start))
        print(f"{name:32s} {best:8.0f} examples/s per core at {arguments.size}x{arguments.size}")


if __name__ == "__main__":
    main()
