"""Captions on their way to a batch: choice, absence, length, prefixes, and scenes' in part."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vision.data import ops
from vision.data.descriptions import Captions
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops import ShortenCaption, Tokenize
from vision.data.pipeline import EvalData, TrainData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.parquet import Parquet
from vision.data.sources.scenes import Scenes
from vision.data.sources.scenes.captions import agrees, parse
from vision.data.tokenizers import Prefixed, WordTokenizer

WORDS = WordTokenizer(("a", "red", "blue", "circle", "star", "and"), length=6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def captions(*texts: Any) -> Arrays:
    column = np.empty(len(texts), object)
    column[:] = texts
    return Arrays({"caption": column})


def read(source: Any, *steps: Any, **kwargs: Any) -> tuple[dict[str, np.ndarray], Any]:
    with EvalData(source, len(source), steps, threads=0, **kwargs).loader() as loader:
        return next(loader), loader.take_bad()


def test_words_and_their_ids():
    rows = WORDS.encode(["A red circle.", "a  RED, pentagon!", ""])
    assert rows.tolist() == [[1, 4, 5, 7, 2, 0], [1, 4, 5, 3, 2, 0], [1, 2, 0, 0, 0, 0]]
    assert WORDS.decode(rows) == ["a red circle", "a red <unknown>", ""]
    assert WORDS.vocab_size == 10
    for words, message in {
        (): "empty",
        ("a", "a"): "'a' is given twice",
        ("A",): "lower case",
    }.items():
        with pytest.raises(ValueError, match=message):
            WordTokenizer(words)


def test_captions_follow_seed_and_position():
    """The same stream whoever reads it and wherever it begins; other captions in other epochs."""
    words = tuple(f"w{i}" for i in range(8))
    source = captions(*[list(words)] * 6)
    data = TrainData(source, 4, (Tokenize(WordTokenizer(words, 4)),), threads=0)

    def stream(first: int, count: int, **who: int) -> np.ndarray:
        with data.loader(seed=5, first_batch=first, **who) as loader:
            return np.stack([next(loader)["text"] for _ in range(count)])

    whole = stream(0, 30)
    assert (stream(7, 5) == whole[7:12]).all()
    half = stream(0, 3, process_index=1, process_count=2)
    assert (half == whole[:3, 2:]).all()
    counts = np.bincount(whole[:, :, 1].ravel(), minlength=12)[4:]
    assert counts.min() > 4  # 15 expected of each
    example = Tokenize(WordTokenizer(words, 4))(source[0], rng(1))
    assert (
        words[example["_draws"]["Tokenize"]["caption"]]
        == WordTokenizer(words, 4).decode(example["text"])[0]
    )


def test_several_captions_per_image():
    op = Tokenize(WORDS, captions=3)
    several = ["a red star", "blue", "a a a a a a", "red"]
    out = op({"caption": several}, rng(2))
    chosen = out["_draws"]["Tokenize"]["caption"]
    assert len(set(chosen)) == 3
    assert out["text"].tolist() == WORDS.encode([several[i] for i in chosen]).tolist()
    assert out["text_mask"].tolist() == [True] * 3
    assert out["text_cut"].tolist() == [2 if i == 2 else 0 for i in chosen]
    assert {
        op({"caption": several}, rng(s))["_draws"]["Tokenize"]["caption"][0] for s in range(40)
    } == {0, 1, 2, 3}
    few = Tokenize(WORDS, captions=3, pick="first")({"caption": ["red", "blue"]}, rng())
    assert few["text_mask"].tolist() == [True, True, False]
    assert few["text"][2].tolist() == [0] * 6
    assert few["_draws"]["Tokenize"] == {"caption": (0, 1, -1), "start": (0, 0, -1)}


def test_empty_captions_are_masked_or_bad_records():
    source = captions("a star", "", " . ", [], None, ["", "red"])
    batch, bad = read(source, Tokenize(WORDS, empty="mask"))
    assert not bad
    assert batch["_mask"].all()
    assert batch["text_mask"].tolist() == [True, False, False, False, False, True]
    assert (batch["text"][~batch["text_mask"]] == 0).all()
    assert WORDS.decode(batch["text"])[5] == "red"
    batch, bad = read(source, Tokenize(WORDS), on_error="mask")
    assert batch["_mask"].tolist() == [True, False, False, False, False, True]
    assert [record.index for record in bad] == [1, 2, 3, 4]
    assert "no caption with a token" in bad[0].reason
    assert "text_mask" not in batch
    with pytest.raises(DataError, match=r"arrays/1.*set empty to 'mask'"):
        read(source, Tokenize(WORDS))


def test_long_captions_are_cut_masked_or_passed_over():
    source = captions("a red star and a", ["a red star and a blue", "blue"], "red")
    batch, _ = read(source, Tokenize(WORDS, pick="first"))
    assert batch["text_cut"].tolist() == [1, 2, 0]
    batch, _ = read(source, Tokenize(WORDS, pick="first", too_long="mask"))
    assert batch["text_mask"].tolist() == [False, True, True]
    assert batch["text_cut"].tolist() == [0, 0, 0]
    assert WORDS.decode(batch["text"])[1] == "blue"


def test_prefixes_tell_the_parts_of_a_mixture():
    sources = captions("a red star", "blue"), captions("red", "a circle")
    tokenizers = [Prefixed(WORDS, source=i) for i in range(2)]
    parts = tuple(
        MixturePart(source, ops=(Tokenize(tokenizer),), name=str(i))
        for i, (source, tokenizer) in enumerate(zip(sources, tokenizers, strict=True))
    )
    with Mixture(parts, 8, threads=0).loader(seed=0) as loader:
        batch = next(loader)
    assert sorted(set(batch["_source"].tolist())) == [0, 1]
    assert batch["text"][:, 0].tolist() == (WORDS.vocab_size + batch["_source"]).tolist()
    assert tokenizers[1].vocab_size == WORDS.vocab_size + 2 > batch["text"].max()
    texts = ["a red star", "a red star and a blue circle"]
    for row, plain in zip(tokenizers[1].encode(texts), WORDS.encode(texts), strict=True):
        assert row[1:].tolist() == plain[1:].tolist()
    assert tokenizers[1].decode(tokenizers[1].encode(texts))[0] == texts[0]
    with pytest.raises(ValueError, match=r"source=2: must lie in 0\.\.1"):
        Prefixed(WORDS, source=2)


def test_a_pair_without_its_image_is_masked(tmp_path: Any):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(file, "png")
    table = {"image": [file.getvalue(), None, file.getvalue()], "caption": ["a", "red", "star"]}
    types = pa.schema([("image", pa.binary()), ("caption", pa.string())])
    pq.write_table(pa.table(table, types), tmp_path / "pairs.parquet")
    source = Parquet(str(tmp_path / "pairs.parquet"), {"caption": Captions(column="caption")})
    batch, bad = read(source, ops.Decode(), Tokenize(WORDS), on_error="mask")
    assert batch["_mask"].tolist() == [True, False, True]
    assert not batch["image"][1].any()
    assert not batch["text"][1].any()
    assert [record.index for record in bad] == [1]
    assert "image" in bad[0].reason


def test_sentences_of_a_long_caption_beside_the_short_one():
    long = "A red circle, 3.5 wide. A blue star!\nA blue star. a circle and a star"
    example = {"caption": ["a star", "blue"], "caption_long": long, "more": ("red.",), "x": 1}
    op = ops.SubCaptions(("caption_long", "more"), count=3)
    pool = ["A red circle, 3.5 wide", "A blue star", "a circle and a star", "red"]
    drawn = set()
    for seed in range(40):
        out = op(example, rng(seed))
        assert sorted(k for k in out if k != "_draws") == ["caption", "x"]
        first, *sentences = out["caption"]
        assert first == "a star"
        assert sentences == [pool[i] for i in out["_draws"]["SubCaptions"]["sentences"]]
        assert len(set(sentences)) == 2
        drawn.update(sentences)
    assert drawn == set(pool)
    assert op(example, rng(3)) == op(example, rng(3))
    few = ops.SubCaptions(whole="", count=9)({"caption_long": "red. blue."}, rng())
    assert sorted(few["caption"]) == ["blue", "red"]
    tokens = Tokenize(WORDS, captions=3, pick="first", empty="mask")(few, rng())
    assert tokens["text_mask"].tolist() == [True, True, False]
    with pytest.raises(DataError, match="'caption_long' has no sentence"):
        ops.SubCaptions(whole="")({"caption_long": " . "}, rng())
    with pytest.raises(ValueError, match="no feature 'caption_long' among caption"):
        ops.SubCaptions()({"caption": "a"}, rng())
    with pytest.raises(ValueError, match="count=1"):
        ops.SubCaptions(count=1)


def test_less_is_said_and_all_of_it_is_true():
    source = Scenes(num_examples=300, features=("caption_long",), num_objects=(1, 3))
    lengths, shares = [], []
    for i in range(300):
        example = source[i]
        out = ShortenCaption(share=(0.1, 1.0))(example, rng(i))
        assert set(out) == {"caption", "_draws"}
        meaning = parse(out["caption"])
        assert agrees(meaning, source.scene(i)), out["caption"]
        lengths.append(len(out["caption"].split()) / len(example["caption_long"].split()))
        shares.append(out["_draws"]["ShortenCaption"]["share"])
        assert len(meaning.mentions) == len(out["_draws"]["ShortenCaption"]["objects"])
    assert min(lengths) < 0.2
    assert max(lengths) > 0.9
    assert np.corrcoef(lengths, shares)[0, 1] > 0.6
    whole = ShortenCaption(share=(1.0, 1.0))(source[3], rng())
    assert parse(whole["caption"]) == parse(source[3]["caption_long"])
    assert ShortenCaption()(source[3], rng(4)) == ShortenCaption()(source[3], rng(4))


def test_what_cannot_be_said_less_is_named():
    with pytest.raises(DataError, match="outside the grammar"):
        ShortenCaption()({"caption_long": "two dogs in the snow"}, rng())
    with pytest.raises(ValueError, match="no feature 'caption_long' among image"):
        ShortenCaption()({"image": 1}, rng())
    with pytest.raises(ValueError, match=r"share is \(0.5, 0.1\), expected \(smallest, largest\)"):
        ShortenCaption(share=(0.5, 0.1))
    with pytest.raises(ValueError, match="captions is 0"):
        Tokenize(WORDS, captions=0)
    with pytest.raises(ValueError, match="empty is 'drop', expected one of 'error', 'mask'"):
        Tokenize(WORDS, empty="drop")  # type: ignore
