"""Everything that runs on devices lowers for GPUs and TPUs, which need not be there.

A program that is exported for a platform has passed all of JAX: no primitive without a rule for it,
no form that is a CPU's alone. What the compiler of the platform says of it is another matter:
``bench.tpu``. The forms are those of the platform, since a mesh that stands for its devices is in
use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax._src.mesh import AbstractDevice

import vision
from tests.test_configs import PAPERS, RECIPES, ROOT, known_runs, load, shrunk, with_fake_data
from vision.blocks import nearest
from vision.config.specs import override
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import platform
from vision.probes import class_means, kmeans, sgd
from vision.run.prepare import prepare
from vision.train.optim import Optimizer
from vision.train.optim import sgd as plain
from vision.train.schedule import Cosine, TrainLength
from vision.train.step import Step
from vision.train.tower import forward, initialise

KINDS = {"cuda": ("NVIDIA H100 80GB HBM3", "gpu"), "tpu": ("TPU v5 lite", "tpu")}


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


@contextlib.contextmanager
def devices_of(name: str) -> Iterator[None]:
    """A mesh that stands for one device of a platform is in use."""
    kind, short = KINDS[name]
    mesh = jax.sharding.AbstractMesh(
        (1,), ("device",), abstract_device=AbstractDevice(kind, 1, short)
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert platform() == short
        yield


def exported(name: str, function: Callable[..., Any], *shapes: Any) -> jax.export.Exported:
    """The program of a function for a platform."""
    # cuDNN's calls may change between versions of JAX: nothing is stored here.
    calls = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
    checks = [jax.export.DisabledSafetyCheck.custom_call(call) for call in calls]
    program = jax.export.export(jax.jit(function), platforms=[name], disabled_checks=checks)(
        *shapes
    )
    assert program.platforms == (name,)
    return program


def shape(*sizes: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def initial(step: Step, batch: Any) -> Any:
    """Shapes of the state before the first update."""
    return jax.eval_shape(
        lambda: step.init({key: jnp.zeros(x.shape, x.dtype) for key, x in batch.items()})
    )


def step_lowers(name: str, step: Step, batch: Any) -> str:
    """The program of an update, as StableHLO."""
    return exported(name, step.update, initial(step, batch), batch).mlir_module()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("tower", [ViT, ResNet])
def test_a_training_step(name: str, tower: Any):
    small: dict[Any, dict[str, Any]] = {
        ViT: {"width": 16, "depth": 2, "heads": 2, "patch": 4},
        ResNet: {"depth": 10, "stem": "cifar", "width_multiplier": 0.125, "norm_rows": 2},
    }
    optimizer = Optimizer(plain(), 0.1, Cosine("1 steps"))
    model = tower(num_classes=5, **small[tower])
    step = Step(Classify(model), optimizer, TrainLength(10, 4, 10))
    batch = {
        "image": shape(4, 8, 8, 3),
        "label": shape(4, dtype="int32"),
        "_mask": shape(4, dtype="bool"),
    }
    with devices_of(name):
        text = step_lowers(name, step, batch)
    if tower is ViT:
        # q, k and v come from three products on a TPU and from one elsewhere.
        assert bool(re.search(r"tensor<4x\d+x48xf32>", text)) == (name == "cuda")
        # And what attends to them is a kernel of its own, once forth and once back.
        kernels = ["attention_forward", "attention_backward"] if name == "tpu" else []
        assert re.findall(r'kernel_name = "(\w+)"', text) == kernels
    else:
        assert "stablehlo.convolution" in text


@pytest.mark.parametrize("name", KINDS)
def test_what_probes_and_evaluators_fit_and_search(name: str):
    x, key = shape(12, 4), jax.eval_shape(lambda: jax.random.key(0))
    means = jax.eval_shape(functools.partial(class_means.empty_means, 3, 4))
    labels, order = shape(12, dtype="int32"), shape(5, 6, dtype="int32")
    with devices_of(name):
        exported(name, lambda x, key: kmeans.seeds(x, 3, key), x, key)
        exported(name, lambda x, c: kmeans.lloyd(x, c, 5), x, shape(3, 4))
        exported(name, class_means.update, means, x, labels)
        for metric in ("euclidean", "cosine"):
            closeness = functools.partial(class_means.closeness, metric=metric)
            exported(name, closeness, x, shape(3, 4), shape(3, dtype="bool"))
        exported(name, sgd._trainer(3), x, labels, order, shape(2), shape(2))
        exported(name, nearest._searcher(None, None, 3), shape(2, 4), x)


# They read a user's table, which is not here; their objectives are in other configs too.
OWN_FILES = {"own_pairs", "own_table"}
LOWERED = [name for name in RECIPES if name not in OWN_FILES]


@pytest.mark.slow
@pytest.mark.parametrize("config", LOWERED + [name for name in PAPERS if ":" in name])
def test_steps_and_predictions_of_every_config(config: str):
    """All objectives that a recipe or a paper has, with few and narrow blocks."""
    for run in known_runs(load(config)).values():
        prepared = prepare(shrunk(run, config))
        evaluators: Any = prepared.experiment.evaluators or {}
        read = [rows(each.data) for each in evaluators.values() if hasattr(each, "data")]
        # Most evaluators read batches of one form, for which there is one program.
        forms = {str(sorted(batch.items())): batch for batch in read}
        state = initial(prepared.step, prepared.batch)
        for name in KINDS:
            with devices_of(name):
                exported(name, prepared.step.update, state, prepared.batch)
                for batch in forms.values():
                    exported(name, prepared.step.predict, state.averaged, batch)


# Towers, and methods around them, at the size of the paper.
WHOLE = (
    *("cca", "dcal", "freenet", "gabor", "glmix", "glsim", "inception_resnet", "metaformer"),
    *("mrcnn_scenes", "nasnet", "rbi", "res_vmamba", "simplenet", "ulsam"),
)


@pytest.mark.slow
@pytest.mark.parametrize("slug", WHOLE)
def test_steps_of_whole_towers_lower_for_tpus(slug: str):
    """The paper's own recipe, as deep and as wide as it is; a batch has four rows."""
    config = with_fake_data(load(slug))
    for key, value in (("data.batch_size", "4"), ("data.threads", "0")):
        override(config, key, value)
    prepared = prepare(config)
    with devices_of("tpu"):
        text = step_lowers("tpu", prepared.step, prepared.batch)
    products = ("stablehlo.dot_general", "stablehlo.convolution")
    assert any(product in text for product in products)


def rows(data: Any) -> dict[str, Any]:
    """Shapes of a batch of an evaluator's data."""
    two = dataclasses.replace(data, batch_size=2, threads=0)
    batch = next(two.loader(process_index=0, process_count=1))
    return {name: shape(*x.shape, dtype=str(x.dtype)) for name, x in batch.items()}


# Arguments that make towers small, where they have no defaults or large ones. After a name may be
# what else of it is lowered.
TOKENS = {"width": 16, "depth": 1, "patch": 8}
TOWERS: dict[str, dict[str, Any]] = {
    "BiT": {"depth": 14},
    "ConvNeXt": {"depths": (1, 1), "dims": (8, 16)},
    "DenseNet": {"layers": (2, 2), "growth": 8},
    "EfficientNet": {"variant": "B0"},
    "EfficientNetLite": {"variant": "lite0"},
    "InceptionResNetV2": {},
    "InceptionV4": {},
    "MaxVit": {"widths": (32, 32), "depths": (1, 1), "stem_width": 8, "window": (2, 2)},
    "Mixer": {**TOKENS, "mix_dim": 8, "mlp_dim": 32},
    "MobileNetV1": {},
    "MobileNetV2": {},
    "MobileNetV3": {},
    "MobileNetV4": {},
    "MobileNetV4 hybrid": {"variant": "hybrid_medium", "width_multiplier": 0.25},
    "NaflexViT": {"width": 16, "depth": 1, "heads": 2, "patch": 8},
    "NasNet": {},
    "PlainConv": {},
    "RegNet": {"depths": (1, 1), "widths": (8, 16), "group_width": 8},
    "RelativeViT": {**TOKENS, "heads": 2},
    "ResNet": {"depth": 10},
    "ResNetV2": {"width_multiplier": 0.125},
    "Swin": {"width": 8, "depths": (2, 2), "heads": (1, 2), "window": 2},
    "SwinV2": {"width": 8, "depths": (2, 2), "heads": (1, 2), "window": 2},
    "VGG": {"depth": 11, "hidden": 8},
    "TextCNN": {"vocab_size": 20},
    "ViT": {**TOKENS, "heads": 2},
    "Xcit": {**TOKENS, "heads": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
def test_towers_and_their_gradients(tower: str):
    model = getattr(vision, tower.partition(" ")[0])(**TOWERS[tower])
    image = shape(2, 80, 80, 3)  # an Inception reads 75 pixels and more
    others = {"TextCNN": shape(2, 9, dtype="int32"), "NaflexViT": shape(2, 9, 194)}
    x = others.get(tower, image)
    variables = jax.eval_shape(functools.partial(initialise, model), jax.random.key(0), x)

    def loss(params: Any, state: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        return forward(model, params, state, x, train=True, key=key)[0].sum()

    for name in KINDS:
        with devices_of(name):
            exported(name, jax.grad(loss), *variables, x, jax.random.key(0))


def test_no_tower_is_left_out():
    """Those that read more than images are in configs, which the slow tests lower."""
    golden = "".join(
        path.read_text()
        for path in [
            *(ROOT / "tests" / "golden" / "configs").glob("*.json"),
            *(ROOT / "papers").glob("*/golden.json"),
        ]
    )
    modules = {name: getattr(vision, name) for name in dir(vision) if name[:1].isupper()}
    towers = {
        name
        for name, each in modules.items()
        if isinstance(each, type)
        and issubclass(each, nn.Module)
        and each.__module__.startswith("vision.models.")
    }
    lowered = {name.partition(" ")[0] for name in TOWERS}
    assert towers >= lowered
    left = {name for name in towers - lowered if f".{name}" not in golden}
    assert not left, f"no test lowers {', '.join(sorted(left))}"
