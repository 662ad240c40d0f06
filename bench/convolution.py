"""Convolutions of ResNet-50 and ConvNeXt-T: ours beside ``jax.lax``, shape by shape.

    python -m bench.convolution [--rounds 5]

Batch of 8 at 224 px, float32, one core, CPU seconds; value, gradient of the image and gradient of
the kernel, each compiled alone. Both run in turn, and the ratio is ``lax`` over ours in the same
round. The last rows are max pooling with its gradient. Written to bench/results/convolution.csv.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.common import ratio, record
from vision.models.convolution import convolve, max_pool

BATCH = 8
# size, channels, features, kernel, stride, groups, times in the network
RESNET_50 = (
    (224, 3, 64, 7, 2, 1, 1),
    (56, 64, 64, 1, 1, 1, 1),
    (56, 64, 64, 3, 1, 1, 3),
    (56, 64, 256, 1, 1, 1, 4),
    (56, 256, 64, 1, 1, 1, 2),
    (56, 256, 128, 1, 1, 1, 1),
    (56, 128, 128, 3, 2, 1, 1),
    (28, 128, 512, 1, 1, 1, 4),
    (56, 256, 512, 1, 2, 1, 1),
    (28, 512, 128, 1, 1, 1, 3),
    (28, 128, 128, 3, 1, 1, 3),
    (28, 512, 256, 1, 1, 1, 1),
    (28, 256, 256, 3, 2, 1, 1),
    (14, 256, 1024, 1, 1, 1, 6),
    (28, 512, 1024, 1, 2, 1, 1),
    (14, 1024, 256, 1, 1, 1, 5),
    (14, 256, 256, 3, 1, 1, 5),
    (14, 1024, 512, 1, 1, 1, 1),
    (14, 512, 512, 3, 2, 1, 1),
    (7, 512, 2048, 1, 1, 1, 3),
    (14, 1024, 2048, 1, 2, 1, 1),
    (7, 2048, 512, 1, 1, 1, 2),
    (7, 512, 512, 3, 1, 1, 2),
)
CONVNEXT_T = (
    (224, 3, 96, 4, 4, 1, 1),
    (56, 96, 96, 7, 1, 96, 3),
    (56, 96, 192, 2, 2, 1, 1),
    (28, 192, 192, 7, 1, 192, 3),
    (28, 192, 384, 2, 2, 1, 1),
    (14, 384, 384, 7, 1, 384, 9),
    (14, 384, 768, 2, 2, 1, 1),
    (7, 768, 768, 7, 1, 768, 3),
)


def cpu_seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def measure(
    ours: Callable[..., Any], theirs: Callable[..., Any], arguments: tuple[Any, ...], rounds: int
) -> dict[str, Any]:
    """Both in turn; their results are compared first."""
    runs = [functools.partial(jax.jit(f), *arguments) for f in (ours, theirs)]
    a, b = (np.asarray(run()) for run in runs)
    error = float(np.abs(a - b).max() / np.abs(b).max())
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            times[which].append(cpu_seconds(runs[which]))
    middle, low, high = ratio(times[1], times[0])
    return {
        "ours_ms": round(1e3 * statistics.median(times[0]), 1),
        "lax_ms": round(1e3 * statistics.median(times[1]), 1),
        "speed_ratio": round(middle, 2),
        "ratio_min": round(low, 2),
        "ratio_max": round(high, 2),
        "relative_error": f"{error:.1e}",
        "rounds": rounds,
    }


def parts(f: Callable[..., jax.Array]) -> dict[str, Callable[..., Any]]:
    return {
        "value": lambda x, w, g: f(x, w),
        "image gradient": lambda x, w, g: jax.vjp(lambda x: f(x, w), x)[1](g)[0],
        "kernel gradient": lambda x, w, g: jax.vjp(lambda w: f(x, w), w)[1](g)[0],
    }


def convolutions(network: str, shapes: Any, rounds: int) -> list[dict[str, Any]]:
    rows = []
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    for size, channels, features, kernel, stride, groups, times in shapes:
        pad = kernel // 2 if kernel % 2 else 0
        settings = {
            "window_strides": (stride, stride),
            "padding": ((pad, pad), (pad, pad)),
            "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
            "feature_group_count": groups,
        }
        ours = parts(functools.partial(convolve, **settings))
        theirs = parts(functools.partial(lax.conv_general_dilated, **settings))
        out = (size + 2 * pad - kernel) // stride + 1
        arguments = (
            normal(BATCH, size, size, channels),
            normal(kernel, kernel, channels // groups, features),
            normal(BATCH, out, out, features),
        )
        name = f"{kernel}x{kernel}/{stride} {channels}->{features} @{size}"
        for part in ours:
            row = measure(ours[part], theirs[part], arguments, rounds)
            kind = {"network": network, "shape": name, "times": times, "part": part}
            rows.append({**kind, **row})
            print(rows[-1], flush=True)
    return rows


def pooling(rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, 112, 112, 64)), jnp.float32)
    g = jnp.asarray(rng.normal(size=(BATCH, 56, 56, 64)), jnp.float32)
    pads = ((1, 1), (1, 1))

    def ours(x: jax.Array) -> jax.Array:
        return max_pool(x, (3, 3), (2, 2), pads)

    def theirs(x: jax.Array) -> jax.Array:
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), *pads, (0, 0))
        )

    def gradient(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, g: jax.vjp(f, x)[1](g)[0]

    kind = {"network": "ResNet-50", "shape": "max pool 3x3/2 64 @112", "times": 1}
    return [
        {**kind, "part": "value", **measure(ours, theirs, (x,), rounds)},
        {
            **kind,
            "part": "image gradient",
            **measure(gradient(ours), gradient(theirs), (x, g), rounds),
        },
    ]


def total(rows: list[dict[str, Any]], network: str) -> dict[str, Any]:
    """All of a network's, as often as they occur. The first layer's image gradient is not asked."""
    own = [row for row in rows if row["network"] == network]
    first = own[0]["shape"]
    ours, theirs = (
        sum(
            row["times"] * row[key]
            for row in own
            if (row["shape"], row["part"]) != (first, "image gradient")
        )
        for key in ("ours_ms", "lax_ms")
    )
    return {
        "network": network,
        "shape": "all of a step",
        "times": 1,
        "part": "all",
        "ours_ms": round(ours, 1),
        "lax_ms": round(theirs, 1),
        "speed_ratio": round(theirs / ours, 2),
        "ratio_min": "",
        "ratio_max": "",
        "relative_error": "",
        "rounds": own[0]["rounds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # before JAX counts the cores
    rows = convolutions("ResNet-50", RESNET_50, rounds) + pooling(rounds)
    rows += convolutions("ConvNeXt-T", CONVNEXT_T, rounds)
    totals = [total(rows, network) for network in ("ResNet-50", "ConvNeXt-T")]
    record("convolution", totals + rows)


if __name__ == "__main__":
    main()
