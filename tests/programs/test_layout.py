"""The dry run: what it prints is what training would hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vision.config.cli import UsageError
from vision.programs import layout

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from vision.config.specs import spec
from vision.run.experiment import Experiment
from vision.parallel.mesh import Mesh, ShardingRule
from vision.train.optim import Optimizer, sgd
from vision.data.pipeline import TrainData
from vision.data.sources.folder import Folder
from vision.models.vit import TENSOR_PARALLEL, ViT
from vision.objectives.classify import Classify

def get_config():
    return spec(
        Experiment,
        data=spec(TrainData, source=spec(Folder, root="absent"), batch_size=16, threads=0),
        model=spec(ViT, width=64, depth=2, heads=4, patch=4, pool="mean"),
        objective=spec(Classify),
        optimizer=spec(Optimizer, method=spec(sgd), learning_rate=0.1),
        mesh=spec(Mesh, data=1, fsdp=4, tensor=2),
        sharding=TENSOR_PARALLEL,
        total="1 epochs",
    )
"""
DATA = ["--image=8x8x3", "--classes=5", "--examples=100"]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    return f"--config={path}"


def test_dry_run_with_compilation(config: str, capsys: pytest.CaptureFixture[str]):
    assert layout.main([config, *DATA, "--compile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("replica 1 x data 1 x fsdp 4 x tensor 2")
    rows = {line.split()[0]: line.split() for line in lines if line}
    # 2 layers of 64 x 192 float32 in eight parts, and in two.
    kernel = rows["params/model/blocks/attn/qkv/kernel"]
    assert kernel[1:] == ["2x64x192", "float32", "-", "fsdp", "tensor", "12.00", "KiB"]
    assert rows["params/model/blocks/attn/qkv/bias"][1:4] == ["2x192", "float32", "-"]
    assert rows["params/model/head/kernel"][1:] == ["64x5", "float32", "whole", "1.25", "KiB"]
    text = "\n".join(lines)
    assert "all-gather" in text
    assert "gradients, activations and other temporaries:" in text
    assert "compiled in" in text


def test_totals_are_sums_of_leaves(config: str, capsys: pytest.CaptureFixture[str]):
    changes = ["--config.mesh.fsdp=8", "--config.mesh.tensor=1"]
    assert layout.main([config, *DATA, *changes, "--leaves=2"]) == 0
    out = capsys.readouterr().out
    assert "smaller ones (--leaves=all)" in out
    assert sum("model/" in line for line in out.splitlines()) == 2
    assert "no array is split over tensor" not in out
    mesh = jax.sharding.Mesh(jax.devices(), ("x",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    tree = {
        "params": jax.ShapeDtypeStruct((16, 3), "float32", sharding=split),
        "extra_state": [jax.ShapeDtypeStruct((5,), "bfloat16", sharding=whole)] * 2,
    }
    found = layout.leaves(tree)
    assert [leaf.path for leaf in found] == ["extra_state/0", "extra_state/1", "params"]
    assert layout.totals(found) == {"params": (1, 192, 24), "extra_state": (2, 20, 20)}
    assert layout.size(1536) == "1.50 KiB"
    assert layout.size(1023) == "1023 B"


def test_absent_data_and_bad_flags(config: str):
    with pytest.raises(UsageError, match=r"absent.*a dry run needs no data: add --image="):
        layout.main([config])
    with pytest.raises(UsageError, match="--image=8, but it is like 224x224x3"):
        layout.main([config, "--image=8", "--examples=3"])
    with pytest.raises(UsageError, match="needs --examples"):
        layout.main([config, "--image=8x8x3"])


def test_a_pod_on_a_laptop(config: str):
    """Devices that are not there are simulated; an axis that does not fit is one line."""
    command = [sys.executable, "-m", "vision.programs.layout", config, *DATA, "--devices=32"]
    for mesh, status, text in (("data=4", 0, "32 device(s)"), ("tensor=3", 2, "tensor")):
        done = subprocess.run(
            [*command, f"--config.mesh.{mesh}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert text in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
