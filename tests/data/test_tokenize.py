from __future__ import annotations

import builtins
import gzip
import itertools
import json
import logging
import pickle
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vision.config.specs import build, spec
from vision.data.ops import Tokenize
from vision.data.pipeline import EvalData, TrainData
from vision.data.samplers import InOrder
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Scenes
from vision.data.tokenize import captions_of, room
from vision.data.tokenizers import (
    BytePairTokenizer,
    ClipTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    load_byte_pair,
    save_byte_pair,
    train_byte_pair,
    train_on_source,
)
from vision.data.tokenizers.clip import VOCABULARY, special_pattern, words
from vision.data.tokenizers.merges import merge

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenize" / "clip.json"
ODD = "naïve 猫 😀\tx_1  \n½ 'tis\u3000e\u0301 \x00 <s>"


@pytest.fixture(scope="module")
def clip() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture(scope="module")
def captions() -> list[str]:
    source = Scenes(num_examples=300, features=("caption_long",), num_objects=(1, 4))
    return [source[i]["caption_long"] for i in range(300)]


@pytest.fixture(scope="module")
def ours(captions: list[str]) -> BytePairTokenizer:
    return train_byte_pair(captions, vocab_size=600, length=40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def test_clip_ids_are_those_of_open_clip(clip: ClipTokenizer) -> None:
    rows = json.loads(GOLDEN.read_text())["rows"]
    assert len(rows) == 1000
    got = clip.encode([text for text, _ in rows])
    assert got.shape == (1000, 77)
    assert got.dtype == np.int32
    for row, (text, ids) in zip(got, rows, strict=True):
        assert row.tolist() == ids + [0] * (77 - len(ids)), text


def test_clip_facts(clip: ClipTokenizer) -> None:
    assert (clip.vocab_size, clip.pad_id, clip.bos_id, clip.eos_id) == (49408, 0, 49406, 49407)
    assert clip.encode(["hello world!"])[0, :5].tolist() == [49406, 3306, 1002, 256, 49407]
    assert clip.decode(clip.encode(["A  Photo of 42 CATS,\nhere", "", "猫"])) == [
        "a photo of 4 2 cats , here",
        "",
        "猫",
    ]
    # Padding has the id of a real token: texts of it come back all the same.
    assert clip.decode(clip.encode(["!!!!"])) == clip.decode(clip.encode([" !!!! "])) != [""]


def test_clip_has_no_limit_on_length(clip: ClipTokenizer) -> None:
    long = ClipTokenizer(length=248)
    text = "a red circle is to the left of a blue square, " * 30
    short, full = clip.encode([text])[0], long.encode([text])[0]
    assert full.shape == (248,)
    assert full[:76].tolist() == short[:76].tolist()
    assert full[-1] == short[-1] == clip.eos_id
    started = time.perf_counter()
    assert len(clip.split("猫" * 30_000)) >= 30_000
    assert time.perf_counter() - started < 5  # one word of 90,000 bytes, not a quadratic of it


def test_clip_words_are_whole() -> None:
    special = special_pattern(["<b>"])
    assert words("it's 42 l'été ... a_b", special) == [
        *("it", "'s", "4", "2", "l", "'", "été", "...", "a", "_", "b")
    ]
    assert words("x²y<b>.<b>", special) == ["x", "²", "y", "<b>", ".<", "b", ">"]


def test_clip_vocabulary_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere.gz: cannot be read: No such file.*bpe_simple_vocab_16e6"
    ):
        ClipTokenizer(path=str(tmp_path / "nowhere.gz")).split("a")
    whole = gzip.decompress(VOCABULARY.read_bytes())
    for name, data in {
        "plain": b"text",
        "cut": VOCABULARY.read_bytes()[:5000],
        "short": gzip.compress(b"\n".join(whole.split(b"\n")[:100])),
        "no_header": gzip.compress(whole[whole.index(b"\n") + 1 :], 1),
        "single": gzip.compress(whole.replace(b"\nt h\n", b"\nth\n", 1), 1),
        "unmade": gzip.compress(whole.replace(b"\nt h\n", b"\nthe then\n", 1), 1),
        "binary": gzip.compress(b"\xff\xfe" * 100),
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            ClipTokenizer(path=str(tmp_path / name)).split("a")


def test_clip_reads_plain_text_without_ftfy(
    clip: ClipTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "ftfy":
            raise ImportError(name)
        return real(name, *rest, **more)

    expected = clip.split("it's a cat, isn't it? $5!")
    monkeypatch.setattr(builtins, "__import__", without)
    assert clip.split("it's a cat, isn't it? $5!") == expected
    for text in ("café", "AT&amp;T", "bell \x07"):
        with pytest.raises(ImportError, match="pip install 'ftfy"):
            clip.split(text)


def test_merging_equals_the_textbook_loop() -> None:
    """Replace all of the earliest pair, then look again: the quadratic definition."""

    def slowly(ids: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
        while True:
            found = [merges[p] for p in itertools.pairwise(ids) if p in merges]
            if not found:
                return ids
            out, i = [], 0
            while i < len(ids):
                if merges.get(tuple(ids[i : i + 2])) == min(found):  # type: ignore
                    out.append(min(found))
                    i += 2
                else:
                    out.append(ids[i])
                    i += 1
            ids = out

    draw = random.Random(0)
    for _ in range(300):
        merges: dict[tuple[int, int], int] = {}
        for new in range(3, 12):
            merges.setdefault((draw.randrange(new), draw.randrange(new)), new)
        ids = [draw.randrange(3) for _ in range(draw.randrange(0, 30))]
        assert merge(ids, merges) == slowly(ids, merges)


def test_own_byte_pairs_lose_nothing(ours: BytePairTokenizer, captions: list[str]) -> None:
    draw = random.Random(1)
    anything = ["".join(chr(draw.randrange(1, 0xD800)) for _ in range(40)) for _ in range(50)]
    for text in ["", ODD, *anything, *captions]:
        ids = ours.split(text)
        assert ours.join(ids) == text
        assert all(3 <= i < ours.vocab_size for i in ids)
    held_out = Scenes(num_examples=50, split="test", features=("caption_long",))
    held_out = [held_out[i]["caption_long"] for i in range(50)]
    lengths = [len(ours.split(text)) for text in held_out]
    words_each = [len(text.split()) for text in held_out]
    assert sum(lengths) < 1.5 * sum(words_each)  # whole words, on captions it has not seen


def test_training_is_deterministic_and_orderless(captions: list[str]) -> None:
    shuffled = random.Random(0).sample(captions, len(captions))
    first = train_byte_pair(captions, 450)
    assert train_byte_pair(shuffled, 450).merges == first.merges
    assert first.vocab_size == 450
    assert train_byte_pair(captions, 400).merges == first.merges[: 400 - 259]


def test_training_merges_the_most_frequent_pair() -> None:
    a, b, c = (3 + ord(x) for x in "abc")
    tokenizer = train_byte_pair(["ab ab ab abc", "bc"], 270, least_count=2)
    space = 3 + ord(" ")
    # ab 4 times, " ab" 3; then c follows "b" and "ab" once each: too rare.
    assert tokenizer.merges == ((a, b), (space, 259))
    assert tokenizer.split("abc bc") == [259, c, space, b, c]
    # "aaa" is counted as two pairs that overlap, merged from the left.
    assert train_byte_pair(["aaaa"], 270, least_count=1).split("aaaaa") == [260, a]
    assert train_byte_pair([], 300).merges == ()


def test_saved_and_read_again(ours: BytePairTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    save_byte_pair(ours, path)
    again = load_byte_pair(str(path), length=40)
    assert again == ours
    assert again.split(ODD) == ours.split(ODD)
    for text, message in {
        "{": "no JSON",
        "[]": "not written by save_byte_pair",
        '{"format": "vision byte pairs 1"}': "'merges'",
        '{"format": "vision byte pairs 1", "merges": [[3, 259]]}': "exist before it",
        '{"format": "vision byte pairs 1", "merges": [[3, 4, 5]]}': "pair of ids",
        '{"format": "vision byte pairs 1", "merges": [["a", "b"]]}': "'merges'",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError, match=f"tokenizer.json: .*{message}"):
            load_byte_pair(str(path))
    with pytest.raises(DataError, match="No such file"):
        load_byte_pair(str(tmp_path / "none.json"))


def test_trained_on_a_source_by_config(ours: BytePairTokenizer) -> None:
    node = spec(
        Tokenize,
        tokenizer=spec(
            train_on_source,
            source=spec(Scenes, num_examples=5000, features=("caption",)),
            vocab_size=400,
            length=24,
            examples=200,
        ),
    )
    op = build(node)
    assert op == build(node)
    assert op.tokenizer.length == 24
    assert 300 < op.tokenizer.vocab_size <= 400
    with pytest.raises(DataError, match="no feature 'text' among caption"):
        train_on_source(Scenes(features=("caption",)), feature="text", examples=3)


@pytest.fixture(scope="module")
def adapters(captions: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Tiny models of the two packages, trained here."""
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("models")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_prefix=str(folder / "sp"),
        vocab_size=90,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=200, special_tokens=special, show_progress=False
    )
    model.train_from_iterator(captions, trainer)
    model.enable_truncation(3)
    model.enable_padding(length=9)
    model.save(str(folder / "hf.json"))
    return {
        "sentencepiece": SentencePieceTokenizer(str(folder / "sp.model"), length=40),
        "huggingface": HuggingFaceTokenizer(str(folder / "hf.json"), length=40),
    }


@pytest.mark.parametrize("kind", ["sentencepiece", "huggingface"])
def test_adapters_frame_rows_like_the_others(kind: str, adapters: dict) -> None:
    tokenizer = adapters[kind]
    text = "a red circle and a blue star"
    short, long = tokenizer.encode([text, " ".join([text] * 20)])
    assert short.dtype == np.int32
    assert short.shape == long.shape == (40,)
    assert long[-1] == tokenizer.eos_id
    assert short[-1] == tokenizer.pad_id
    used = len(tokenizer.split(text)) + 2 - (tokenizer.bos_id is None)
    assert short[used - 1] == tokenizer.eos_id
    assert (short[used:] == tokenizer.pad_id).all()
    assert long[: used - 1].tolist() == short[: used - 1].tolist()
    assert tokenizer.decode(short[None]) == [text]
    assert max(short.max(), long.max()) < tokenizer.vocab_size
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode([text]).tolist() == [short.tolist()]


def test_adapters_name_file_and_way_out(adapters: dict, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a model")
    for constructor in (SentencePieceTokenizer, HuggingFaceTokenizer):
        with pytest.raises(DataError, match="broken"):
            constructor(str(broken)).split("a")
        with pytest.raises(DataError, match="no such file"):
            constructor(str(tmp_path / "none")).split("a")
    path = adapters["huggingface"].path
    with pytest.raises(DataError, match=r"no token '<pad>'; set pad.*\[PAD\]"):
        _ = HuggingFaceTokenizer(path, pad="<pad>").pad_id
    with pytest.raises(DataError, match="no bos token; set bos=False"):
        _ = SentencePieceTokenizer(adapters["sentencepiece"].path, bos=True).bos_id


@pytest.mark.parametrize("package", ["sentencepiece", "tokenizers"])
def test_a_missing_package_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    kinds = {"sentencepiece": SentencePieceTokenizer, "tokenizers": HuggingFaceTokenizer}
    with pytest.raises(ImportError, match=f"pip install '{package}"):
        kinds[package](str(tmp_path)).split("a")


def test_cut_texts_are_counted_in_the_log(
    ours: BytePairTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows = ours.encode(["x y " * 40, "a red circle", "z w " * 40])
    assert "2 of 3 texts are longer than length=40" in caplog.text
    assert (rows[[0, 2], -1] == ours.eos_id).all()
    assert ours.encode([]).shape == (0, 40)
    with pytest.raises(TypeError, match="a list of texts"):
        ours.encode("one text")


def test_the_op_replaces_the_caption(ours: BytePairTokenizer) -> None:
    example = {"image": np.zeros(3), "caption": "a red circle"}
    out = Tokenize(ours)(example, rng())
    assert sorted(k for k in out if not k.startswith("_")) == ["image", "text", "text_cut"]
    assert out["text"].tolist() == ours.encode(["a red circle"])[0].tolist()
    assert out["text_cut"] == 0
    assert out["_draws"]["Tokenize"] == {"caption": 0, "start": 0}
    assert example["caption"] == "a red circle"
    named = Tokenize(ours, feature="title", output="title")({"title": b"a star"}, rng())
    assert ours.decode(named["title"]) == ["a star"]


def test_one_of_several_captions_by_the_ops_rng(ours: BytePairTokenizer) -> None:
    several = ["a", "b", "c", "d"]
    op = Tokenize(ours)
    drawn = [ours.decode(op({"caption": several}, rng(s))["text"])[0] for s in range(200)]
    again = [ours.decode(op({"caption": several}, rng(s))["text"])[0] for s in range(200)]
    assert drawn == again
    assert {d: drawn.count(d) > 30 for d in several} == dict.fromkeys(several, True)
    as_array = op({"caption": np.array(several)}, rng(3))
    assert as_array["text"].tolist() == op({"caption": several}, rng(3))["text"].tolist()
    first = Tokenize(ours, pick="first")
    assert {ours.decode(first({"caption": several}, rng(s))["text"])[0] for s in range(9)} == {"a"}


def test_policies_for_long_captions(ours: BytePairTokenizer) -> None:
    text = "".join(f" {i}" for i in range(100, 160))
    ids = ours.split(text)
    extra = len(ids) - room(ours)
    assert extra > 20
    cut = Tokenize(ours)({"caption": text}, rng())
    assert cut["text_cut"] == extra
    assert cut["text"][1:-1].tolist() == ids[: room(ours)]
    starts = set()
    for seed in range(60):
        out = Tokenize(ours, too_long="window")({"caption": text}, rng(seed))
        start = out["_draws"]["Tokenize"]["start"]
        assert out["text"][1:-1].tolist() == ids[start : start + room(ours)]
        assert (out["text"][0], out["text"][-1], out["text_cut"]) == (1, 2, extra)
        starts.add(start)
    assert min(starts) < extra / 4
    assert max(starts) > 3 * extra / 4
    with pytest.raises(DataError, match=rf"{len(ids)} tokens, {extra} more than fit into length"):
        Tokenize(ours, too_long="error")({"caption": text}, rng())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "holds no caption"),
        (None, "holds NoneType"),
        (float("nan"), "holds float nan"),
        (["a", 3], "holds int 3"),
        (b"\xff\xfe", "not UTF-8"),
        ("\ud83d", "surrogate"),
    ],
)
def test_unusable_captions_are_bad_records(value, message: str, ours: BytePairTokenizer) -> None:
    with pytest.raises(DataError, match=message):
        captions_of(value)
    source = Arrays({"caption": np.array(["a", None, "b", "c"], object)})
    source.arrays["caption"][1] = value
    with EvalData(source, 4, (Tokenize(ours, pick="first"),), on_error="mask").loader() as loader:
        batch = next(loader)
        (bad,) = loader.take_bad()
    assert batch["_mask"].tolist() == [True, False, True, True]
    assert bad.key == "arrays/1"


def test_wrong_arguments_are_named(ours: BytePairTokenizer) -> None:
    with pytest.raises(
        ValueError, match="too_long is 'cut', expected one of 'truncate', 'error', 'window'"
    ):
        Tokenize(ours, too_long="cut")  # type: ignore
    with pytest.raises(ValueError, match="pick is 'all', expected one of"):
        Tokenize(ours, pick="all")  # type: ignore
    with pytest.raises(ValueError, match="no feature 'caption' among image"):
        Tokenize(ours)({"image": 1}, rng())
    with pytest.raises(ValueError, match="length is 2, expected a whole number >= 3"):
        ClipTokenizer(length=2)
    with pytest.raises(ValueError, match="vocab_size=100: at least 259"):
        train_byte_pair(["a"], 100)
    with pytest.raises(ValueError, match=r"merges\[1\]"):
        BytePairTokenizer(((3, 4), (3, 260)))


def test_in_the_pipeline_with_threads_and_after_pickling(clip: ClipTokenizer) -> None:
    source = Scenes(num_examples=40, image_size=16, features=("image", "caption_long"))
    op = Tokenize(ClipTokenizer(length=32), feature="caption_long", too_long="window")
    batches = []
    for chosen, threads in ((op, 0), (pickle.loads(pickle.dumps(op)), 3)):
        data = TrainData(source, 8, (chosen,), sampler=InOrder(), threads=threads)
        with data.loader(seed=5) as loader:
            batches.append([next(loader) for _ in range(10)])
    for one, other in zip(*batches, strict=True):
        assert sorted(one) == ["_index", "_mask", "image", "text", "text_cut"]
        assert one["text"].shape == (8, 32)
        assert one["text"].dtype == np.int32
        np.testing.assert_array_equal(one["text"], other["text"])
    first, second = (batches[0][i]["text"] for i in (0, 5))  # the same records, an epoch later
    long = batches[0][0]["text_cut"] > 3
    assert long.any()
    assert (first[long] != second[long]).any()
