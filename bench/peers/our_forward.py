"""Our forward pass in a process of its own, driven line by line from ``bench/inference.py``.

    python bench/peers/our_forward.py MODEL SIZE FORM CLOCK WEIGHTS BATCH...

WEIGHTS is a safetensors file with timm's names, read as ``init_from`` reads it. FORM is ``ours``,
or ``lax`` for convolutions and pooling as ``jax.lax`` has them; CLOCK ``wall`` or ``cpu``. For each
BATCH the pass is compiled ahead of time. The first line it prints is a JSON object; then each line
``BATCH N`` on standard input runs N passes over that many images and answers with the seconds.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
from our_step import tower  # beside this file

from vision.models import convolution
from vision.models.vit import ViT
from vision.train.tower import count_params, forward, initialise
from vision.weights.init_from import InitFrom


def main() -> None:
    name, size, form, clock_name, weights = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
    batches = [int(text) for text in sys.argv[6:]]
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    if form == "lax":
        convolution._alone_on_cpu = lambda: False
    model = tower(name)
    if isinstance(model, ViT):
        model = model.clone(class_position=True)
    images = {}
    for count in batches:
        drawn = np.random.default_rng(0).standard_normal((count, size, size, 3), np.float32)
        images[count] = jax.device_put(drawn)
    shapes = jax.eval_shape(
        functools.partial(initialise, model), jax.random.key(0), images[batches[0]][:1]
    )
    target = {"params": shapes[0], "model_state": dict(shapes[1])}
    loaded = jax.device_put(InitFrom(f"timm:{weights}", head="read").load(model, target))

    def logits(variables, x):
        return forward(model, variables["params"], variables["model_state"], x, train=False)[1][
            "logits"
        ]

    start = time.perf_counter()
    compiled = {count: jax.jit(logits).lower(loaded, x).compile() for count, x in images.items()}
    seconds = time.perf_counter() - start
    first = {
        "params": count_params(loaded["params"]),
        "first_step_s": round(seconds, 1),
        "logits": np.asarray(compiled[batches[0]](loaded, images[batches[0]]))[0].tolist(),
        "versions": f"jax {jax.__version__}",
    }
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        count, passes = map(int, line.split())
        begin = clock()
        for _ in range(passes):
            jax.block_until_ready(compiled[count](loaded, images[count]))
        print(clock() - begin, flush=True)


if __name__ == "__main__":
    main()
