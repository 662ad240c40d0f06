"""The dual encoder: one space, either side alone, captions, taps, layouts, a frozen side."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from tower_cases import quick_jit

from tests.tiny import drawn, first_state
from vision.blocks.similarity import LateInteraction
from vision.models.dual import Dual
from vision.models.resnet import ResNet
from vision.models.text import TextTransformer
from vision.models.vit import TENSOR_PARALLEL, ViT
from vision.objectives.contrast import Contrast
from vision.parallel.mesh import Mesh, ShardingRule, path_of, state_shardings
from vision.train.flops import count
from vision.train.optim import DECAY_KERNELS, Optimizer, ParameterRule, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import Tap, forward, initialise

ROWS, TOKENS, VOCAB = 8, 6, 20
IMAGE = ViT(width=16, depth=2, heads=2, patch=4, pool="mean")
TEXT = TextTransformer(VOCAB, width=8, depth=1, heads=2, context=TOKENS)
DUAL = Dual(IMAGE, TEXT, width=12)


def batch(captions: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shape = (ROWS, TOKENS) if captions is None else (ROWS, captions, TOKENS)
    ids = rng.integers(1, VOCAB, shape).astype(np.int32)
    ids[..., 4:] *= rng.random((*shape[:-1], 2)) > 0.5
    image = rng.normal(size=(ROWS, 8, 8, 3)).astype(np.float32)
    return {"image": image, "text": ids, "_mask": np.ones(ROWS, bool)}


def inputs(**kwargs: Any) -> dict[str, Any]:
    return {k: v for k, v in batch(**kwargs).items() if k != "_mask"}


@functools.cache
def variables() -> Any:
    return drawn(functools.partial(initialise, DUAL), inputs())


@functools.cache
def _compiled(tower: Dual, tap: Tap | None) -> Any:
    return quick_jit(lambda v, x: forward(tower, *v, x, train=False, tap=tap)[1])


def apply(x: Any, tower: Dual = DUAL, tap: Tap | None = None) -> Any:
    return _compiled(tower, tap)(variables(), x)  # pyright: ignore[reportArgumentType]


@functools.cache
def plain() -> Any:
    return apply(inputs())


def test_names_and_unit_vectors():
    out, params = plain(), variables()[0]
    assert set(params) == {"image", "text", "image_projection", "text_projection"}
    assert {name.partition("/")[0] for name in out} == {"image", "text"}
    assert {"image/block01/mlp", "image/map", "text/block00/attn", "text/mask"} <= out.keys()
    for side in ("image", "text"):
        embedding = out[f"{side}/embedding"]
        assert embedding.shape == (ROWS, 12)
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, rtol=1e-5)
        projected = out[f"{side}/pooled"] @ params[f"{side}_projection"]["kernel"]
        cosine = (projected * embedding).sum(-1) / np.linalg.norm(projected, axis=-1)
        np.testing.assert_allclose(cosine, 1, rtol=1e-5)


def test_either_side_alone_and_several_captions():
    for side in ("image", "text"):
        alone = apply({side: inputs()[side]})
        assert all(name.startswith(side) for name in alone)
        np.testing.assert_allclose(
            alone[f"{side}/embedding"], plain()[f"{side}/embedding"], atol=1e-6
        )
    ids = inputs(captions=2)["text"]
    several = apply({"text": ids})
    assert several["text/embedding"].shape == (ROWS, 2, 12)
    assert several["text/mask"].shape == ids.shape
    assert several["text/tokens"].shape == (ROWS, 2, TOKENS, 8)
    second = apply({"text": ids[:, 1]})["text/embedding"]
    np.testing.assert_allclose(several["text/embedding"][:, 1], second, atol=1e-6)
    with pytest.raises(ValueError, match="called with image, text or both, not audio"):
        forward(DUAL, *variables(), {"audio": ids}, train=False)


def test_taps_see_the_entries_of_out():
    seen: list[str] = []

    def note(name: str, x: jax.Array) -> jax.Array:
        seen.append(name)
        return x * 0 if name == "text/stem" else x

    tower = Dual(IMAGE, TEXT, width=12, tokens=True)
    sites = "image/stem|text/.*"
    out = apply(inputs(), tower, Tap(note, sites))
    assert len(seen) == len(set(seen))
    assert {name for name in seen if name.startswith("image")} == {"image/stem"}
    touched = {name for name in seen if name.startswith("text/")}
    assert touched == {name for name in out if name.startswith("text/")} - {"text/mask"}
    # All texts are alike now, and the images as before.
    assert np.ptp(out["text/embedding"][:, 0]) < 1e-6
    np.testing.assert_allclose(out["image/embedding"], plain()["image/embedding"], atol=1e-6)


@pytest.mark.slow
def test_late_interaction_reads_projected_tokens():
    tower = Dual(IMAGE, TEXT, width=12, tokens=True)
    out = apply(inputs(), tower)
    assert out["image/tokens"].shape == (ROWS, 4, 12)
    assert out["text/tokens"].shape == (ROWS, TOKENS, 12)
    np.testing.assert_allclose(np.linalg.norm(out["text/tokens"], axis=-1), 1, rtol=1e-5)
    objective = Contrast(tower, similarity=LateInteraction())
    step = the_step(objective)
    state = first_state(jax.eval_shape(step.init, batch()))
    _, metrics = quick_jit(step.update)(state, batch())
    assert np.isfinite(metrics["loss"])


def test_widths_have_to_agree():
    for tower in (Dual(IMAGE, TEXT, width=None), Dual(IMAGE, TEXT, 12, image_projection=False)):
        with pytest.raises(ValueError, match="the image's embedding has 16 numbers"):
            jax.eval_shape(lambda t=tower: initialise(t, jax.random.key(0), inputs()))
    equal = Dual(IMAGE, TEXT, width=16, image_projection=False)
    params, _ = jax.eval_shape(lambda: initialise(equal, jax.random.key(0), inputs()))
    assert set(params) == {"image", "text", "text_projection"}


def the_step(objective: Any, *rules: ParameterRule) -> Step:
    optimizer = Optimizer(adamw(), 1e-2, rules=(*rules, *DECAY_KERNELS))
    return Step(objective, optimizer, TrainLength(ROWS, ROWS, total_steps=10))


def test_lit_freezes_the_image_tower_by_a_rule_alone():
    """Not a bit of it moves, and its backward pass is not computed."""
    frozen = the_step(Contrast(DUAL), ParameterRule("model/image/", learning_rate=0))
    trained = the_step(Contrast(DUAL))
    compiled = {}
    for name, step in (("frozen", frozen), ("trained", trained)):
        state = first_state(jax.eval_shape(step.init, batch()))
        compiled[name] = quick_jit(step.update).lower(state, batch()).compile()
    state = first_state(jax.eval_shape(frozen.init, batch()))
    before = jax.device_get(state.params)
    for _ in range(3):
        state, _ = compiled["frozen"](state, batch())
    for path, new in jax.tree_util.tree_leaves_with_path(jax.device_get(state.params)):
        old = functools.reduce(lambda tree, key: tree[key.key], path, before)
        still = path_of(path).startswith("model/image/")
        assert np.array_equal(new, old) == still, path_of(path)
    # All that is left of the tower is its forward pass: a third of its share, or a little more,
    # since no gradient of the images is asked for.
    params, images = variables()[0]["image"], batch()["image"]

    def image_tower(x: jax.Array) -> jax.Array:
        return forward(IMAGE, params, {}, x, train=False)[0]

    once = count(image_tower, images)
    saved = trained.flops(state, batch()) - frozen.flops(state, batch())
    assert 1.7 * once < saved <= 2 * once
    programs: dict[str, Any] = {"once": jax.jit(image_tower).lower(images).compile(), **compiled}
    counted = {name: program.cost_analysis()["flops"] for name, program in programs.items()}
    assert counted["trained"] - counted["frozen"] > 1.2 * counted["once"]


def test_the_rules_of_the_vit_fit_both_towers():
    variables = jax.eval_shape(lambda: initialise(DUAL, jax.random.key(0), inputs()))
    # Small arrays would stay whole.
    rules = (*TENSOR_PARALLEL[:-1], ShardingRule(".*", "fsdp", min_size=64))
    params, _ = state_shardings(variables, Mesh(data=2, fsdp=2, tensor=2).build(), rules)
    image, text = (
        params[side]["blocks"]["attn"]["qkv"]["kernel"].spec for side in ("image", "text")
    )
    assert image == text
    assert "tensor" in str(text)


def test_a_convolutional_image_tower_keeps_its_statistics():
    tower = Dual(ResNet(depth=10, width_multiplier=0.125), TEXT, width=12)
    x = {**inputs(), "image": np.ones((2, 32, 32, 3), np.float32), "text": inputs()["text"][:2]}
    params, state = jax.eval_shape(lambda: initialise(tower, jax.random.key(0), x))
    assert set(state["batch_stats"]) == {"image"}
    assert "text_projection" in params
