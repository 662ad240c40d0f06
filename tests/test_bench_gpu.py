"""The dry parts of the benchmark for a machine with a GPU: it has none of its rows yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from bench import gpu
from tests.test_platforms import devices_of, exported, shape
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step

ROOT = Path(__file__).resolve().parents[1]


def h200(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    return subprocess.run(
        ["/bin/bash", str(ROOT / "bench" / "h200.sh"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_one_command_says_what_it_would_do():
    done = h200("--dry")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert len(commands) >= 5
    for part in ("jax[cuda13]==", "-m bench.gpu --peer=", "-m bench.gpu_runs", "-m pytest"):
        assert any(part in line for line in commands), part
    # Whatever it names is there.
    for folder in commands[-1].split()[-6:]:
        assert (ROOT / folder).is_dir(), folder
    assert h200("--wet").returncode == 2


def test_without_a_gpu_it_says_so(tmp_path: Path):
    """PATH has what the script needs before it looks for the GPU, and no nvidia-smi."""
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = h200(path=str(tmp_path))
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr
    with pytest.raises(SystemExit, match=r"no GPU here.*--tiny runs anywhere"):
        gpu.main([])


@pytest.mark.slow
@pytest.mark.parametrize("case", gpu.cases(), ids=lambda case: case.name)
def test_the_steps_that_it_measures_lower_for_cuda(case: gpu.Case, monkeypatch: pytest.MonkeyPatch):
    from tests.cudnn import trace_without_gpu

    trace_without_gpu(monkeypatch)
    step = Step(
        case.objective,
        Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0),
        TrainLength(10**6, case.batch, 10**4),
    )
    batch = {
        "image": shape(case.batch, case.size, case.size, 3),
        "label": shape(case.batch, dtype="int32"),
        "_mask": shape(case.batch, dtype="bool"),
    }
    if case.context:
        batch["text"] = shape(case.batch, case.context, dtype="int32")
    with devices_of("cuda"):
        state = jax.eval_shape(
            lambda: step.init({k: jax.numpy.zeros(x.shape, x.dtype) for k, x in batch.items()})
        )
        program = exported("cuda", step.update, state, batch)
    if case.name.startswith("vit"):
        assert "cudnn" in program.mlir_module()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_small_steps_and_small_runs(capsys: pytest.CaptureFixture[str]):
    gpu.main(["--tiny"])
    assert capsys.readouterr().out.count("images_per_s") == 2
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu_runs", "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    jpegs, killed = json.loads(done.stdout.splitlines()[-1])
    assert jpegs["images_per_s"] > 0
    assert killed["same_end"]
