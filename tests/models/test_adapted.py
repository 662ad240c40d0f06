"""Towers with adapters, prompts and frozen statistics, and what a step makes of them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tower_cases import abstract_variables, quick_jit, random_variables
from tests.tiny import first_state
from vision.blocks.adapters import Lora
from vision.checkpoint.reading import flatten
from vision.config.schema import ConfigError
from vision.models.adapted import AdaptedTower, Prompts, merged
from vision.models.dual import Dual
from vision.models.resnet import ResNet
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.run.compile import memory as bytes_of
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import Tap, forward, initialise

Tiny = functools.partial(ViT, width=16, depth=2, heads=2, patch=8, mlp_dim=24, num_classes=3)
SHAPE = (4, 16, 16, 3)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
LORA, DORA = Lora(rank=2), Lora(rank=2, magnitude=True)
HEAD = (ParameterRule("/head/"), ParameterRule(".*", learning_rate=0.0))


def call(tower: Any, variables: Any, **kwargs: Any) -> Any:
    """``(out, state)`` of one call."""
    run = quick_jit(lambda v, x: forward(tower, *v, x, **{"train": False, **kwargs})[1:])
    return run(variables, IMAGES)


def fresh(tower: AdaptedTower) -> Any:
    """The tuned tower as at the start of a run that read all of its tower from a file."""
    base, inner = random_variables(tower.tower, SHAPE)

    def added(key: jax.Array, images: jax.Array) -> Any:
        params, _ = initialise(tower, key, images)
        return {name: tree for name, tree in params.items() if name != "tower"}

    params = quick_jit(added)(jax.random.key(0), IMAGES)
    state = {name: {"tower": tree} for name, tree in inner.items()}
    return {**params, "tower": base}, state


@pytest.mark.parametrize("adapter", [LORA, DORA])
def test_initial_adapters_change_nothing_and_merge_into_a_plain_tower(adapter: Lora):
    tuned = AdaptedTower(Tiny(), (adapter,))
    params, state = fresh(tuned)
    plain = call(tuned.tower, (params["tower"], {}))[0]
    out = call(tuned, (params, state))[0]
    assert out.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5, err_msg=name)
    rng = np.random.default_rng(1)
    shaken = {
        **params,
        "adapters": jax.tree.map(
            lambda x: x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), params["adapters"]
        ),
    }
    other = call(tuned, (shaken, state))[0]["logits"]
    assert np.abs(other - out["logits"]).max() > 0.1
    tower, variables = merged(tuned, {"params": shaken, "model_state": state})
    assert tower == tuned.tower
    again = call(tower, (variables["params"], variables["model_state"]))[0]["logits"]
    np.testing.assert_allclose(again, other, rtol=0, atol=1e-6)


def test_only_the_head_is_trained_and_has_optimizer_state():
    actual: dict[str, Any] = {}
    batch = {"image": IMAGES, "label": jnp.asarray([0, 1, 2, 0]), "_mask": jnp.ones(4, bool)}
    for name, tower, rules in (
        ("all", Tiny(), (ParameterRule(".*"),)),
        ("head", AdaptedTower(Tiny()), HEAD),
    ):
        optimizer = Optimizer(adamw(), 0.1, weight_decay=0.1, rules=rules)
        step = Step(Classify(tower), optimizer, TrainLength(4, 4, total_steps=2))
        abstract = jax.eval_shape(step.init, batch)
        lowered = jax.jit(step.update).lower(abstract, batch)
        compiled = lowered.compile({"xla_backend_optimization_level": "0"})
        state = before = first_state(abstract)
        for _ in range(2):
            state, _ = compiled(state, batch)
        moved = {
            key
            for key, x in flatten(before.params).items()
            if (np.asarray(x) != np.asarray(flatten(state.params)[key])).any()
        }
        memory = sum(x.size for x in jax.tree.leaves(state.opt_state))
        actual[name] = (moved, memory, bytes_of(compiled)["temporaries"], before.params)
    head = {"model.tower.head.kernel", "model.tower.head.bias"}
    moved, memory, temporaries, params = actual["head"]
    assert moved == head
    head_size = sum(x.size for x in jax.tree.leaves(params["model"]["tower"]["head"]))
    assert memory == 2 * head_size + 2  # two moments; Adam and the optimizer count
    # Neither gradients nor activations for them are kept for what is frozen.
    assert temporaries < 0.5 * actual["all"][2]


def test_shallow_prompts_are_tokens_without_a_position():
    """As the registers of the same ViT, which stand elsewhere but that makes no difference."""
    tower = AdaptedTower(Tiny(), prompts=Prompts(3, deep=False))
    params, _ = fresh(tower)
    out = call(tower, (params, {}))[0]
    with_registers = {**params["tower"], "registers": params["prompts"]}
    expected = call(Tiny(registers=3), (with_registers, {}))[0]
    np.testing.assert_allclose(out["logits"], expected["logits"], atol=1e-5)
    assert out["tokens"].shape == (4, 5, 16)
    assert "map" in out


def test_deep_prompts_are_new_before_every_block():
    tower = AdaptedTower(Tiny(), prompts=Prompts(3))
    params, _ = fresh(tower)
    assert params["prompts"].shape == (2, 3, 16)
    seen = {}

    def look(name: str, x: jax.Array) -> jax.Array:
        seen[name] = x
        return x

    def total(prompts: jax.Array) -> Any:
        given = {**params, "prompts": prompts}
        embedding, out, _ = forward(tower, given, {}, IMAGES, train=False, tap=Tap(look))
        return embedding.sum(), out

    grad, out = quick_jit(jax.grad(total, has_aux=True))(params["prompts"])
    assert {"stem", "block00", "block00/attention", "tokens", "logits"} <= seen.keys()
    for i, site in enumerate(("stem", "block00")):
        np.testing.assert_array_equal(out[site][:, -3:], jnp.stack([params["prompts"][i]] * 4))
    shallow = AdaptedTower(Tiny(), prompts=Prompts(3, deep=False))
    first = {**params, "prompts": params["prompts"][:1]}
    assert np.abs(call(shallow, (first, {}))[0]["logits"] - out["logits"]).max() > 1e-3
    assert (np.abs(grad).max((1, 2)) > 0).all()


def test_frozen_statistics_are_used_and_not_updated():
    tower = ResNet(depth=10, width_multiplier=1 / 16, stem="cifar", num_classes=3)
    tuned = AdaptedTower(tower, frozen_statistics=True)
    params, state = fresh(tuned)
    out, after = call(tuned, (params, state), train=True)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    inner = {"batch_stats": state["batch_stats"]["tower"]}
    plain, same = call(tower, (params["tower"], inner))
    np.testing.assert_allclose(out["logits"], plain["logits"], atol=1e-5)
    free = AdaptedTower(tower)
    other, moved = call(free, (params, state), train=True)
    assert np.abs(other["logits"] - plain["logits"]).max() > 0.01
    expected = call(tower, (params["tower"], inner), train=True)[1]["batch_stats"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, moved["batch_stats"]["tower"], expected)
    assert flatten(same).keys() == flatten(inner).keys()


def test_parts_of_dual_encoders_and_convolutions():
    text = TextTransformer(vocab_size=5, width=8, depth=2, heads=2, context=4)
    dual = Dual(Tiny(num_classes=None), text, width=8)
    tuned = AdaptedTower(
        dual, (Lora(pattern="^image/.*qkv/kernel", rank=2),), Prompts(2, side="image/")
    )
    given = {
        "image": jax.ShapeDtypeStruct(SHAPE, jnp.float32),
        "text": jax.ShapeDtypeStruct((4, 4), jnp.int32),
    }
    params, state = jax.eval_shape(functools.partial(initialise, tuned), jax.random.key(0), given)
    assert list(flatten(params["adapters"])) == [
        "image.blocks.attn.qkv.lora_a",
        "image.blocks.attn.qkv.lora_b",
    ]
    assert params["adapters"]["image"]["blocks"]["attn"]["qkv"]["lora_a"].shape == (2, 16, 2)
    out = jax.eval_shape(lambda p, x: forward(tuned, p, state, x, train=False)[1], params, given)
    assert out["image/embedding"].shape == out["text/embedding"].shape == (4, 8)
    assert out["image/stem"].shape == (4, 7, 16)
    within = Dual(AdaptedTower(Tiny(num_classes=None), (LORA,)), text, width=8)
    params, state = jax.eval_shape(functools.partial(initialise, within), jax.random.key(0), given)
    assert params["image"].keys() == {"tower", "adapters"}
    out = jax.eval_shape(lambda p, x: forward(within, p, state, x, train=False)[1], params, given)
    assert out["image/embedding"].shape == (4, 8)
    tower = ResNet(depth=10, width_multiplier=1 / 16, num_classes=3)
    params, _ = abstract_variables(AdaptedTower(tower, (Lora(pattern="conv2/", rank=2),)), SHAPE)
    assert params["adapters"]["block00"]["conv2"]["lora_a"].shape == (3, 3, 4, 2)


def test_the_number_of_classes_reaches_the_tower():
    assert AdaptedTower(Tiny(num_classes=None), num_classes=7).tower.num_classes == 7
    assert AdaptedTower(Tiny(num_classes=5), num_classes=7).tower.num_classes == 5


def test_errors():
    tower = ResNet(depth=10, width_multiplier=1 / 16, num_classes=3)
    with pytest.raises(ValueError, match="but stem of ResNet has none"):
        abstract_variables(AdaptedTower(tower, prompts=Prompts()), SHAPE)
    with pytest.raises(ConfigError, match="applies to no kernel of the tower"):
        abstract_variables(AdaptedTower(tower, (LORA,)), SHAPE)
    with pytest.raises(ValueError, match="prompts cannot be merged"):
        merged(AdaptedTower(Tiny(), prompts=Prompts()), {"params": {}, "model_state": {}})
    with pytest.raises(ValueError, match="tokens is 0, expected a whole number >= 1"):
        Prompts(0)
