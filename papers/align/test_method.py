"""ALIGN: the rules that clean alt-texts, its loss, and its optimizer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.align.method import AltTextRules, lamb
from vision.blocks.contrast import Pairs, Softmax, contrast
from vision.blocks.scale import Scale

GOOD = "a good caption"


def removed(rules: AltTextRules, images, sizes, texts, **more) -> dict[str, list[int]]:
    flags_by_rule = rules(images, np.asarray(sizes), texts, **more)
    return {
        name: np.flatnonzero(flags).tolist() for name, flags in flags_by_rule.items() if flags.any()
    }


def test_images():
    sizes = [(201, 300), (200, 300), (300, 900), (899, 300), (400, 400)]
    texts = [f"{GOOD} {i}" for i in range(5)]
    rows = removed(AltTextRules(), "abcde", sizes, texts, tests={"e"})
    assert rows == {"small": [1], "elongated": [2], "test_image": [4]}
    many = removed(
        AltTextRules(texts_per_image=2), "aaabb", [(300, 300)] * 5, ["a b c", *texts[1:]]
    )
    assert many == {"many_texts": [0, 1, 2]}


def test_texts():
    texts = ["Buy it now", "buy it  now", "buy it now", "two words", "a b c d e f", GOOD]
    rows = removed(AltTextRules(images_per_text=2, words=(3, 5)), range(6), [(300, 300)] * 6, texts)
    assert rows == {"many_images": [0, 1, 2], "length": [3, 4]}
    # Three pairs of the same image are one image.
    same = removed(AltTextRules(images_per_text=2), [0, 0, 0], [(300, 300)] * 3, [GOOD] * 3)
    assert same == {}


def test_rare_words_and_pairs_of_words():
    texts = ["red cat sat", "red cat sat", "cat red sat", "red cat zebra"]
    # Five grams come twice or more: red, cat, sat, red cat; and "cat sat".
    rows = removed(AltTextRules(grams=5), range(4), [(300, 300)] * 4, texts)
    assert rows == {"rare_words": [2, 3]}


def test_the_loss_is_two_smoothed_cross_entropies():
    scores = np.random.default_rng(0).uniform(-1, 1, (4, 4))
    criterion = Softmax(Scale(1.0, 100.0, form="temperature"), 0.1, (1.0, 1.0))
    params = {name: np.float32(x) for name, x in criterion.parameters().items()}

    @jax.jit
    def loss(params: Any, scores: jax.Array) -> jax.Array:
        pairs = Pairs(scores, scores, jnp.eye(4), jnp.ones((4, 4), bool))
        return contrast(criterion, params, pairs).loss

    target = 0.9 * np.eye(4) + 0.1 / 4
    total = 0.0
    for s in (scores, scores.T):
        total -= np.mean((target * (s - np.log(np.exp(s).sum(1, keepdims=True)))).sum(1))
    assert float(loss(params, scores)) == pytest.approx(total, rel=1e-5)


def test_an_update_is_as_long_as_the_parameter():
    params = {"a": np.array([3, 4], np.float32), "b": np.array([[0.1], [-0.2]], np.float32)}
    gradient = jax.tree.map(lambda x: 1e3 * x + 1, params)
    method = lamb()
    update = jax.jit(lambda gradient, params: method.update(gradient, method.init(params), params))
    updates, _ = update(gradient, params)
    for name, x in params.items():
        length = np.linalg.norm(np.asarray(updates[name]))  # pyright: ignore
        np.testing.assert_allclose(length, np.linalg.norm(x), rtol=1e-5)
