"""Whole runs on one GPU: from JPEGs to the step, and one that is killed and goes on.

    python -m bench.gpu_runs
    python -m bench.gpu_runs --tiny      # a small tower and few images, on any device

``jpegs``: train.py on a folder of 500x375 JPEGs, a ViT-B/16 at 224 px, worker processes; images per
second of the later rows, and the share of the time that the device waited for data. ``killed``: the
same run with deterministic operations, killed by SIGKILL after its first checkpoint and started
again; its end must be, to the bit, that of a run that nothing happened to. Written to
bench/results/gpu_runs.csv, of which there is none yet.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import record
from bench.input import photographs

_ROOT = Path(__file__).resolve().parents[1]
_SMALL = {"model.width": "16", "model.depth": "1", "model.heads": "2", "model.patch": "16"}
_BASE = {"model.width": "768", "model.depth": "12", "model.heads": "12", "model.patch": "16"}


def command(folder: Path, workdir: Path, steps: int, tiny: bool) -> list[str]:
    """train.py on the folder's images."""
    size, batch = (32, 8) if tiny else (224, 256)
    tower = _SMALL if tiny else _BASE
    changes = {
        **tower,
        "model.precision.compute": "bfloat16",
        "data.batch_size": str(batch),
        "data.ops[1].size": str(size),
        "data.workers": "0" if tiny else str(min(12, os.cpu_count() or 1)),
        "evaluators": "None",
        "evaluate_every": "None",
        "total": f"{steps} steps",
        "log_every": f"{max(steps // 8, 1)} steps",
        "checkpoints.every": f"{steps // 2} steps",
    }
    return [
        sys.executable, str(_ROOT / "train.py"), f"--config={_ROOT}/configs/folder_vit.py:{folder}",
        f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in changes.items()),
    ]  # fmt: skip


def train(arguments: list[str], deterministic: bool = False) -> subprocess.Popen[bytes]:
    """Starts a run."""
    flags = os.environ.get("XLA_FLAGS", "")
    if deterministic:
        flags += " --xla_gpu_deterministic_ops=true"
    environment = {**os.environ, "XLA_FLAGS": flags.strip()}
    return subprocess.Popen(arguments, cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait() != 0:
        raise SystemExit(f"train.py ended with status {process.returncode}")


def digest(workdir: Path) -> str:
    """SHA-256 over the last state."""
    done = subprocess.run(
        [sys.executable, "-m", "vision.checkpoint.store", "digest", str(workdir)],
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()[0]


def rows(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small run; records nothing")
    tiny = parser.parse_args(arguments).tiny
    steps, images = (16, 40) if tiny else (120, 4096)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for i, data in enumerate(photographs(images)):
            path = root / "images" / f"class{i % 2}" / f"{i:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        whole, broken = root / "whole", root / "broken"
        finish(train(command(root / "images", whole, steps, tiny), deterministic=True))
        speeds = [row for row in rows(whole) if "images_per_s" in row][2:]
        jpegs = {
            "case": "jpegs",
            "images_per_s": round(statistics.median(row["images_per_s"] for row in speeds), 1),
            "data_wait": round(statistics.median(row["data_wait"] for row in speeds), 3),
        }
        arguments = command(root / "images", broken, steps, tiny)
        process = train(arguments, deterministic=True)
        while process.poll() is None and not any(r["step"] > steps // 2 for r in rows(broken)):
            time.sleep(0.05)
        killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        finish(train(arguments, deterministic=True))
        same = digest(whole) == digest(broken)
    result = {"case": "killed", "killed": killed, "same_end": same}
    if tiny:
        print(json.dumps([jpegs, result]))
    else:
        empty = dict.fromkeys([*jpegs, *result], "")
        record("gpu_runs", [{**empty, **jpegs}, {**empty, **result}])
    if not same:
        raise SystemExit("the end of the run that was killed is another one")


if __name__ == "__main__":
    main()
