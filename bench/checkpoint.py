"""How long a save holds up the training loop, and what verification adds to a restore.

    python -m bench.checkpoint [--millions=25,50,100] [--saves=5]

For float32 states of so many million elements in 16 arrays:

- a save in a loop of steps that overwrite the state. The call blocks the loop (``blocked %``), and
  the next step may take longer than later ones while the checkpoint is being written (with that,
  ``held up %``); both divided by the time until the checkpoint is on disk, medians over the saves.
  ``steps while saving``: their time as a multiple of a step's when nothing is saved; on a CPU,
  compression takes part of the cores that train;
- a restore with verification, in turn with the same restore without it, and with ``np.load`` of
  an uncompressed file; GB/s of the state's bytes tell whether time is proportional to bytes.
"""

from __future__ import annotations

import functools
import logging
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.common import alternate, ratio, record
from vision.checkpoint.reading import read
from vision.checkpoint.store import Checkpoints, CheckpointStore

_ARRAYS = 16


@functools.partial(jax.jit, donate_argnums=0)
def update(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda x: x * 0.999 + 0.001, state)


def clocked(state: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], float]:
    """The state after a step that has ended, and its seconds."""
    began = time.perf_counter()
    state = jax.block_until_ready(update(state))
    return state, time.perf_counter() - began


def measure(millions: int, saves: int, folder: Path) -> dict[str, Any]:
    width = millions * 1_000_000 // _ARRAYS // 1000
    keys = jax.random.split(jax.random.key(0), _ARRAYS)
    state = {f"w{i}": jax.random.normal(key, (1000, width)) for i, key in enumerate(keys)}
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    store = CheckpointStore(folder, Checkpoints(keep=1))
    assert store.restore(abstract) is None
    state, _ = clocked(state)
    blocked, held, shares, durations, slower = [], [], [], [], []
    for step in range(saves):
        state, plain_s = clocked(state)
        began = time.perf_counter()
        assert store.save(step, state, {"step": step})
        called_s = time.perf_counter() - began
        saved = threading.Thread(target=store.finish_save)
        saved.start()
        during = []
        while saved.is_alive() or len(during) < 2:
            state, seconds = clocked(state)
            during.append(seconds)
            duration_s = time.perf_counter() - began
        saved.join()
        durations.append(duration_s)
        blocked.append(called_s / duration_s)
        held.append(called_s + max(0.0, during[0] - statistics.median(during[1:])))
        shares.append(held[-1] / durations[-1])
        slower.append(statistics.median(during) / plain_s)
    path = folder / "checkpoints" / str(saves - 1)
    np.savez(folder / "plain.npz", allow_pickle=False, **jax.device_get(state))

    def verified() -> None:
        assert jax.block_until_ready(store.restore(abstract)) is not None

    def unverified() -> None:
        jax.block_until_ready(read(path, abstract))

    def plain_file() -> None:
        with np.load(folder / "plain.npz") as arrays:
            jax.block_until_ready({name: jnp.asarray(arrays[name]) for name in arrays.files})

    ours, orbax = alternate(verified, unverified, 3)
    began = time.perf_counter()
    plain_file()
    numpy_s = time.perf_counter() - began
    store.close()
    size = sum(x.nbytes for x in state.values())
    middle, low, high = ratio(ours, orbax)
    return {
        "million elements": millions,
        "MB": round(size / 1e6),
        "save s": round(statistics.median(durations), 2),
        "blocked %": round(100 * statistics.median(blocked), 1),
        "held up s": round(statistics.median(held), 3),
        "held up %": round(100 * statistics.median(shares), 1),
        "worst %": round(100 * max(shares), 1),
        "steps while saving": f"{statistics.median(slower):.2f}",
        "restore and verify s": round(statistics.median(ours), 2),
        "GB/s": round(size / 1e9 / statistics.median(ours), 3),
        "against orbax unverified": f"{middle:.2f} ({low:.2f} to {high:.2f})",
        "numpy load s": round(numpy_s, 2),
    }


def main(millions: tuple[int, ...] = (25, 50, 100), saves: int = 5) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    rows = []
    for size in millions:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, saves, Path(folder).resolve()))
            print(rows[-1], flush=True)
    record("checkpoint", rows)


if __name__ == "__main__":
    flags = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    main(
        tuple(int(size) for size in flags.get("millions", "25,50,100").split(",")),
        int(flags.get("saves", 5)),
    )
