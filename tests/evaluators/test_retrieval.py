"""Retrieval evaluators with embeddings whose answers are known, against full sorts."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.evaluators.linear_dual import TOKENIZER, WIDTH, data, predict, run, texts_of, unit
from vision.data.source import DataError
from vision.evaluate.figures import Gallery
from vision.evaluators.image_text.composed import ComposedRetrieval
from vision.evaluators.image_text.retrieval import ImageRetrieval, ImageTextRetrieval
from vision.evaluators.image_text.zero_shot import ZeroShot
from vision.objectives.contrast import Contrast
from vision.train.objective import Context

NAMES = ("r1", "r5", "r10", "median_rank", "mean_rank", "map", "map50", "ndcg", "r_precision")


def pairs(count: int, captions: int, noise: float = 0.7) -> tuple[list[list[str]], np.ndarray]:
    """Captions, and images (N, WIDTH) near the mean of theirs."""
    rng = np.random.default_rng(count)
    letters = np.asarray(list("abcdefghijklmnopqrst"))
    texts = [["".join(rng.choice(letters, 9)) for _ in range(captions)] for _ in range(count)]
    centre = np.stack([texts_of(each).mean(0) for each in texts])
    image = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    return texts, image + noise * rng.normal(size=image.shape) / np.sqrt(WIDTH)


def ids_of(texts: list[list[str]]) -> np.ndarray:
    return np.stack([TOKENIZER.encode(each) for each in texts])


def walked(scores: np.ndarray, relevant: list[set[int]], junk: list[set[int]]) -> dict[str, float]:
    """The numbers of ``NAMES`` by walking down sorted lists."""
    values_of: dict[str, list[float]] = {name: [] for name in NAMES}
    ranks = []
    for row, right, left_out in zip(scores, relevant, junk, strict=True):
        if not right:
            continue
        ranked = [i for i in np.argsort(-row, kind="stable").tolist() if i not in left_out]
        hits = np.asarray([item in right for item in ranked], float)
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        ranks.append(int(np.argmax(hits)) + 1)
        for k in (1, 5, 10):
            values_of[f"r{k}"].append(float(hits[:k].any()))
        values_of["map"].append((precision * hits).sum() / len(right))
        values_of["map50"].append((precision * hits)[:50].sum() / min(len(right), 50))
        discount = 1 / np.log2(np.arange(2, len(hits) + 2))
        values_of["ndcg"].append((hits * discount).sum() / discount[: len(right)].sum())
        values_of["r_precision"].append(precision[len(right) - 1])
    means = {name: float(np.mean(values)) for name, values in values_of.items() if values}
    return means | {"median_rank": float(np.median(ranks) // 1), "mean_rank": float(np.mean(ranks))}


def check(got: dict[str, Any], expected: dict[str, float], prefix: str = "") -> None:
    for name in NAMES:
        assert got[prefix + name] == pytest.approx(expected[name], rel=1e-9), prefix + name


@pytest.mark.parametrize(("captions", "devices"), [(1, 1), (3, 1), (3, 8)])
def test_both_ways_equal_a_full_sort(captions: int, devices: int) -> None:
    texts, image = pairs(45, captions, noise=1.4)
    ids = ids_of(texts)
    given = data(image=image, text=ids[:, 0] if captions == 1 else ids)
    got = run(ImageTextRetrieval(given, TOKENIZER), devices)
    flat = texts_of([text for each in texts for text in each])
    scores = image / np.linalg.norm(image, axis=1, keepdims=True) @ flat.T
    relevant = [set(range(i * captions, (i + 1) * captions)) for i in range(45)]
    none: list[set[int]] = [set()] * len(flat)
    check(got, walked(scores, relevant, none[:45]), "image_to_text_")
    check(
        got, walked(scores.T, [{i // captions} for i in range(len(flat))], none), "text_to_image_"
    )
    recalls = [got[f"{way}_r{k}"] for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    assert 0.1 < min(recalls) < max(recalls) < 1
    assert got["mean_recall"] == pytest.approx(np.mean(recalls))
    assert (got["images"], got["texts"]) == (45, len(flat))
    assert not [name for name in got if name.startswith(("empty", "absent", "nonfinite"))]


def test_captions_that_are_absent_or_empty_are_left_out_and_counted() -> None:
    texts, image = pairs(30, 3)
    mask = np.ones((30, 3), bool)
    mask[4, 1:] = mask[7] = mask[9] = False
    texts[12][2] = texts[13][0] = ""
    got = run(ImageTextRetrieval(data(image=image, text=ids_of(texts), text_mask=mask), TOKENIZER))
    assert got["absent_captions"] == 8
    assert got["empty_captions"] == 2
    assert got["images_without_text"] == 2
    assert got["texts"] == 90 - 10
    kept = [(i, c) for i in range(30) for c in range(3) if mask[i, c] and texts[i][c]]
    flat = texts_of([texts[i][c] for i, c in kept])
    scores = image / np.linalg.norm(image, axis=1, keepdims=True) @ flat.T
    relevant = [{j for j, (owner, _) in enumerate(kept) if owner == i} for i in range(30)]
    none: list[set[int]] = [set()] * len(flat)
    check(got, walked(scores, relevant, none[:30]), "image_to_text_")
    check(got, walked(scores.T, [{i} for i, _ in kept], none), "text_to_image_")


def test_a_token_that_looks_like_padding_is_no_empty_caption() -> None:
    """As CLIP's exclamation mark: its id is that of the padding."""

    @dataclasses.dataclass(frozen=True)
    class Shouting(type(TOKENIZER)):
        @property
        def pad_id(self) -> int:
            return self.split("!")[0]

    tokenizer = Shouting(merges=(), length=TOKENIZER.length)
    texts, image = pairs(12, 1)
    texts[3], texts[5] = ["!!"], [""]
    ids = np.stack([tokenizer.encode(each)[0] for each in texts])
    got = run(ImageTextRetrieval(data(image=image, text=ids), tokenizer))
    assert got["empty_captions"] == 1
    assert got["texts"] == 11


def test_embeddings_that_are_not_finite_are_counted_and_fail() -> None:
    texts, image = pairs(20, 2, noise=0.0)
    ids = ids_of([[each[0]] * 2 for each in texts])  # twins: perfect, but for the broken ones
    image = texts_of([each[0] for each in texts])
    metrics = run(ImageTextRetrieval(data(image=image, text=ids), TOKENIZER))
    assert metrics["image_to_text_r1"] == metrics["text_to_image_r1"] == 1
    image[3] = np.nan
    image[4] = np.inf
    got = run(ImageTextRetrieval(data(image=image, text=ids), TOKENIZER))
    assert got["nonfinite_images"] == 2
    assert got["image_to_text_r1"] == got["text_to_image_r1"] == 18 / 20
    assert got["text_to_image_mean_rank"] == (18 + 2 * 20) / 20
    assert all(picture.index not in (3, 4) for picture in got["text_to_image_examples"].items)


def test_examples_show_queries_with_their_best_answers() -> None:
    texts, image = pairs(40, 2, noise=0.2)
    got = run(ImageTextRetrieval(data(image=image, text=ids_of(texts)), TOKENIZER, examples=4))
    figure = got["image_to_text_examples"]
    assert isinstance(figure, Gallery)
    assert [item.index for item in figure.items[::5]] == [0, 13, 26, 39]
    for item in figure.items:
        assert item.png
        right = item.prediction in texts[item.index]
        assert right == (item.label == item.prediction)
        assert item.label in texts[item.index]
        score = texts_of([item.prediction])[0] @ image[item.index]
        assert item.score == pytest.approx(score / np.linalg.norm(image[item.index]))
    shown = got["text_to_image_examples"].items
    assert len(shown) == 20
    flat = [text for each in texts for text in each]
    assert [item.label for item in shown[::5]] == [flat[i] for i in (0, 26, 53, 79)]
    for item in shown:
        assert (item.label in texts[item.index]) == (item.label == item.prediction)
    for start in range(0, 20, 5):
        scores = [item.score for item in shown[start : start + 5]]
        assert scores == sorted(scores, reverse=True)


def test_few_images_have_no_recall_at_ten() -> None:
    texts, image = pairs(6, 2)
    got = run(ImageTextRetrieval(data(image=image, text=ids_of(texts)), TOKENIZER, examples=0))
    assert "text_to_image_r5" in got
    assert not {"text_to_image_r10", "mean_recall", "text_to_image_examples"} & got.keys()
    assert "image_to_text_r10" in got


def test_what_image_and_text_need_is_named() -> None:
    texts, image = pairs(8, 2)
    ids = ids_of(texts)
    with pytest.raises(ValueError, match=r"made has no 'text'; it has .*image"):
        run(ImageTextRetrieval(data(image=image), TOKENIZER))
    with pytest.raises(DataError, match="none of the 8 records has a caption"):
        run(ImageTextRetrieval(data(image=image, text=ids_of([[""] * 2] * 8)), TOKENIZER))
    with pytest.raises(DataError, match="made: the source has no records"):
        run(ImageTextRetrieval(data(image=image[:0], text=ids[:0]), TOKENIZER))
    with pytest.raises(ValueError, match="examples is -1"):
        ImageTextRetrieval(data(image=image, text=ids), TOKENIZER, examples=-1)

    def narrow(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = predict(variables, batch)
        return {**outputs, "text/embedding": outputs["text/embedding"][..., :8]}

    def only_images(variables: Any, batch: Any) -> dict[str, Any]:
        return {"image/embedding": predict(variables, batch)["image/embedding"]}

    def merged(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = predict(variables, batch)
        return {**outputs, "text/embedding": outputs["text/embedding"].mean(1)}

    evaluator = ImageTextRetrieval(data(image=image, text=ids), TOKENIZER)
    with pytest.raises(ValueError, match=r"\(8, 12\) and text/embedding \(8, 2, 8\).*same"):
        run(evaluator, function=narrow)
    with pytest.raises(ValueError, match=r"'text/embedding' from .*gives image/embedding"):
        run(evaluator, function=only_images)
    with pytest.raises(ValueError, match=r"text \(8, 2, 32\), and predict gives .*\(8, 12\)"):
        run(evaluator, function=merged)


def by_label(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([count, seed])
    label = rng.integers(0, classes, count).astype(np.int32)
    centre = np.random.default_rng(1).normal(size=(classes, WIDTH))
    return label, centre[label] + 1.5 * rng.normal(size=(count, WIDTH))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


@pytest.mark.parametrize("devices", [1, 8])
def test_images_find_the_others_with_their_label(devices: int) -> None:
    label, image = by_label(60, 5)
    label[[3, 8]] = -1
    label[9] = 77  # alone
    given = data(image=image, label=label)
    got = run(ImageRetrieval(given), devices)
    kept = label != -1
    label, image = label[kept], image[kept]
    relevant = [
        set(np.flatnonzero(label == class_).tolist()) - {i} for i, class_ in enumerate(label)
    ]
    check(got, walked(cosines(image, image), relevant, [{i} for i in range(58)]))
    assert got["queries"] == 57
    assert got["gallery"] == 58
    assert got["queries_without_match"] == 1
    assert got["unlabelled"] == 2
    assert 0.2 < got["map"] < 1
    assert len(got["nearest"].items) == 25
    assert {item.index for item in got["nearest"].items} <= set(np.flatnonzero(kept).tolist())


def test_other_queries_and_junk_of_the_same_camera() -> None:
    label, image = by_label(70, 4)
    asked, query = by_label(9, 4, seed=1)
    rng = np.random.default_rng(5)
    camera, its = (rng.integers(0, 3, n).astype(np.int32) for n in (70, 9))
    got = run(
        ImageRetrieval(
            data(image=image, label=label, camera=camera, class_names=tuple("wxyz")),
            data(image=query, label=asked, camera=its),
            junk_if_same="camera",
        )
    )
    relevant, junk = (
        [
            set(np.flatnonzero((label == asked[i]) & ((camera == its[i]) == same)).tolist())
            for i in range(9)
        ]
        for same in (False, True)
    )
    assert all(junk)
    check(got, walked(cosines(query, image), relevant, junk))
    assert got["queries"] == 9
    assert {item.prediction for item in got["nearest"].items} <= set("wxyz")
    without = run(ImageRetrieval(data(image=image, label=label), data(image=query, label=asked)))
    assert without["map"] != got["map"]


def test_what_image_retrieval_needs_is_named() -> None:
    label, image = by_label(10, 2)
    with pytest.raises(DataError, match="made: no record has a label"):
        run(ImageRetrieval(data(image=image, label=np.full(10, -1, np.int32))))
    with pytest.raises(ValueError, match=r"'label' is float32\[10, 2\], not int"):
        run(ImageRetrieval(data(image=image, label=np.ones((10, 2), np.float32))))
    image[2] = np.nan
    assert run(ImageRetrieval(data(image=image, label=label)))["nonfinite"] == 1


def test_an_image_and_words() -> None:
    """Images are sums of a shape's and a colour's vector, words are the same vectors."""
    shapes, colours = ("square", "circle", "star", "moon"), ("red", "blue", "green", "gold")
    vector = {word: texts_of([word])[0] for word in (*shapes, *colours)}
    kinds = [(s, c) for s in range(4) for c in range(4)]
    rng = np.random.default_rng(0)

    def drawn(s: int, c: int) -> np.ndarray:
        clean = vector[shapes[s]] + vector[colours[c]]
        return clean / np.linalg.norm(clean) + 0.02 * rng.normal(size=WIDTH)

    items = np.stack([drawn(s, c) for s, c in kinds])
    gallery = data(image=items, label=np.arange(16, dtype=np.int32))
    asked = [(s, c, new) for s, c in kinds for new in range(4) if new != c]
    queries = {
        "image": np.stack([drawn(s, c) for s, c, _ in asked]),
        "text": TOKENIZER.encode([colours[new] for *_, new in asked]),
        "target": np.asarray([4 * s + new for s, _, new in asked], np.int32),
        "own": np.asarray([4 * s + c for s, c, _ in asked], np.int32),
    }
    minus = TOKENIZER.encode([colours[c] for _, c, _ in asked])
    plus = run(ComposedRetrieval(data(**queries), gallery))
    both = run(ComposedRetrieval(data(**queries, text_minus=minus), gallery), 8)
    assert both["r1"] > 0.95 > plus["r1"]
    assert both["image_only_r1"] == 0
    assert both["words_only_r1"] < 0.5
    left_out = run(ComposedRetrieval(data(**queries), gallery, exclude="own"))
    assert left_out["image_only_r1"] > 0
    assert left_out["mean_rank"] < plus["mean_rank"]
    assert (both["queries"], both["gallery"]) == (48, 16)

    composed = queries["image"] / np.linalg.norm(queries["image"], axis=1, keepdims=True)
    composed = composed + 0.5 * texts_of([colours[new] for *_, new in asked])
    scores = cosines(composed, items)
    halved = run(ComposedRetrieval(data(**queries), gallery, weight=0.5))
    check(halved, walked(scores, [{int(t)} for t in queries["target"]], [set()] * 48))
    with pytest.raises(ValueError, match="weight is 0"):
        ComposedRetrieval(data(**queries), gallery, weight=0)


class Dual(nn.Module):
    """A tower as ``Contrast`` calls it."""

    @nn.compact
    def __call__(self, batch: Any, train: bool = False, tap: Any = None):
        out = {}
        if "image" in batch:
            pixels = batch["image"].reshape(len(batch["image"]), -1)
            out["image/embedding"] = unit(nn.Dense(WIDTH, name="pixels")(pixels))
        if "text" in batch:
            words = nn.Embed(TOKENIZER.vocab_size, WIDTH, name="words")(batch["text"])
            out["text/embedding"] = unit(words.mean(-2))
        return next(iter(out.values())), out


def test_what_the_contrastive_objective_predicts_is_what_evaluators_read() -> None:
    texts, image = pairs(20, 2)
    label = np.arange(20, dtype=np.int32) % 3
    given = data(image=image, text=ids_of(texts), label=label, class_names=("cat", "dog", "gnu"))
    objective = Contrast(Dual())
    batch: Any = next(iter(given.loader()))
    variables = objective.init(jax.random.key(0), batch)

    def predicted(_: Any, batch: Any) -> dict[str, jax.Array]:
        ctx = Context(jax.numpy.int32(0), 1, train=False)
        return objective.predict(variables, batch, ctx)

    got = run(ImageTextRetrieval(given, TOKENIZER), 8, predicted)
    embedded = predicted(None, {"image": image.reshape(20, 3, 4, 1), "text": ids_of(texts)})
    flat = np.asarray(embedded["text/embedding"]).reshape(40, WIDTH)
    scores = np.asarray(embedded["image/embedding"]) @ flat.T
    relevant = [{2 * i, 2 * i + 1} for i in range(20)]
    check(got, walked(scores, relevant, [set()] * 20), "image_to_text_")
    assert run(ZeroShot(given, TOKENIZER, text_batch=8), 8, predicted)["prompts"] == 3
    assert run(ImageRetrieval(given), 8, predicted)["queries"] == 20
