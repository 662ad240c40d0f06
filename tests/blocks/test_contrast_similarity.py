"""Similarities: late interaction, best parts, pruning of tokens."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.contrast import Softmax
from vision.blocks.sharded_contrast import Modality, compare, fingerprint, share_caption
from vision.blocks.similarity import (
    BestPart,
    ContrastError,
    Dot,
    LateInteraction,
    chunks,
    unchunk,
    unit,
)


def tokens(rows: int, count: int, seed: int, width: int = 6) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, count, width)).astype(np.float32)


def all_scores(similarity, image, text):
    return similarity(*similarity.prepare(image, text))


def test_late_interaction_is_the_written_formula_and_padding_changes_nothing():
    image, text = tokens(3, 5, 0), tokens(4, 7, 1)
    length = np.array([7, 1, 4, 2])
    mask = np.arange(7) < length[:, None]
    f = image / np.linalg.norm(image, axis=-1, keepdims=True)
    g = text / np.linalg.norm(text, axis=-1, keepdims=True)
    to_text, to_image = np.zeros((3, 4)), np.zeros((3, 4))
    for i in range(3):
        for j in range(4):
            cosines = f[i] @ g[j, : length[j]].T
            to_text[i, j], to_image[i, j] = cosines.max(1).mean(), cosines.max(0).mean()
    actual = all_scores(LateInteraction(), {"tokens": image}, {"tokens": text, "mask": mask})
    np.testing.assert_allclose(actual[0], to_text, atol=1e-6)
    np.testing.assert_allclose(actual[1], to_image, atol=1e-6)
    garbage = np.where(mask[..., None], text, 1e6)
    again = all_scores(LateInteraction(), {"tokens": image}, {"tokens": garbage, "mask": mask})
    np.testing.assert_array_equal(actual, again)


def test_one_token_each_is_the_cosine():
    image, text = tokens(3, 1, 0), tokens(4, 1, 1)
    cosine, _ = Dot()({"embedding": unit(image[:, 0])}, {"embedding": unit(text[:, 0])})
    for actual in all_scores(LateInteraction(), {"tokens": image}, {"tokens": text}):
        np.testing.assert_allclose(actual, cosine, atol=1e-6)


def test_items_without_tokens_have_zero_similarity_and_finite_gradients():
    image, text = tokens(2, 3, 0), tokens(2, 4, 1)
    mask = np.array([[True] * 4, [False] * 4])

    def total(image, text):
        both = all_scores(LateInteraction(), {"tokens": image}, {"tokens": text, "mask": mask})
        return sum(map(jnp.sum, both)), both

    step = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, both), grads = step(image, 0 * text)
    assert not np.any(np.asarray(both)[:, :, 1])
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_pruning_keeps_the_best_matching_tokens():
    rng = np.random.default_rng(0)
    axes = np.eye(8, dtype=np.float32)
    # Words use axes 0-3; only two patches of each image do, at random places.
    text: Any = {"tokens": axes[rng.integers(0, 4, (5, 3))], "mask": np.ones((5, 3), bool)}
    patches: Any = axes[rng.integers(4, 8, (6, 10))]
    where = np.stack([rng.choice(10, 2, replace=False) for _ in range(6)])
    for i in range(6):
        patches[i, where[i]] = text["tokens"][i % 5, :2]
    kept, words = LateInteraction(chunk=2, keep=0.2).prepare({"tokens": patches}, text)
    assert kept["tokens"].shape == (6, 2, 8)
    assert words["tokens"].shape == (5, 1, 8)
    expected = np.take_along_axis(patches, np.sort(where)[:, :, None], 1)
    np.testing.assert_array_equal(np.sort(kept["tokens"], 1), np.sort(expected, 1))


def test_pruning_never_prefers_padding():
    text: Any = {"tokens": tokens(3, 8, 1), "mask": np.arange(8) < np.array([[2], [8], [1]])}
    _, words = LateInteraction(keep=0.25).prepare({"tokens": tokens(3, 4, 0)}, text)
    np.testing.assert_array_equal(words["mask"].sum(1), [2, 2, 1])


def test_best_part_takes_the_best_region_and_the_best_caption():
    image, text = tokens(3, 4, 0), tokens(5, 2, 1)
    present: Any = np.array([[True, True]] * 4 + [[False, True]])
    expected = np.einsum("ird,jcd->ijrc", image, text)
    expected = np.einsum("ird,jcd->ijrc", image, text)
    expected = np.where(present[None, :, None, :], expected, -1.0).max((2, 3))
    actual, _ = BestPart()({"embedding": image}, {"embedding": text, "present": present})
    np.testing.assert_allclose(actual, np.maximum(expected, -1.0), atol=1e-5)
    single_part, _ = BestPart()({"embedding": image[:, 0]}, {"embedding": text[:, 0]})
    np.testing.assert_allclose(single_part, np.maximum(image[:, 0] @ text[:, 0].T, -1), atol=1e-5)


@pytest.mark.parametrize("similarity", [Dot(), BestPart(), LateInteraction()], ids=str)
def test_different_widths_are_an_error_that_names_both(similarity):
    name = "tokens" if isinstance(similarity, LateInteraction) else "embedding"
    shape = (2, 1) if name == "tokens" else (2,)
    with pytest.raises(ContrastError, match=r"12 numbers .* 16"):
        all_scores(similarity, {name: jnp.ones((*shape, 12))}, {name: jnp.ones((*shape, 16))})


def sides(image, text):
    rows = len(image)
    mask = jnp.arange(text.shape[1]) < 1 + jnp.arange(rows)[:, None] % text.shape[1]
    key, valid = jnp.arange(rows), jnp.ones(rows, bool)
    return Modality({"tokens": image}, key, valid), Modality(
        {"tokens": text, "mask": mask}, key, valid
    )


def test_chunks_give_the_same_loss_and_gradients_in_less_memory():
    image, text = jnp.asarray(tokens(30, 8, 0)), jnp.asarray(tokens(30, 8, 1))

    def run(chunk):
        def f(image, text):
            coefficients = (jnp.float32(5), jnp.float32(0))
            similarity = LateInteraction(chunk)
            return compare(Softmax(), similarity, coefficients, *sides(image, text)).loss

        compiled = jax.jit(jax.value_and_grad(f, (0, 1))).lower(image, text).compile()
        plan: Any = compiled.memory_analysis()
        return compiled(image, text), plan.temp_size_in_bytes

    (dense, dense_bytes), (chunked, chunked_bytes) = run(None), run(4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), dense, chunked)
    assert chunked_bytes < 30 * 30 * 8 * 8 * 4 < dense_bytes


def test_chunk_round_trip():
    x = jnp.arange(14.0).reshape(7, 2)
    assert chunks(x, 3).shape == (3, 3, 2)
    assert not np.any(chunks(x, 3)[2, 1:])
    np.testing.assert_array_equal(unchunk(chunks(x, 3), 7), x)
    assert chunks(x, None).shape == chunks(x, 100).shape == (1, 7, 2)


def test_fingerprints_differ_between_texts_only():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (4000, 6), np.int32)
    codes = np.asarray(fingerprint(jnp.asarray(ids)))
    assert len(np.unique(codes, axis=0)) == len(np.unique(ids, axis=0))
    _, first, same = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(codes, codes[first][same.ravel()])


def test_rows_share_a_caption_when_any_of_theirs_are_equal():
    a = fingerprint(jnp.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]))
    b = fingerprint(jnp.array([[[9, 9]], [[3, 4]], [[5, 6]]]))
    np.testing.assert_array_equal(share_caption(a, b), [[0, 1, 0], [0, 0, 1]])
