"""Dry runs for TPUs that are not here: names, versions, meshes, and what the numbers say.

What needs libtpu, in an environment of its own, is slow and left out where there is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bench import tpu
from vision.config.cli import UsageError
from vision.config.specs import spec
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel import targets
from vision.parallel.chips import CHIPS, find
from vision.parallel.mesh import Mesh, arrange
from vision.parallel.targets import TOPOLOGIES, Target, TargetError, parse_target
from vision.programs import layout, roofline, target
from vision.run.experiment import Experiment
from vision.run.hlo import Collective, Summary
from vision.train.optim import Optimizer, sgd

ROOT = Path(__file__).resolve().parents[2]
DATA = ["--image=32x32x3", "--classes=5", "--examples=100"]
SMALL = """
import vision as v
from vision import spec
from vision.parallel.mesh import Mesh, ShardingRule

def get_config():
    half = spec(v.Precision, compute="bfloat16")
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=spec(v.Folder, root="absent"), batch_size=64, threads=0),
        model=spec(v.ViT, width=128, depth=2, heads=2, patch=8, pool="mean", precision=half),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.1),
        mesh=spec(Mesh),
        sharding=[spec(ShardingRule, pattern=".*", layout="fsdp")],
        total="1 epochs",
    )
"""


def config(**more: Any) -> Any:
    from vision.data.pipeline import TrainData
    from vision.data.sources.folder import Folder

    return spec(
        Experiment,
        data=spec(TrainData, source=spec(Folder, root="absent"), batch_size=64, threads=0),
        model=spec(ViT, width=64, depth=2, heads=4, patch=8, pool="mean"),
        objective=spec(Classify),
        optimizer=spec(Optimizer, method=spec(sgd), learning_rate=0.1),
        total="1 epochs",
        **more,
    )


def test_targets_and_their_names():
    assert parse_target("v5e:4x4") == Target("v5e", "4x4")
    assert parse_target("2xv5p:2x2x4").chips == 32
    assert str(parse_target("2xv6e:16x16")) == "2xv6e:16x16"
    assert Target("v5e", "4x4").larger() == Target("v5e", "4x8")
    assert Target("v5e", "16x16").larger() is None
    for text, said in (
        ("v5e", "is like v5e:4x4"),
        ("v9:2x2", "v9 is none of v4, v5e, v5p, v6e"),
        ("v5e:3x3", "v5e has slices of 1x1, 2x2, 2x4"),
        ("v5p:2x2x3", r"nearest: 2x2x\d"),
        ("0xv5e:4x4", "at least one slice"),
    ):
        with pytest.raises(TargetError, match=said) as error:
            parse_target(text)
        assert "\n" not in str(error.value)


def test_every_target_has_a_chip_with_all_that_a_roofline_needs():
    kinds = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
    assert kinds.keys() == TOPOLOGIES.keys()
    for kind in kinds.values():
        chip = find(kind)
        assert chip is not None
        numbers = (chip.bfloat16, chip.hbm_gib, chip.hbm_gb_s, chip.link_gb_s, chip.links)
        assert all(numbers), kind
    assert find("TPU v5 lite") is CHIPS["TPU v5e"]
    assert find("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


def test_without_a_compiler_the_message_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layout, "has_compiler", lambda: False)
    monkeypatch.setattr(target, "_ROOT", tmp_path)
    monkeypatch.delenv("VISION_TPU_PYTHON", raising=False)
    with pytest.raises(TargetError, match=r"make tpu-env.*jax\[tpu\]=="):
        layout.main(["--config=x.py", *DATA, "--target=v5e:2x2"])
    monkeypatch.setenv("VISION_TPU_PYTHON", str(tmp_path / "python"))
    with pytest.raises(TargetError, match="there is no such file"):
        layout.main(["--config=x.py", *DATA, "--target=v5e:2x2"])
    with pytest.raises(UsageError, match="leave out --devices"):
        layout.main(["--config=x.py", "--devices=4", "--target=v5e:2x2"])
    with pytest.raises(UsageError, match="--advise needs --target"):
        layout.main(["--config=x.py", "--advise"])
    # The command is run again, with its flags, by the Python that has the compiler.
    monkeypatch.setenv("VISION_TPU_PYTHON", sys.executable)
    seen: list[Any] = []

    def run(command: list[str], env: dict[str, str], check: bool) -> Any:
        seen.append((command, env))
        return type("Done", (), {"returncode": 3})

    monkeypatch.setattr(target.subprocess, "run", run)
    assert layout.main(["--config=x.py", "--target=v5e:2x2", "--json"]) == 3
    command, environment = seen[0]
    assert command[1:] == [
        "-m", "vision.programs.layout", "--config=x.py", "--target=v5e:2x2", "--json",
    ]  # fmt: skip
    assert environment["JAX_PLATFORMS"] == "cpu"


def test_versions_that_do_not_belong_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets.metadata, "version", {"libtpu": "0.0.40", "jax": "0.10.2"}.get)
    wanted = ['libtpu==0.0.42.* ; extra == "tpu"', "numpy>=2"]
    monkeypatch.setattr(targets.metadata, "requires", lambda name: wanted)
    with pytest.raises(TargetError, match=r"libtpu 0\.0\.40 .* 0\.0\.42\.\*.*make tpu-env"):
        targets.check_compiler()
    monkeypatch.setattr(targets.metadata, "version", lambda name: "0.0.42.1")
    targets.check_compiler()
    monkeypatch.setenv("VISION_TPU_PARENT_JAX", "0.11.0")
    with pytest.raises(TargetError, match=r"jax 0\.0\.42\.1, the one that trains jax 0\.11\.0"):
        target.check_versions()


def test_a_mesh_that_does_not_fill_a_target():
    slice16 = parse_target("v5e:4x4")
    target.check_mesh(config(), slice16, 16)
    target.check_mesh(config(mesh=spec(Mesh, data=4, fsdp=4)), slice16, 16)
    with pytest.raises(
        TargetError, match=r"16 devices of v5e:4x4: --config\.mesh\.data=-1.*v5e:4x8"
    ):
        target.check_mesh(config(mesh=spec(Mesh, data=32)), slice16, 16)
    with pytest.raises(TargetError, match="multiply to one of 1, 2, 4, 8, 16"):
        target.check_mesh(config(mesh=spec(Mesh, fsdp=3)), slice16, 16)


def test_remedies_come_cheapest_first_and_change_the_config():
    found = list(target.remedies(config(), parse_target("v5e:4x4")))
    words = [each[0] for each in found]
    assert words[:2] == ["--config.model.remat=dots", "--config.model.remat=full"]
    assert words[2].startswith("mesh=spec(Mesh, data=1, fsdp=16)")
    assert words[3:] == [
        "--config.accumulate=2", "--config.accumulate=4", "--target=v5e:4x8", "--target=v5e:8x8",
    ]  # fmt: skip
    assert found[1][2].model.remat == "full"
    assert found[2][2].mesh.fsdp == 16
    assert found[4][2].accumulate == 4
    assert found[-1][1].chips == 64
    assert config().model.remat == "none"


def test_advice_is_the_first_that_fits(monkeypatch: pytest.MonkeyPatch):
    def measure(changed: Any, data_spec: Any, slices: Target) -> Any:
        if changed.model.remat == "dots":
            raise TargetError("another problem")
        fits = changed.model.remat == "full" or slices.chips > 16
        fit = roofline.Fit(8 << 30 if fits else 20 << 30, 16 << 30, {"temporaries": 8 << 30})
        return None, target.Outcome(slices, 64, fit)

    monkeypatch.setattr(target, "measure", measure)
    said: list[str] = []
    data_spec: Any = None
    words = target.advise(config(), data_spec, parse_target("v5e:4x4"), said.append)
    assert words == "--config.model.remat=full"
    assert said == [
        "--config.model.remat=dots: another problem",
        "--config.model.remat=full: fits: 8.00 of 16.00 GiB",
    ]
    already = config()
    already.model.remat = "full"
    monkeypatch.setattr(target, "remedies", lambda *_: iter([]))
    assert target.advise(already, data_spec, parse_target("v5e:4x4"), said.append) is None


def test_the_two_cores_of_a_v4_keep_their_order():
    cores = [
        types.SimpleNamespace(device_kind="TPU v4", core_on_chip=i % 2, id=i) for i in range(8)
    ]
    found = arrange({"replica": 1, "data": 2, "fsdp": 4, "tensor": 1}, cores)
    assert found.shape == (1, 2, 4, 1)
    assert [each.id for each in found.ravel()] == list(range(8))


def test_memory_that_fits_and_that_does_not():
    memory = {"arguments": 3 << 30, "outputs": 2 << 30, "reused": 2 << 30, "temporaries": 1 << 30}
    fit = roofline.fit_of(memory, 16 << 30)
    assert fit.fits
    assert fit.needed == 4 << 30
    assert roofline.show_fit(fit).splitlines()[0] == "fits: 4.00 of 16.00 GiB"
    assert "1.00 GiB too much" in roofline.show_fit(roofline.fit_of(memory, 3 << 30))
    for message in (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (21.50G) exceeds available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.50G of 15.75G hbm. "
        "Exceeded hbm capacity by 5.75G.",
    ):
        refused = roofline.refusal(message)
        assert refused is not None
        assert (refused.needed, refused.available) == (21.5 * 2**30, 15.75 * 2**30)
        assert not refused.fits
        assert "temporaries alone need 21.50 of 15.75 GiB, 5.75" in roofline.show_fit(refused)
    assert roofline.refusal("INTERNAL: something else") is None


def test_the_longest_time_is_the_bound():
    exchanges = (
        Collective("all-reduce", 10**8, 2 * 10**8, 16, 2, True),
        Collective("collective-permute", 10**6, 10**6, 2, 1, False),
        Collective("between slices", 10**6, 10**6, 2, 1, False),
    )
    summary = Summary(
        hbm_bytes=81_900_000, cycles=3_000_000, collectives=exchanges, unknown_loops=1
    )
    found = roofline.roofline(summary, 197e9, CHIPS["TPU v5e"], "bfloat16")
    assert found.seconds == pytest.approx(
        {"products": 1e-3, "memory": 1e-4, "interconnect": 404e6 / 200e9, "slices": 1e6 / 3.125e9}
    )
    assert (found.bound, found.ceiling) == ("interconnect", pytest.approx(1 / 2.02))
    assert (found.estimate_s, found.estimate) == (pytest.approx(2e-3), pytest.approx(0.5))
    half = roofline.roofline(summary, 197e9, CHIPS["TPU v5e"], "bfloat16", share=0.5)
    assert half.seconds["memory"] == pytest.approx(2e-4)
    text = roofline.show_roofline(found, summary, 197e9)
    assert "bound: interconnect; MFU at most 0.50" in text
    assert "1 loop(s) whose number of turns the data decides" in text
    assert "2 all-reduce: 200.0 MB, 2 overlapped" in roofline.show_summary(summary)
    json.dumps(roofline.as_json(roofline.fit_of({}, None), summary, found))


def test_rows_of_the_table_by_name():
    assert tpu.wanted("clip_b32@v5e:4x4") == [("clip_b32", "v5e:4x4")]
    assert [target for _, target in tpu.wanted("vit_l16")] == ["v5p:2x2x4", "v5p:4x8x8"]
    for text, said in (
        ("vit_x", "recipes are vit_s16,"),
        ("unet@v4:2x2x1", "rows of v5e:4x4, v5e"),
    ):
        with pytest.raises(SystemExit, match=said):
            tpu.wanted(text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(target.python_with_compiler() is None, reason="no .venv-tpu: make tpu-env")
@pytest.mark.parametrize(
    ("name", "flags", "kinds"),
    [
        ("v5e:2x2", [], {"all-reduce"}),
        ("2xv5e:2x2", [], {"all-reduce", "between slices"}),
        ("v4:2x2x1", [], {"all-reduce"}),
        ("v5p:2x2x1", ["--config.mesh.fsdp=4", "--config.mesh.data=1"], {"all-gather"}),
    ],
)
def test_small_steps_by_the_compiler_of_a_tpu(
    name: str, flags: list[str], kinds: set[str], tmp_path: Path
):
    """From the command line to the numbers, in the environment of ``make tpu-env``."""
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    command = [
        sys.executable, "-m", "vision.programs.layout", f"--config={path}", *DATA,
        f"--target={name}", "--compile", "--json", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    compiled = found["compiled"]
    assert compiled["target"] == name
    assert compiled["fits"] is True
    assert compiled["needed_bytes"] < 2**28
    assert kinds <= compiled["collectives"].keys()
    assert 0 < compiled["mfu_ceiling"] < 1
    assert compiled["hbm_bytes"] > found["state"]["params"]["device_bytes"]
    assert compiled["estimate_seconds"] >= 0.5 * compiled["seconds"]["products"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(target.python_with_compiler() is None, reason="no .venv-tpu: make tpu-env")
@pytest.mark.parametrize(
    ("name", "ceiling"), [("vit_s16", 0.4), ("resnet50", 0.4), ("clip_b32", 0.4)]
)
def test_full_recipes_by_the_compiler_of_a_tpu(name: str, ceiling: float):
    """They fit sixteen chips of v5e at the batch per chip of their papers."""
    program = (
        "import json, sys; from bench import tpu; "
        "outcome = tpu.compiled(tpu.RECIPES[sys.argv[1]], tpu.SMALL); "
        "print(json.dumps(tpu.row_of(outcome)))"
    )
    python = target.python_with_compiler()
    done = subprocess.run(
        [str(python), "-c", program, name],
        cwd=ROOT,
        env=target.environment_of_compiler(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout)
    assert row["fits"] is True
    assert row["mfu_ceiling"] >= ceiling
    assert row["estimate_ms"] > row["products_ms"]
