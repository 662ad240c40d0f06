"""Every config: its resolved form is golden, and it trains on data of its shape.

Those in ``configs/`` train two steps. Those of papers, in its folders, are traced: the step is
laid out and typed from the state to the next, which is all but the compiler, as the paper has them;
as ``small`` only those without a claim, which trains them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.goldens import to_text
from tests.slow import with_slow
from tests.tiny import first_state
from vision.config import specs as configs
from vision.config.hints import CONSTRUCTOR, is_spec
from vision.config.schema import locate
from vision.data.source import Source, SourceInfo
from vision.data.sources.fake import Fake
from vision.data.tokenizers import WordTokenizer
from vision.evaluators.accuracy.classification import Classification
from vision.parallel.mesh import Mesh, to_device
from vision.run import experiment as experiments
from vision.run.compile import compile_step, lay_out
from vision.run.prepare import Prepared, prepare
from vision.scenario import stages

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "configs"
CONSTRUCTORS = ROOT / "tests" / "golden" / "constructors.json"
RECIPES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
# One of each kind of tower; small ones train in the tests of programs, and all are traced below.
STEPPED = ("clip_vit_b16", "resnet50_i1k", "vit_s16_i1k")
SLUGS = sorted(path.parent.name for path in (ROOT / "papers").glob("*/config.py"))
PAPERS = [f"{slug}{mode}" for slug in SLUGS for mode in ("", ":small")]
CLAIMED = {f"{path.parent.name}:small" for path in (ROOT / "papers").glob("*/claim.py")}


@dataclasses.dataclass(frozen=True)
class Table:
    """Pictures, and what a table's columns say of them.

    Attributes:
      columns: feature to the constructor of its column.
      shapes: of features that are numbers; scalars without.
    """

    columns: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    num_examples: int = 64

    @property
    def info(self) -> SourceInfo:
        names = tuple("abcdefg") if "label" in self.columns else ()
        return SourceInfo("table", self.num_examples, names, dict(self.columns))

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        said = {"Captions": (f"number {index}", "one"), "Text": f"number {index}"}
        cells = {**said, "ClassLabel": np.int32(index % 7), "Number": np.float32(index)}
        cells["Boxes"] = np.zeros((20, 4), np.float32)
        cells["Masks"] = np.zeros((10, 260, 300), bool)
        picture = np.random.default_rng(index).integers(0, 256, (260, 300, 3), np.uint8)
        row = {name: cells[kind] for name, kind in self.columns.items()}
        # A month of the year: numbers may be times.
        month = index % 12 + 1.0
        numbers = {n: np.full(shape, month, np.float32) for n, shape in self.shapes.items()}
        return {"image": picture, **row, **numbers}

    def key(self, index: int) -> str:
        return str(index)


# What the data of a config looks like where the data is not in the repository.
ABSENT: dict[str, dict[str, Any]] = {
    "vision.data.sources.tfds.Tfds": {"image_size": (260, 300), "num_classes": 1000},
    "vision.data.sources.folder.Folder": {"image_size": (90, 80), "num_classes": 7},
}
CLASSES = {"cnfood241": 241, "places365_small": 365}
# Fields of objectives that name blocks by number: such a tower stays as deep as it is.
NAMES_BLOCKS = {"levels", "blocks"}
TABLES = ("vision.data.sources.parquet.Parquet", "vision.data.sources.webdataset.WebDataset")


@functools.cache
def load(name: str) -> Any:
    """Nobody changes it: ``shrunk`` makes a copy."""
    config = configs.load(f"configs/{name}.py" if name in RECIPES else name)
    stages.check(config, name)
    return config


def known_runs(config: Any) -> dict[str, Any]:
    """Its runs whose data stands before any stage is computed; alike ones once."""
    known = {k: run for k, run in stages.runs(config).items() if not stages.references(run.data)}
    told = {k: configs.to_json((run.model, run.objective)) for k, run in known.items()}
    first = {text: key for key, text in reversed(told.items())}
    return {key: run for key, run in known.items() if first[told[key]] == key}


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", RECIPES + PAPERS)
def test_resolved_config_is_golden(name: str):
    """Its golden has what differs from the constructors' defaults, which are in CONSTRUCTORS.

    UPDATE_GOLDEN=1 pytest tests/test_configs.py rewrites them; read the diff.
    """
    file, mode = golden_of(name)
    told = configs.without_defaults(load(name))
    assert str(ROOT) not in json.dumps(told), "a config names a path of this machine"
    goldens = json.loads(file.read_text()) if file.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        goldens[mode] = told
        file.write_text(to_text(dict(sorted(goldens.items()))) + "\n")
    assert mode in goldens, f"no golden of {name}: UPDATE_GOLDEN=1 pytest tests/test_configs.py"
    changed = configs.differences(goldens[mode], told)
    assert not changed, "\n".join(changed)


def golden_of(name: str) -> tuple[Path, str]:
    """The file that holds the golden of a config, by mode, and the mode."""
    slug, _, mode = name.partition(":")
    if name in RECIPES:
        return GOLDEN / f"{name}.json", "get_config"
    return ROOT / "papers" / slug / "golden.json", mode or "get_config"


def test_defaults_of_constructors_are_golden():
    """A line per parameter of every constructor that a config uses."""
    used = sorted({path for name in RECIPES + PAPERS for path in constructors(load(name))})
    parts = []
    for path in used:
        lines = [f"    {json.dumps(k)}: {v}" for k, v in configs.defaults(locate(path)).items()]
        inside = "\n" + ",\n".join(lines) + "\n  " if lines else ""
        parts.append(f"  {json.dumps(path)}: {{{inside}}}")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    if os.environ.get("UPDATE_GOLDEN"):
        CONSTRUCTORS.write_text(text)
    golden = json.loads(CONSTRUCTORS.read_text())
    changed = configs.differences(golden, json.loads(text), "defaults")
    assert not changed, "\n".join(changed)


def constructors(node: Any) -> set[str]:
    """Paths of all constructors in a config."""
    if isinstance(node, (list, tuple)):
        return {path for item in node for path in constructors(item)}
    if not isinstance(node, ConfigDict):
        return set()
    inside = {path for item in node.values() for path in constructors(item)}
    return inside | {str(node[CONSTRUCTOR])} if is_spec(node) else inside


def test_every_golden_has_its_config():
    named: dict[Path, set[str]] = {}
    for name in RECIPES + PAPERS:
        file, mode = golden_of(name)
        named.setdefault(file, set()).add(mode)
    files = [*GOLDEN.glob("*.json"), *(ROOT / "papers").glob("*/golden.json")]
    assert {file: set(json.loads(file.read_text())) for file in files} == named


def with_fake_data(config: Any) -> Any:
    """The config with sources that are not here replaced by noise of the same shape."""

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            name = node.get("_constructor", "")
            if name in ABSENT:
                form = {"num_examples": 64, **ABSENT[name]}
                if str(node.get("name", "")).startswith("cifar"):
                    form = {"num_examples": 128, "image_size": (32, 32), "num_classes": 100}
                known = CLASSES.get(str(node.get("root") or node.get("name")))
                if known is not None:  # the recipe's tower or its mixup says how many
                    form["num_classes"] = known
                return configs.to_plain(configs.spec(Fake, **form))
            if name == "papers.freenet.scene.MatScene":
                form = {"side": 16, "bands": node["bands"], "classes": len(node["class_names"])}
                return {"_constructor": "papers.freenet.scene.DrawnScene", **form}
            if name in TABLES:
                columns = {feature: kind(column) for feature, column in node["columns"].items()}
                shapes = {f: tuple(c["shape"]) for f, c in node["columns"].items() if "shape" in c}
                return configs.to_plain(configs.spec(Table, columns=columns, shapes=shapes))
            if kind(node) == "HuggingFaceTokenizer":
                words = configs.spec(WordTokenizer, words=("a",), length=node["length"])
                return configs.to_plain(words)
            if kind(node) == "LabelToCaption" and node["file"]:
                node = {**node, "file": "", "names": tuple("abcdefg")}
            if kind(node) == "TaxonTexts" and isinstance(node["taxa"], str):
                taxa = {f"A {name}": {"species": name} for name in "abcdefg"}
                node = {**node, "taxa": taxa, "class_names": tuple(taxa)}
            return {key: replace(value) for key, value in node.items()}
        return [replace(item) for item in node] if isinstance(node, list) else node

    return configs.from_plain(replace(configs.to_plain(config)))


def cut(config: Any, tower: str, whole: bool) -> None:
    node: Any = config
    for part in tower.split("."):
        node = node.get(part, {})
    if "variant" in node and "depths" in node:
        stages = len(node["depths"] or "four")
        configs.override(config, f"{tower}.depths", f"({'1, ' * stages})")
    elif "depth" in node and not whole:
        bottlenecks = node.get("groups", 1) > 1  # which 10 layers have none of
        least = {"ResNet": 14 if bottlenecks else 10, "BiT": 14, "VGG": 11}.get(kind(node), 1)
        configs.override(config, f"{tower}.depth", str(least))
        if isinstance(node.get("stages"), int):
            configs.override(config, f"{tower}.stages", "1")
    elif "depth_multiplier" in node and not node.get("attention"):  # which names layers
        configs.override(config, f"{tower}.depth_multiplier", "0.01")
    if kind(node) in ("ViT", "TextTransformer"):
        for field, size in (("width", 64), ("mlp_dim", 128), ("heads", 2)):
            configs.override(config, f"{tower}.{field}", str(size))
    elif kind(node) == "Dual" and kind(node["image"]) == "ViT" and node["width"] is not None:
        configs.override(config, f"{tower}.width", "64")


def kind(node: Any) -> str:
    return node.get("_constructor", "").rpartition(".")[2]


def shrunk(config: Any, name: str) -> Any:
    """A config with little data in batches of two and with few and narrow blocks."""
    config = with_fake_data(config)
    # The batch is a number of the recipe, not of the program: few rows keep this short.
    recipe = config.data.batch_size
    rows = 2 * max(config.accumulate, config.objective.get("groups", 1))
    configs.override(config, "data.batch_size", str(rows))
    if kind(config.data.get("sampler") or {}) == "PxK":
        configs.override(config, "data.sampler.classes", str(rows))
        configs.override(config, "data.sampler.instances", "1")
    if config.total.endswith("examples"):  # as many steps as the recipe has
        examples = float(config.total.split()[0]) * rows / recipe
        configs.override(config, "total", f"{examples:.0f} examples")
    configs.override(config, "data.threads", "0")
    # So are the depth of towers, whose blocks are all alike, and the width of transformers.
    for tower in ("model", "model.tower", "model.image", "model.text"):
        cut(config, tower, whole=bool(NAMES_BLOCKS & set(config.objective)))
    experiments.check(config, name)
    return config


@pytest.mark.parametrize("name", with_slow(STEPPED, STEPPED[:2]))
def test_two_steps_on_data_of_the_right_shape(name: str):
    config = shrunk(load(name), name)
    prepared, mesh = prepare(config), Mesh().build(jax.devices()[:1])
    data: Any = prepared.experiment.data
    assert isinstance(data.source, Source)
    compiled = compile_step(prepared.step, prepared.batch, mesh, ())
    state = first_state(compiled.abstract)
    loader = data.loader(seed=0, first_batch=0)
    before = jax.device_get(state.params)
    for _ in range(2):
        state, metrics = compiled.update(state, to_device(next(loader), mesh))
        assert np.isfinite(float(metrics["loss"]))
    loader.close()
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params))
    assert any(jax.tree.leaves(moved))
    evaluators_fit(prepared, compiled.abstract.averaged, mesh)


# Those of papers are slow all together; every paper's own tests take steps of its objective.
# What tables of one's own hold says the table: tests/test_own_configs.py writes some.
TRACED = [
    *(name for name in RECIPES if not name.startswith("own_") and name not in STEPPED),
    *(pytest.param(name, marks=pytest.mark.slow) for name in PAPERS if name not in CLAIMED),
]


@pytest.mark.parametrize("name", TRACED)
def test_the_step_fits_data_of_the_right_shape(name: str):
    """Of every run, but for those whose data an earlier stage makes: their claims train them."""
    found = known_runs(load(name))
    assert found
    for stage, config in found.items():
        fits(shrunk(config, name), f"{name} {stage}")


def fits(config: Any, name: str) -> None:
    # Two devices: the forms of convolutions for a single one have tests of their own.
    prepared, mesh = prepare(config), Mesh().build(jax.devices()[:2])
    parts: Any = prepared.experiment
    step = prepared.step
    state = lay_out(step, prepared.batch, mesh, parts.sharding)
    with jax.set_mesh(mesh):
        after, metrics = jax.eval_shape(step.update, state, prepared.batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()
    evaluators_fit(prepared, state.averaged, mesh)


def evaluators_fit(prepared: Prepared, variables: Any, mesh: jax.sharding.Mesh) -> None:
    """What is predicted of the batches of every evaluator has the classes that it asks for."""
    predicted: dict[str, Any] = {}
    evaluators: Any = prepared.experiment.evaluators or {}
    for name, evaluator in evaluators.items():
        if not hasattr(evaluator, "data"):
            continue
        two = dataclasses.replace(evaluator.data, batch_size=2, threads=0)
        batch = next(two.loader(process_index=0, process_count=1))
        shapes = str(jax.tree.map(lambda x: (x.shape, x.dtype), batch))
        if shapes not in predicted:
            with jax.set_mesh(mesh):
                predicted[shapes] = jax.eval_shape(prepared.step.predict, variables, batch)
        if not isinstance(evaluator, Classification):
            continue
        info: SourceInfo = evaluator.data.source.info
        classes = len(prepared.data_spec.class_names)
        assert info.num_classes == classes, name
        assert predicted[shapes]["log_probabilities"].shape == (2, classes), name


def test_fields_of_the_experiment_are_documented():
    text = inspect.cleandoc(experiments.Experiment.__doc__ or "")
    for field in dataclasses.fields(experiments.Experiment):
        assert f"\n  {field.name}:" in text, field.name
