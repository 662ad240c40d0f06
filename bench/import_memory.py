"""Host memory while the weights of a ViT-L/16 are read, beside the size of their file.

    python -m bench.import_memory [--peers .venv-peers/bin/python]

Random float32 weights under timm's names, 1.2 GB, are written to a temporary folder, as safetensors
and by torch as .pth, and read as ``init_from`` reads them: onto one device, and split over an fsdp
mesh of eight. Each reading is a process of its own. The peak is the kernel's high-water mark of
resident memory (VmHWM, set back before), less what is resident then: after imports, with the
devices there and the parameters' shapes known. What was read stays, so the ratio is at least 1.

The devices are CPU devices: what lies on them lies in the host's memory and is counted. On an
accelerator only what is on its way there would be.

Written to bench/results/import_memory.csv.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_MOST = 1.05
FILES = ("model.safetensors", "model.pth")
_AS_TORCH = (
    "import sys, torch, safetensors.torch as s; torch.save(s.load_file(sys.argv[1]), sys.argv[2])"
)


def tower():
    from vision.models.vit import ViT

    return ViT(variant="L/16", num_classes=1000, class_position=True)


def shapes():
    import functools

    import jax
    import numpy as np

    from vision.train.tower import initialise

    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    made = jax.eval_shape(functools.partial(initialise, tower()), jax.random.key(0), images)
    return {"params": made[0], "model_state": dict(made[1])}


def write(folder: Path) -> None:
    """The file, one tensor after another in the order of the map."""
    import jax
    import numpy as np

    from vision.weights.mapping import save
    from vision.weights.names import names_of
    from vision.weights.reader import write_safetensors

    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32) / 50, shapes())
    tensors = save(names_of("timm", tower(), {}), tree)
    write_safetensors(folder / "model.safetensors", tensors)


def read(file: Path, devices: int) -> None:
    """Reads the file onto a mesh and prints what that took."""
    import jax
    import numpy as np

    from vision.parallel.mesh import Mesh, ShardingRule, state_shardings
    from vision.weights.init_from import InitFrom

    mesh = Mesh(fsdp=devices).build()
    target = shapes()
    layouts = state_shardings(target, mesh, (ShardingRule(".*", "fsdp"),))
    target = jax.tree.map(
        lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), target, layouts
    )
    jax.block_until_ready(jax.device_put(np.zeros(8), mesh.devices.flat[0]))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before, start = memory("VmRSS"), time.perf_counter()
    weights = InitFrom(f"timm:{file}", head="read")
    loaded = jax.block_until_ready(weights.load(tower(), target))
    seconds = time.perf_counter() - start
    leaves = jax.tree.leaves(loaded)
    largest = max(
        sum(s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == device)
        for device in mesh.devices.flat
    )
    print(
        json.dumps(
            {
                "peak": memory("VmHWM") - before,
                "baseline": before,
                "seconds": seconds,
                "largest_device": largest,
                "total": sum(x.nbytes for x in leaves),
            }
        )
    )


def memory(field: str) -> int:
    """Bytes of ``VmRSS`` or ``VmHWM`` of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def ask(*arguments: str, devices: int = 1) -> str:
    """Runs this file in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "bench.import_memory", *arguments]
    done = subprocess.run(command, check=True, cwd=_ROOT, env=environment, stdout=subprocess.PIPE)
    return done.stdout.decode()


def main() -> None:
    from bench.common import record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with torch")
    peers = parser.parse_args().peers
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ask("write", folder)
        files = [Path(folder) / name for name in FILES]
        subprocess.run([peers, "-c", _AS_TORCH, *map(str, files)], check=True, cwd=_ROOT)
        for file, devices in ((file, devices) for file in files for devices in (1, 8)):
            size = file.stat().st_size
            answer = ask("read", str(file), str(devices), devices=devices)
            found = json.loads(answer.splitlines()[-1])
            ratio = found["peak"] / size
            rows.append(
                {
                    "model": "ViT-L/16",
                    "file": file.suffix,
                    "mesh_devices": devices,
                    "file_mb": round(size / 1e6),
                    "peak_mb": round(found["peak"] / 1e6),
                    "peak_to_file": round(ratio, 3),
                    "largest_share_of_a_device": round(found["largest_device"] / found["total"], 4),
                    "baseline_mb": round(found["baseline"] / 1e6),
                    "seconds": round(found["seconds"], 1),
                    "at_most": _MOST,
                }
            )
    record("import_memory", rows)
    over = [row for row in rows if row["peak_to_file"] > _MOST]
    if over:
        raise SystemExit(f"more than {_MOST} times the file: {over}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["read"]:
        read(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
