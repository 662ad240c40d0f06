"""Every config: its resolved form is golden, and it trains two steps on data of its shape."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from vision.core import config as configs
from vision.core import experiment as experiments
from vision.core.compile import compile_step
from vision.core.config import build
from vision.core.mesh import Mesh, to_device
from vision.data.source import Source, SourceInfo
from vision.data.sources.fake import Fake
from vision.data.sources.scenes import Scenes
from vision.evaluators.classification import Classification

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "configs"
FILES = sorted(p for p in (ROOT / "configs").rglob("*.py") if "get_config" in p.read_text())
NAMES = [str(p.relative_to(ROOT / "configs").with_suffix("")) for p in FILES]

# What the data of a config looks like where the data is not in the repository.
PAIRS = {"image_size": (260, 300), "features": ("image", "caption")}
ABSENT: dict[str, tuple[Any, dict[str, Any]]] = {
    "vision.data.sources.tfds.Tfds": (Fake, {"image_size": (260, 300), "num_classes": 1000}),
    "vision.data.sources.folder.Folder": (Fake, {"image_size": (90, 80), "num_classes": 7}),
    "vision.data.sources.parquet.Parquet": (Scenes, PAIRS),
}


def load(path: Path) -> Any:
    config = configs.load(str(path.relative_to(ROOT)))
    experiments.check(config, path.name)
    return config


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_resolved_config_is_golden(path: Path):
    """UPDATE_GOLDEN=1 pytest tests/test_configs.py rewrites them; read the diff."""
    golden = GOLDEN / path.relative_to(ROOT / "configs").with_suffix(".json")
    text = configs.to_json(load(path))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert golden.exists(), (
        f"no golden of {path.name}: UPDATE_GOLDEN=1 pytest tests/test_configs.py"
    )
    changed = configs.differences(json.loads(golden.read_text()), json.loads(text))
    assert not changed, "\n".join(changed)


def with_fake_data(config: Any) -> Any:
    """The config with sources that are not here replaced by noise of the same shape."""

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            absent = ABSENT.get(node.get("_constructor", ""))
            if absent is not None:
                fake = configs.spec(absent[0], num_examples=64, **absent[1])
                return configs.to_plain(fake)
            return {key: replace(value) for key, value in node.items()}
        return [replace(item) for item in node] if isinstance(node, list) else node

    return configs.from_plain(replace(configs.to_plain(config)))


def cut(config: Any, tower: str) -> None:
    node: Any = config
    for part in tower.split("."):
        node = node.get(part, {})
    if "variant" in node and "depths" in node:
        configs.override(config, f"{tower}.depths", "(1, 1, 1, 1)")
    elif "depth" in node:
        configs.override(config, f"{tower}.depth", str({"ResNet": 10}.get(kind(node), 1)))


def kind(node: Any) -> str:
    return node["_constructor"].rpartition(".")[2]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_two_steps_on_data_of_the_right_shape(path: Path):
    config = with_fake_data(load(path))
    # The batch is a number of the recipe, not of the program: few rows keep this short.
    recipe = config.data.batch_size
    configs.override(config, "data.batch_size", "2")
    if config.total.endswith("examples"):  # as many steps as the recipe has
        examples = float(config.total.split()[0]) * 2 / recipe
        configs.override(config, "total", f"{examples:.0f} examples")
    configs.override(config, "data.threads", "0")
    # So is the depth of towers, whose blocks are all alike.
    for tower in ("model", "model.image", "model.text"):
        cut(config, tower)
    experiments.check(config)
    data = build(config.data)
    assert isinstance(data.source, Source)
    facts = experiments.observe(data)
    parts: Any = experiments.assemble(config, facts, data)
    step = experiments.make_step(parts, facts, data.batch_ops, data.batch_size)
    mesh = Mesh().build(jax.devices()[:1])
    shapes = {name: jax.ShapeDtypeStruct(*kind) for name, kind in facts.batch.items()}
    compiled = compile_step(step, shapes, mesh, ())
    state = compiled.init()
    loader = data.loader(seed=0, first_batch=0)
    before = jax.device_get(state.params)
    for _ in range(2):
        state, metrics = compiled.update(state, to_device(next(loader), mesh))
        assert np.isfinite(float(metrics["loss"]))
    loader.close()
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params))
    assert any(jax.tree.leaves(moved))
    for name, evaluator in (parts.evaluators or {}).items():
        info: SourceInfo = evaluator.data.source.info
        batch = next(evaluator.data.loader(process_index=0, process_count=1))
        predicted = jax.eval_shape(step.predict, state.averaged, batch)
        rows = len(batch["_mask"])
        if not isinstance(evaluator, Classification):
            assert len(predicted["image/embedding"]) == rows, name
            continue
        assert info.num_classes == len(facts.class_names), name
        assert predicted["log_probabilities"].shape == (rows, len(facts.class_names)), name


def test_fields_of_the_experiment_are_documented():
    text = experiments.Experiment.__doc__ or ""
    for field in dataclasses.fields(experiments.Experiment):
        assert f"      {field.name}:" in text, field.name
