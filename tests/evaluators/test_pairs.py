"""Pair tests by hand, and against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evaluators.linear_dual import TOKENIZER, WIDTH, data, run, texts_of
from vision.data.source import DataError
from vision.evaluators.image_text.pairs import CaptionChoice, CrossedPairs


def crossed(count: int, noise: float) -> tuple[np.ndarray, list[str]]:
    """Images near their captions; the two captions of a pair have the same letters."""
    rng = np.random.default_rng(count)
    texts: list[str] = []
    for _ in range(count):
        letters = rng.choice(list("abcdefghij"), 8)
        texts += ["".join(letters), "".join(rng.permutation(letters))]
    return texts_of(texts) + noise * rng.normal(size=(2 * count, WIDTH)) / np.sqrt(WIDTH), texts


@pytest.mark.parametrize("devices", [1, 8])
def test_equal_to_the_definition(devices: int) -> None:
    image, texts = crossed(50, 1.5)
    got = run(CrossedPairs(data(image=image, text=TOKENIZER.encode(texts))), devices)
    unit, words = image / np.linalg.norm(image, axis=1, keepdims=True), texts_of(texts)
    text, picture = [], []
    for a in range(0, 100, 2):
        c0_i0, c1_i0 = words[a] @ unit[a], words[a + 1] @ unit[a]
        c0_i1, c1_i1 = words[a] @ unit[a + 1], words[a + 1] @ unit[a + 1]
        text.append(c0_i0 > c1_i0 and c1_i1 > c0_i1)
        picture.append(c0_i0 > c0_i1 and c1_i1 > c1_i0)
    assert got["text_score"] == np.mean(text)
    assert got["image_score"] == np.mean(picture)
    assert got["group_score"] == np.mean(np.logical_and(text, picture))
    assert got["pairs"] == 50
    assert 0 < got["group_score"] < min(got["text_score"], got["image_score"]) < 1


def test_text_right_and_image_wrong_by_hand() -> None:
    """Both images prefer their caption, but both captions prefer the first image."""
    c0, c1 = texts_of(["ab", "ba"])
    first = c0 + c1 + 0.3 * (c0 - c1)
    # Far from both captions, and a little nearer to its own.
    away = np.linalg.svd(np.stack([c0, c1]))[2][-1]
    second = away + 0.05 * (c1 - c0)
    ids = TOKENIZER.encode(["ab", "ba"])
    got = run(CrossedPairs(data(image=np.stack([first, second]), text=ids)))
    assert (got["text_score"], got["image_score"], got["group_score"]) == (1, 0, 0)


def test_a_bag_of_words_has_no_preference() -> None:
    """The same caption twice: nothing is greater."""
    image, texts = crossed(10, 0.5)
    texts[1::2] = texts[::2]
    got = run(CrossedPairs(data(image=image, text=TOKENIZER.encode(texts))))
    assert got["text_score"] == got["group_score"] == 0


def test_groups_in_any_order_and_incomplete_ones() -> None:
    image, texts = crossed(12, 1.0)
    complete = run(CrossedPairs(data(image=image, text=TOKENIZER.encode(texts))))
    group = np.repeat(np.arange(12), 2).astype(np.int32)
    mixed = np.random.default_rng(0).permutation(24)
    shuffled: dict[str, Any] = {
        "image": image[mixed],
        "text": TOKENIZER.encode([texts[i] for i in mixed]),
        "group": group[mixed],
    }
    assert run(CrossedPairs(data(**shuffled), "group")) == complete
    short = {name: x[:-1] for name, x in shuffled.items()}
    got = run(CrossedPairs(data(**short), "group"))
    assert (got["pairs"], got["incomplete"]) == (11, 1)
    image[5] = np.inf
    got = run(CrossedPairs(data(image=image, text=TOKENIZER.encode(texts))))
    assert got["nonfinite"] == 1
    assert complete["text_score"] - got["text_score"] in (0, pytest.approx(1 / 12))
    with pytest.raises(DataError, match="made: group 3 has more than two records"):
        run(CrossedPairs(data(**{**shuffled, "group": np.full(24, 3, np.int32)}), "group"))
    with pytest.raises(DataError, match="no two records belong together"):
        run(CrossedPairs(data(**{**shuffled, "group": np.arange(24, dtype=np.int32)}), "group"))
    several = np.stack([shuffled["text"]] * 2, 1)
    with pytest.raises(ValueError, match="one caption per image"):
        run(CrossedPairs(data(image=image, text=several)))


def choices(count: int, noise: float) -> tuple[np.ndarray, list[list[str]]]:
    rng = np.random.default_rng(count)
    texts = [["".join(rng.choice(list("abcdefgh"), 7)) for _ in range(3)] for _ in range(count)]
    right = texts_of([each[0] for each in texts])
    return right + noise * rng.normal(size=right.shape) / np.sqrt(WIDTH), texts


def test_choices_by_kind() -> None:
    image, texts = choices(40, 1.5)
    ids = np.stack([TOKENIZER.encode(each) for each in texts])
    mask = np.ones((40, 3), bool)
    mask[:10, 2] = mask[3, 1] = mask[20, 0] = False
    kind = (np.arange(40) % 2).astype(np.int32)
    given = data(image=image, text=ids, text_mask=mask, swapped=kind)
    got = run(CaptionChoice(given, "swapped", ("colour", "number")), 8)
    right = {}
    for i in range(40):
        scores = (texts_of(texts[i]) @ image[i])[mask[i]]
        if mask[i, 0] and len(scores) > 1:
            right[i] = (scores.argmax() == 0, 1 / len(scores))
    assert got["images"] == len(right) == 38
    assert got["without_choice"] == 2
    assert got["accuracy"] == np.mean([x for x, _ in right.values()])
    assert got["chance"] == pytest.approx(np.mean([x for _, x in right.values()]))
    for k, name in enumerate(("colour", "number")):
        assert got[f"accuracy/{name}"] == np.mean([x for i, (x, _) in right.items() if i % 2 == k])
    assert got["chance"] < got["accuracy"] < 1


def test_choices_that_are_none() -> None:
    image, texts = choices(6, 0.1)
    ids = np.stack([TOKENIZER.encode(each) for each in texts])
    same = np.stack([ids[:, 0]] * 3, 1)
    assert run(CaptionChoice(data(image=image, text=same)))["accuracy"] == 0
    image[2] = np.nan
    got = run(CaptionChoice(data(image=image, text=ids)))
    assert got["nonfinite"] == 1
    with pytest.raises(DataError, match="no record has a right caption"):
        run(CaptionChoice(data(image=image, text=ids, text_mask=np.eye(6, 3) == 2)))
    with pytest.raises(ValueError, match="needs several captions"):
        run(CaptionChoice(data(image=image, text=ids[:, 0])))
    kind = np.full(6, 2, np.int32)
    with pytest.raises(DataError, match=r"'swapped' must lie in 0\.\.1"):
        run(CaptionChoice(data(image=image, text=ids, swapped=kind), "swapped", ("a", "b")))
    with pytest.raises(ValueError, match="give both or neither"):
        CaptionChoice(data(image=image, text=ids), kinds=("a",))
