"""Our predictions of a folder in a process of its own, driven line by line from bench/predict.py.

    python bench/peers/our_predict.py MODEL WEIGHTS FOLDER BATCH THREADS CLOCK

WEIGHTS is a safetensors file with timm's names, FOLDER holds images. CLOCK is ``wall`` or ``cpu``.
The first line it prints is a JSON object with the five likeliest classes and their probabilities of
the first images; then each line on standard input is a pass: files are listed, read, decoded,
classified and written to a CSV, and it answers with the seconds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from vision.models.mobilenet import MobileNetV3
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.predict.preprocessing import of_preprocessing
from vision.predict.pretrained import of_tower
from vision.predict.write import writer
from vision.weights.preprocessing import Preprocessing

TOWERS = {
    "resnet50": ResNet(depth=50, num_classes=1000),
    "vit_small_patch16_224": ViT("S/16", class_position=True, scan=False, num_classes=1000),
    "mobilenetv3_large_100": MobileNetV3(num_classes=1000),
}


def main() -> None:
    name, weights, folder, batch, threads, clock_name = sys.argv[1:]
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    prepared = of_preprocessing(Preprocessing((224, 224), (256, 256)), "bench")
    names = tuple(map(str, range(1000)))
    run = of_tower(TOWERS[name], f"timm:{weights}", prepared, names)
    run = dataclasses.replace(run, batch_size=int(batch), threads=int(threads))

    def once() -> list[dict[str, float]]:
        told = []
        images, _ = run.gather(folder)
        with writer(Path(folder).with_suffix(".ours.csv"), run.classes, 5) as put:
            for part in run.stream(images):
                put(part)
                told += [row.top(5) for row in part] if len(told) < 4 else []
        return told

    begin = time.perf_counter()
    first = [list(map(list, each.items())) for each in once()[:4]]
    seconds = round(time.perf_counter() - begin, 1)
    fact = {"first": first, "first_pass_s": seconds, "versions": f"jax {jax.__version__}"}
    print(json.dumps(fact), flush=True)
    for _ in sys.stdin:
        begin = clock()
        once()
        print(clock() - begin, flush=True)


if __name__ == "__main__":
    main()
