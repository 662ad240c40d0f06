"""timm's inference loop over a folder, driven line by line from bench/predict.py.

    python bench/peers/timm_predict.py MODEL WEIGHTS FOLDER BATCH WORKERS THREADS CLOCK

The loop is that of timm's own ``inference.py``: its data set, its loader with WORKERS processes,
the model in inference mode, softmax and the five likeliest classes; then a CSV. The first line it
prints is a JSON object with what it says of the first images; then each line on standard input is a
pass, and it answers with the seconds.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm_step import timm_without_operators  # beside this file


def main() -> None:
    name, weights, folder, batch, workers, threads, clock_name = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    torch.set_num_threads(int(threads))
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    timm = timm_without_operators()
    from timm.data import create_dataset, create_loader

    model = timm.create_model(name, pretrained=False, num_classes=1000).eval()
    model.load_state_dict(load_file(weights))

    def once() -> list[list[list[float]]]:
        data = create_dataset(root=folder, name="", class_map="")
        loader = create_loader(
            data,
            batch_size=int(batch),
            use_prefetcher=False,
            num_workers=int(workers),
            input_size=(3, 224, 224),
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            crop_pct=0.875,
            crop_mode="center",
        )
        rows = []
        with torch.inference_mode():
            for images, _ in loader:
                values, indices = model(images).softmax(-1).topk(5)
                rows += torch.stack([indices.float(), values], -1).tolist()
        files = data.filenames(basename=True)
        with Path(folder).with_suffix(".theirs.csv").open("w", newline="") as file:
            table = csv.writer(file)
            for path, row in zip(files, rows, strict=True):
                table.writerow([path, *(value for pair in row for value in pair)])
        return rows

    begin = time.perf_counter()
    first = once()[:4]
    fact = {
        "first": first,
        "first_pass_s": round(time.perf_counter() - begin, 1),
        "versions": f"timm {timm.__version__}, torch {torch.__version__}",
    }
    print(json.dumps(fact), file=answers, flush=True)
    for _ in sys.stdin:
        begin = clock()
        once()
        print(clock() - begin, file=answers, flush=True)


if __name__ == "__main__":
    main()
