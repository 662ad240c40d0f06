"""A timm model's forward pass on torch, driven line by line from ``bench/inference.py``.

    python bench/peers/timm_forward.py MODEL SIZE MODE THREADS CLOCK WEIGHTS BATCH...

MODE is ``eager``, ``channels_last``, ``compile`` (``torch.compile``, defaults), or ``write``, which
makes WEIGHTS, a safetensors file of random weights, and ends. THREADS is how many torch uses; CLOCK
``wall`` or ``cpu``. The first line it prints is a JSON object, with the key ``failed`` where the
model does not run; then each line ``BATCH N`` on standard input runs N passes over that many images
and answers with the seconds.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from timm_step import timm_without_operators  # beside this file


def main() -> None:
    name, size, mode, threads, clock_name, weights = sys.argv[1:7]
    batches = [int(text) for text in sys.argv[7:]]
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    timm = timm_without_operators()
    model = timm.create_model(name, pretrained=False, num_classes=1000).eval()
    if mode == "write":
        save_file(model.state_dict(), weights)
        return
    model.load_state_dict(load_file(weights))
    images = {}
    for count in batches:
        shape = (count, int(size), int(size), 3)
        drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
        images[count] = torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        images = {n: x.to(memory_format=torch.channels_last) for n, x in images.items()}
    forward = torch.compile(model, dynamic=False) if mode == "compile" else model

    with torch.inference_mode():
        start = time.perf_counter()
        try:
            found = {count: forward(x) for count, x in images.items()}
        except Exception as error:
            print(json.dumps({"failed": str(error).splitlines()[0]}), file=answers, flush=True)
            return
        first = {
            "params": sum(p.numel() for p in model.parameters()),
            "first_step_s": round(time.perf_counter() - start, 1),
            "logits": found[batches[0]][0].tolist(),
            "versions": f"timm {timm.__version__}, torch {torch.__version__}",
        }
        print(json.dumps(first), file=answers, flush=True)
        for line in sys.stdin:
            count, passes = map(int, line.split())
            start = clock()
            for _ in range(passes):
                forward(images[count])
            print(clock() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
