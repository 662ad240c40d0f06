"""Prefix conditioning: identities of its parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.prefix_conditioning.method import Unlabelled, prefixed
from vision.blocks.contrast import Softmax
from vision.blocks.sharded_contrast import Modality, compare
from vision.blocks.similarity import Dot, unit
from vision.data import ops
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops.classes import LabelToCaption
from vision.data.sources.arrays import Arrays
from vision.data.tokenizers import WordTokenizer
from vision.models.bag_of_words import BagOfWords
from vision.objectives.contrast import OwnPair, SameKey

WORDS = WordTokenizer(("a", "cat", "dog", "sleeps"), length=8)


def test_batches_are_of_one_source_and_say_which():
    captions = Arrays({"caption": np.array(["a cat sleeps", "a dog"] * 4)}, "captions")
    labels = Arrays({"label": np.arange(8, dtype=np.int32) % 2}, "labels")
    tokenize = {name: ops.Tokenize(prefixed(WORDS, name)) for name in ("captions", "labels")}  # pyright: ignore[reportArgumentType]
    parts = (
        MixturePart(captions, ops=(Unlabelled(), tokenize["captions"])),
        MixturePart(labels, ops=(LabelToCaption(("cat", "dog"), ("a {}",)), tokenize["labels"])),
    )
    data = Mixture(parts, batch_size=4, pure=True, threads=0)
    loader = data.loader(seed=0)
    for _ in range(4):
        batch = next(loader)
        (source,) = set(batch["_source"].tolist())
        assert (batch["text"][:, 0] == WORDS.vocab_size + source).all()
        assert (batch["label"] == -1).all() if source == 0 else (batch["label"] >= 0).all()
    loader.close()


def test_equal_prefixes_are_none():
    texts = ["a cat sleeps", "a dog"]
    tower = BagOfWords(vocab_size=WORDS.vocab_size + 2, width=4)
    params: Any = tower.init(jax.random.key(0), jnp.asarray(WORDS.encode(texts)))["params"]
    table = params["token_embed"]["embedding"]
    table = table.at[WORDS.vocab_size :].set(table[WORDS.bos_id])
    params = {**params, "token_embed": {"embedding": table}}

    def embedded(tokenizer):
        return tower.apply({"params": params}, jnp.asarray(tokenizer.encode(texts)))[0]  # pyright: ignore

    for name in ("captions", "labels"):
        np.testing.assert_array_equal(embedded(prefixed(WORDS, name)), embedded(WORDS))


def test_unicl_of_captions_alone_is_clip_and_of_labels_sums_over_the_class():
    keys = jax.random.split(jax.random.key(1))
    image, text = (unit(jax.random.normal(key, (8, 6))) for key in keys)
    valid = jnp.ones(8, bool)

    def loss(targets, label):
        key = targets.keys({"label": label, "_mask": valid})
        sides = (Modality({"embedding": x}, key, valid) for x in (image, text))
        scale = jnp.float32(7), jnp.float32(0)
        return float(jax.jit(lambda *x: compare(Softmax(), Dot(), scale, *x).loss)(*sides))

    alone = jnp.full(8, -1, jnp.int32)
    assert loss(SameKey(), alone) == pytest.approx(loss(OwnPair(), alone), rel=1e-6)
    label = np.array([0, 1, 0, 2, 1, 0, 3, 2], np.int32)
    scores = 7 * np.asarray(image, np.float64) @ np.asarray(text, np.float64).T
    same = label[:, None] == label
    total = 0.0
    for s in (scores, scores.T):
        log = s - np.log(np.exp(s).sum(1, keepdims=True))
        total -= np.mean((log * same).sum(1) / same.sum(1)) / 2
    np.testing.assert_allclose(loss(SameKey(), jnp.asarray(label)), total, rtol=1e-5)
