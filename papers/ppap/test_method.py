"""PPAP: experts that start as their classifier, and images that are led by one or by nothing."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.ppap import sampled
from papers.ppap.leaves import non_kernels, replaced
from papers.ppap.method import NoiseExperts
from papers.ppap.sampled import Sampled
from tests.tiny import drawn, untrained
from vision.blocks.adapters import Lora
from vision.blocks.diffusion import Diffusion
from vision.config.specs import spec
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import TrainData
from vision.data.source import DataError
from vision.data.sources.digits import Digits
from vision.data.sources.npz import Npz
from vision.models.plain_conv import PlainConv
from vision.objectives.classify import Classify
from vision.objectives.denoise import Denoise
from vision.run.experiment import Experiment
from vision.scenario import stages
from vision.scenario.stages import Scenario, Stage
from vision.train.objective import Context, Variables
from vision.train.optim import Optimizer, ParameterRule, adamw

NET = PlainConv(width=4, depth=1, num_classes=3)
NOISE = Diffusion(100)
PPAP = NoiseExperts(NET, NOISE, experts=3, adapters=(Lora("conv[^/]*/kernel$", 2, 8.0),))
RNG = np.random.default_rng(0)


def batch() -> dict[str, Any]:
    image = RNG.normal(size=(6, 4, 4, 1)).astype(np.float32)
    return {"image": image, "_mask": np.array([True] * 5 + [False])}


@pytest.fixture(scope="module")
def begun() -> Any:
    """Variables whose classifier is no fresh one."""
    variables = drawn(PPAP.init, batch())
    experts = variables.params["experts"]
    adapters = {
        name: {**each, "lora_b": jax.tree.map(np.zeros_like, each["lora_b"])}
        for name, each in experts["adapters"].items()
    }
    variables = variables.merge(params={"experts": {**experts, "adapters": adapters}})
    return jax.jit(PPAP.init_from_batch)(variables, batch(), jax.random.key(1))


@functools.cache
def context() -> Context:
    return Context(jnp.int32(0), 1, train=True, key=jax.random.key(4))


@jax.jit
def learned(params: Any, data: Any) -> Any:
    """Loss and gradient."""

    def loss(params: Any) -> Any:
        return PPAP.loss(Variables(params, {"model": {}}, {}), data, context())[0]

    return jax.value_and_grad(loss)(params)


def test_every_expert_is_the_classifier_at_the_start(begun: Any):
    data, ctx = batch(), Context(jnp.int32(0), 1, train=False)

    @jax.jit
    def logits(model: Any) -> jax.Array:
        return Classify(NET).predict(begun.merge(params={"model": model}), data, ctx)["logits"]

    teacher = np.asarray(logits(begun.params["model"]))
    assert np.std(teacher) > 0.1
    begun = jax.device_get(begun)
    weights_of = jax.jit(PPAP.weights)
    for n in range(3):
        learned = jax.tree.map(lambda x, n=n: x[n], begun.params["experts"])
        weights = weights_of(begun.params, learned)
        jax.tree.map(np.testing.assert_array_equal, weights, begun.params["model"])
        np.testing.assert_array_equal(logits(weights), teacher)


def test_the_step_decides_which_expert_answers(begun: Any):
    data, ctx = batch(), Context(jnp.int32(0), 1, train=False)
    own = begun.params["experts"]["own"]
    # Expert n has features of n everywhere, which the head of all three adds up.
    level = np.repeat(np.arange(3, dtype=np.float32)[:, None], 4, 1)
    own = {**own, "norm0": {"scale": jnp.zeros((3, 4)), "bias": jnp.asarray(level)}}
    changed = begun.merge(params={"experts": {**begun.params["experts"], "own": own}})

    @jax.jit
    def of(time: jax.Array) -> jax.Array:
        return PPAP.predict(changed, {**data, "time": time}, ctx)["logits"]

    def logits(time: int) -> np.ndarray:
        return np.asarray(of(np.int32(time)))

    first = logits(0)
    for time, expert in ((33, 0), (34, 1), (66, 1), (67, 2), (99, 2)):
        summed = expert * np.asarray(begun.params["model"]["head"]["kernel"]).sum(0)
        np.testing.assert_allclose(logits(time) - first, np.tile(summed, (6, 1)), atol=1e-5)
    with pytest.raises(ValueError, match="one step at a time"):
        PPAP.predict(changed, {**data, "time": jnp.zeros(6, jnp.int32)}, ctx)


def test_only_experts_learn_and_masked_rows_teach_nothing(begun: Any):
    data = batch()
    value, slopes = jax.device_get(learned(begun.params, data))
    assert not any(np.any(x) for x in jax.tree.leaves(slopes["model"]))
    for n in range(3):
        added = jax.tree.map(lambda x, n=n: x[n], slopes["experts"]["adapters"])
        assert np.any(added["conv0"]["lora_b"])
        assert not np.any(added["conv0"]["lora_a"])  # B is zero
        assert np.any(slopes["experts"]["own"]["norm0"]["bias"][n])
    assert "head" not in slopes["experts"]["own"]
    data["image"][5] = 3.0
    np.testing.assert_allclose(value, learned(begun.params, data)[0], rtol=1e-6)
    assert value > 0
    with pytest.raises(ValueError, match="batch_size=5"):
        PPAP.loss(begun, {k: x[:5] for k, x in data.items()}, context())


def test_each_expert_sees_noise_of_its_range_only():
    edges = [-(-n * NOISE.steps // 3) for n in range(4)]
    experts = np.asarray(jax.jit(PPAP.range_of)(np.arange(100))).tolist()
    assert experts == [n for n in range(3) for _ in range(edges[n], edges[n + 1])]


def test_norms_and_biases_are_apart_from_kernels():
    tree = {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}, "c": {"scale": 4}}
    assert non_kernels(tree) == {"a": {"bias": 2}, "c": {"scale": 4}}
    assert replaced(tree, non_kernels(tree)) == tree
    assert replaced(tree, {"a": {"bias": 9}})["a"] == {"kernel": 1, "bias": 9}


def test_arrays_of_a_file(tmp_path: Path):
    path = str(tmp_path / "x.npz")
    np.savez(path, image=np.arange(8).reshape(4, 2), label=np.array([1, 0, 1, 1], np.int32))
    source = Npz(path, class_names=("a", "b"))
    assert len(source) == 4
    assert source.info.num_classes == 2
    np.testing.assert_array_equal(source[2]["image"], [4, 5])
    np.testing.assert_array_equal(source.__getitems__([1, 0])["label"], [0, 1])
    assert list(Npz(path, ("label",))[0]) == ["label"]
    before = source.fingerprint()
    np.savez(path, image=np.arange(8).reshape(4, 2), label=np.array([1, 0, 0, 1], np.int32))
    assert Npz(path, class_names=("a", "b")).fingerprint() != before
    np.savez(path, image=np.zeros((4, 2)), label=np.zeros(3))
    with pytest.raises(DataError, match="different lengths"):
        len(Npz(path))
    with pytest.raises(DataError, match="no array 'mask'; it has image, label"):
        len(Npz(path, ("mask",)))
    np.savez(path, image=np.array([{}], object))
    with pytest.raises(DataError, match="no readable"):
        len(Npz(path))


class Line(nn.Module):
    """A denoiser of one number, quickly compiled."""

    @nn.compact
    def __call__(self, x: Any, time: Any, *, train: bool = False, tap: Any = None) -> Any:
        share = self.param("share", nn.initializers.constant(0.6), ())
        return x.mean((1, 2)), {"noise": share * x}


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    def run(model: Any, objective: Any) -> Any:
        values = [spec(BatchValueRange, low=-1, high=1)]
        data = spec(TrainData, source=spec(Digits), batch_size=8, batch_ops=values, threads=0)
        learn = spec(
            Optimizer,
            method=spec(adamw),
            learning_rate=1e-2,
            rules=[spec(ParameterRule, pattern=".*")],
        )
        return spec(
            Experiment,
            data=data,
            model=model,
            objective=objective,
            optimizer=learn,
            total="1 steps",
        )

    noise = spec(Diffusion, steps=100)
    made: Any = {
        "run_of": "stage:diffusion",
        "count": 12,
        "diffusion": noise,
        "steps": 3,
        "batch_size": 8,
    }
    led: Any = {**made, "guide": "stage:classifier", "judge": "stage:classifier"}
    config = spec(
        Scenario,
        stages=[
            spec(Stage, name="diffusion", do=run(spec(Line), spec(Denoise, diffusion=noise))),
            spec(
                Stage,
                name="classifier",
                do=run(spec(PlainConv, width=4, depth=1, head_zero_init=False), spec(Classify)),
            ),
            spec(Stage, name="free", do=spec(Sampled, **made)),
            spec(Stage, name="led", do=spec(Sampled, scale=50.0, **led)),
            spec(Stage, name="not_led", do=spec(Sampled, scale=0.0, **led)),
        ],
    )
    workdir = tmp_path_factory.mktemp("ppap") / "w"
    stages.check(config)
    return workdir, dict(stages.train(config, workdir, progress_s=math.inf).metrics)


def test_a_scale_of_zero_gives_the_free_images_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batch = {"image": np.zeros((8, 8, 8, 1), np.float32)}
    classifier = Classify(PlainConv(width=4, depth=1, num_classes=10))
    runs = {"classifier": untrained(classifier, batch)}
    runs["diffusion"] = untrained(Denoise(Line(), NOISE), batch)
    monkeypatch.setattr(sampled, "load_run", lambda folder: runs[str(folder)])
    made: Any = {"run_of": "diffusion", "count": 12, "diffusion": NOISE, "steps": 3}
    led: Any = {**made, "guide": "classifier", "judge": "classifier"}
    jobs = {
        "free": Sampled(**made, batch_size=8),
        "led": Sampled(**led, batch_size=8, scale=50.0),
        "not_led": Sampled(**led, batch_size=8, scale=0.0),
    }
    metrics = {}
    for name, job in jobs.items():
        (tmp_path / name).mkdir()
        values = job.run(tmp_path / name)
        metrics |= {f"{name}/{key}": value for key, value in values.items()}
    assert_free_and_led(tmp_path, metrics)


@pytest.mark.slow
def test_trained_runs_lead_as_a_scenario(gone: tuple[Path, dict[str, float]]):
    assert_free_and_led(*gone)


def assert_free_and_led(workdir: Path, metrics: dict[str, float]) -> None:
    free, led, not_led = (
        dict(np.load(workdir / name / "images.npz")) for name in ("free", "led", "not_led")
    )
    assert free["image"].shape == (12, 8, 8, 1)
    assert free["image"].dtype == np.uint8
    assert "label" not in free
    np.testing.assert_array_equal(not_led["image"], free["image"])
    np.testing.assert_array_equal(not_led["label"], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    assert np.any(led["image"] != free["image"])
    assert len(np.unique(free["image"].reshape(12, -1), axis=0)) == 12
    assert metrics["led/judged"] > metrics["not_led/judged"]
