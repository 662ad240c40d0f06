"""Single flipped bits in checkpoint files: is any state restored that is not what was saved?

    python -m bench.bitflips [--flips=200] [--seed=0]

Two states are saved. Each flip changes one random bit of one random file of the newer one (files
chosen evenly, so that small ones with descriptions are hit as often as those with data), restores,
and mends the bit. Written: for each file how many flips were harmless (the same state came back),
noticed (set aside, and the older state used) and silent (another state came back: must be 0), and
how many Orbax alone, without our checksums, would have restored as another state.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bench.common import record
from vision.checkpoint.reading import flatten, read
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.train.state import digest


def make_state(seed: int) -> dict[str, object]:
    """A small state of all kinds of arrays; random, hence not compressible, apart from zeros."""
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "step": jnp.asarray(seed, jnp.int32),
        "params": {
            "kernel": jax.random.normal(keys[0], (64, 96)),
            "bias": jnp.zeros(96),
            "half": jax.random.normal(keys[1], (33, 5), jnp.bfloat16),
        },
        "opt_state": (jax.random.normal(keys[2], (64, 96)), {"count": jnp.asarray(seed)}),
        "key": jax.random.key_data(jax.random.key(seed)),
    }


@dataclasses.dataclass(frozen=True)
class Flip:
    """One changed bit and what came of it.

    Attributes:
      outcome: ``harmless``, ``noticed`` or ``silent``.
      orbax_silent: whether Orbax alone, without checksums, returns another state.
    """

    file: str
    byte: int
    bit: int
    outcome: str
    orbax_silent: bool


def flips(workdir: Path, count: int, seed: int) -> list[Flip]:
    """Saves two states in ``workdir`` and restores under ``count`` flips of one bit each."""
    states = {step: make_state(step) for step in (1, 2)}
    store = CheckpointStore(workdir, Checkpoints(keep=2))
    for step, state in states.items():
        assert store.save(step, state, {"step": step, "note": "kept"}, wait=True)
    store.close()
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), states[2]
    )
    expected = {
        step: (digest(state), {"step": step, "note": "kept"}) for step, state in states.items()
    }
    pristine = workdir / "pristine"
    shutil.copytree(workdir / "checkpoints", pristine)
    files = sorted(
        path.relative_to(pristine)
        for path in (pristine / "2").rglob("*")
        if path.is_file() and path.stat().st_size
    )
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        file = files[generator.integers(len(files))]
        content = bytearray((pristine / file).read_bytes())
        byte, bit = int(generator.integers(len(content))), int(generator.integers(8))
        content[byte] ^= 1 << bit
        (workdir / "checkpoints" / file).write_bytes(content)
        try:
            alone = read(workdir / "checkpoints" / "2", flatten(abstract))
            orbax_silent = digest(alone) != digest(flatten(states[2]))
        except Exception:
            orbax_silent = False
        store = CheckpointStore(workdir, Checkpoints(keep=2))
        restored = store.restore(abstract)
        store.close()
        came = restored and (digest(restored[0]), restored[1])
        outcome = {0: "silent", 1: "noticed", 2: "harmless"}[
            next((step for step in expected if came == expected[step]), 0)
        ]
        found.append(Flip("/".join(file.parts[1:]), byte, bit, outcome, orbax_silent))
        shutil.rmtree(workdir / "checkpoints")
        shutil.rmtree(workdir / "quarantine", ignore_errors=True)
        shutil.copytree(pristine, workdir / "checkpoints")
    return found


def kind(file: str) -> str:
    """The file without names that differ from run to run."""
    parts = file.split("/")
    return "/".join([*parts[:-1], "*"]) if "d" in parts[:-1] else file


def main(count: int = 200, seed: int = 0) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("vision").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        found = flips(Path(folder).resolve(), count, seed)
    outcomes = ("harmless", "noticed", "silent")
    rows = []
    for name in [*sorted({kind(flip.file) for flip in found}), "all files"]:
        mine = [flip for flip in found if name in ("all files", kind(flip.file))]
        tally = collections.Counter(flip.outcome for flip in mine)
        row = {"file": name, "flips": len(mine), **{key: tally[key] for key in outcomes}}
        rows.append({**row, "silent by orbax alone": sum(flip.orbax_silent for flip in mine)})
    record("bitflips", rows)
    if rows[-1]["silent"]:
        sys.exit("a state was restored that is not what was saved")


if __name__ == "__main__":
    flags = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    main(int(flags.get("flips", 200)), int(flags.get("seed", 0)))
