"""Writes tests/golden/tokenize/captions.json: hostile captions as the original tokenizers read them.

    .venv-peers/bin/python bench/goldens/captions.py

Rows of ids, padding included, by open_clip, OpenAI's CLIP and transformers. Their own vocabulary is
CLIP's; the others are small ones that are trained here, as such folders hold them, below
tests/golden/tokenize/<kind>. Needs the packages of bench/requirements-peers.txt.
"""

# ruff: noqa: RUF001, E501 - unusual letters are what this is about
from __future__ import annotations

import gzip
import importlib.metadata
import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import clip.simple_tokenizer  # noqa: E402
import open_clip.tokenizer  # noqa: E402
import sentencepiece  # noqa: E402
import tokenizers  # noqa: E402
import transformers  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokenize"
LENGTH = 24
MERGES = 600
ENTITIES = (
    *(
        "AT&amp;T",
        "AT&amp;amp;T",
        "salt &amp;amp;amp; pepper",
        "caf&eacute;, bar",
        "&lt;b&gt;hi&lt;/b&gt;",
    ),
    *(
        "it&#39;s",
        "it&amp;#39;s a cat",
        "&quot;quoted&quot;",
        "&nbsp;a&nbsp;b",
        "a &lt;3 b",
        "R&B & soul",
    ),
    *(
        "fish&chips;",
        "&#x1F600; smile",
        "&;",
        "&#0;null",
        "5 &gt; 3, 2 &lt; 4!",
        "&amp;lt;/s&amp;gt;",
    ),
    *("dogs&cats", "&copy2020", "&notin; &not in", "100&percnt; wool"),
)
MOJIBAKE = (
    "schÃ¶n und groÃŸ",
    "itâ€™s a testâ€¦",
    "l\u0092or",
    "Ã©tÃ©, Ã  bientÃ´t",
    "âœ” done",
    "cafÃ©_bar",
)
QUOTES = ("“a cat”", "‘tis the dog’s", "«rue»", "a–b—c", "it’s", "„so“, ‚so‘", "'it's'", '"it\'s"')
PUNCTUATION = (
    *(
        "a photo of a cat.",
        "A  Photo, of: a_cat!",
        "hand-painted",
        "snake_case__name",
        "e'\u0301",
        "U.S.A.",
    ),
    *(
        "don't stop",
        "#tag @me",
        "50%-off*",
        "~/path\\to",
        "...",
        "!!!",
        "(a) [b] {c}",
        "{}",
        "a,b;c",
        "*'s*",
    ),
    *("`code`", "rock 'n' roll", "…dots… ，。！", "¿qué?", "a.b.c's", "3.14 x 10^2", "C++/C#"),
)
INVISIBLE = (
    *(
        "a\u200bb",
        "\ufeffstart",
        "soft\u00adhyphen",
        "a\u200d b",
        "\u202eright",
        "zero\u2060width",
        "a\x00b",
    ),
    *(
        "a\x1fb",
        "a\x85b",
        "\x1b[31mred",
        "a\u3000b",
        "a\u2028b",
        "e\u0301 é",
        "Å Å",
        "ﬁne",
        "ＡＢＣ　ｗｉｄｅ",
    ),
)
SCRIPTS = (
    *(
        "一只猫坐在垫子上。",
        "東京タワーの写真、夜",
        "사진 속의 고양이",
        "Фотография собаки",
        "صورة قطة",
    ),
    *(
        "हिन्दी तस्वीर",
        "İstanbul ıI",
        "ß ẞ STRASSE",
        "ΕΛΛΗΝΙΚΆ ΣΑΣ",
        "😀",
        "👩‍👩‍👧‍👦 family",
        "👍🏽, ok",
        "🇩🇪🇫🇷!",
    ),
)
SPACES = (
    "",
    " ",
    "\t\n\r",
    "  two  spaces  ",
    "tab\tand\nline",
    "a\x0bb\x0cc",
    "\u00a0",
    "_",
    ".",
    "&amp;",
)
LONG = ("word " * 90, "a photo of a cat, " * 20, "x" * 300, "猫" * 90, "!?" * 80, "a_" * 60)
SPECIAL = (
    *(
        "<|endoftext|>",
        "a <|endoftext|> cat",
        "a<|endoftext|>cat",
        "<|ENDOFTEXT|> a",
        "<|startoftext|> a",
    ),
    *(
        "<end_of_text>",
        "a <end_of_text> cat",
        "a<END_OF_TEXT>cat",
        "<start_of_text> a",
        "&lt;end_of_text&gt; a",
    ),
    *(
        "</s>",
        "a </s> cat",
        "a</s>cat",
        "a cat</s>",
        "<s> a",
        "<pad> a",
        "a <pad>",
        "<unk>",
        "<eos> a",
        "a <bos>",
    ),
    *(
        "a cat <eos>",
        "[CLS] a [SEP] cat",
        "a [PAD] cat",
        "a [MASK]",
        "[UNK]",
        "<extra_id_0> a",
        "a</w> b</w>",
    ),
)


def captions() -> list[str]:
    """Every special case, and random joins of them."""
    fixed = [*ENTITIES, *MOJIBAKE, *QUOTES, *PUNCTUATION, *INVISIBLE, *SCRIPTS, *SPACES]
    rng = random.Random(0)
    mixed = [
        rng.choice(("", " ", ", ", "_", "'")).join(rng.choices(fixed, k=rng.randrange(2, 4)))
        for _ in range(80)
    ]
    return [*fixed, *LONG, *SPECIAL, *mixed]


def corpus() -> list[str]:
    rng = random.Random(1)
    adjectives = ("small", "fluffy", "red", "old", "hand painted", "wooden", "bright")
    nouns = ("cat", "dog", "bicycle", "tower", "photo", "flower", "street", "café", "s", "t")
    made = [
        f"a {rng.choice(adjectives)} {rng.choice(nouns)} near the {rng.choice(nouns)}, its colours"
        for _ in range(400)
    ]
    return [*made, *(text.lower() for text in made), *(c for c in captions() if len(c) < 80)]


def train_pieces(folder: Path, names: dict[str, Any]) -> Path:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_prefix=str(folder / "spiece"),
        vocab_size=420,
        character_coverage=1.0,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        minloglevel=2,
        **names,
    )
    (folder / "spiece.vocab").unlink()
    return folder / "spiece.model"


def emptied(kind: str) -> Path:
    folder = FOLDER / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def make_t5() -> Path:
    folder = emptied("t5")
    model = train_pieces(folder, {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1})
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    scores = [(pieces.IdToPiece(i), pieces.GetScore(i)) for i in range(len(pieces))]
    transformers.T5Tokenizer(vocab=scores, extra_ids=0).save_pretrained(folder)
    return folder


def make_siglip() -> Path:
    """As transformers has SigLIP: pieces of SentencePiece beside a tokenizer.json of T5's kind."""
    folder = emptied("siglip")
    shutil.copy(FOLDER / "t5" / "spiece.model", folder)
    shutil.copy(FOLDER / "t5" / "tokenizer.json", folder)
    transformers.SiglipTokenizer(str(folder / "spiece.model")).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "siglip"}\n')
    return folder


def make_gemma(kind: str, name: str) -> Path:
    folder = emptied(kind)
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    model.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, show_progress=False
    )
    model.train_from_iterator(corpus(), trainer)
    trained = json.loads(model.to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    frame = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    made = getattr(transformers, name)(vocab=trained["vocab"], merges=merges, **frame)
    made.save_pretrained(folder)
    # As the published files have it: in the template of tokenizer.json, and said again here.
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **frame}, indent=2) + "\n")
    if kind == "siglip2":
        (folder / "config.json").write_text('{"model_type": "siglip2"}\n')
    return folder


def make_bert() -> Path:
    folder = emptied("bert")
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=special, show_progress=False
    )
    model.train_from_iterator(corpus(), trainer)
    vocabulary = json.loads(model.to_str())["model"]["vocab"]
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


def make_clip() -> Path:
    """transformers' tokenizer of CLIP with the first merges of the published vocabulary."""
    folder = emptied("clip")
    published = Path(open_clip.tokenizer.default_bpe()).read_bytes()
    lines = gzip.decompress(published).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 1 + MERGES]]
    single = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*single, *(c + "</w>" for c in single), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "clip"}\n')
    return folder


def rows_of(tokenizer: Any, chosen: list[str]) -> list[list[int]]:
    sizes = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
    return [tokenizer(text, **sizes)["input_ids"] for text in chosen]


def main() -> None:
    chosen = captions()
    found: dict[str, list[list[int]]] = {}
    for clean in ("lower", "canonicalize"):
        theirs = open_clip.tokenizer.SimpleTokenizer(clean=clean, context_length=LENGTH)
        found[f"open_clip/clip/{clean}"] = [theirs([text])[0].tolist() for text in chosen]
    openai = clip.simple_tokenizer.SimpleTokenizer()
    ends = [openai.encoder[name] for name in ("<|startoftext|>", "<|endoftext|>")]
    rows = []
    for text in chosen:
        ids = [ends[0], *openai.encode(text)[: LENGTH - 2], ends[1]]
        rows.append([*ids, *[0] * (LENGTH - len(ids))])
    found["openai/clip"] = rows
    folders = {
        "t5": make_t5(),
        "siglip": make_siglip(),
        "gemma": make_gemma("gemma", "GemmaTokenizer"),
        "siglip2": make_gemma("siglip2", "Siglip2Tokenizer"),
        "bert": make_bert(),
        "clip": make_clip(),
    }
    for kind in ("t5", "gemma", "bert"):
        for clean in ("whitespace", "lower", "canonicalize"):
            theirs = open_clip.tokenizer.HFTokenizer(
                str(folders[kind]), context_length=LENGTH, clean=clean
            )
            found[f"open_clip/{kind}/{clean}"] = [theirs([text])[0].tolist() for text in chosen]
    for kind in ("clip", "siglip", "siglip2", "bert", "t5"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
        print(kind, type(tokenizer).__name__)
        found[f"transformers/{kind}"] = rows_of(tokenizer, chosen)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folders["t5"] / "spiece.model"))
    rows = []
    for text in chosen:
        ids = [*pieces.encode(open_clip.tokenizer.canonicalize_text(text))[: LENGTH - 1], 1]
        rows.append([*ids, *[1] * (LENGTH - len(ids))])
    found["big_vision/t5"] = rows
    for name in ("tokenizer.json", "spiece.model", "config.json"):  # the first two are those of t5
        (folders["siglip"] / name).unlink()
    for kind in ("clip", "siglip2"):
        (folders[kind] / "config.json").unlink()
    packages = (
        *("open_clip_torch", "clip-anytorch", "transformers", "tokenizers", "sentencepiece"),
        *("ftfy", "regex"),
    )
    content = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "captions": chosen,
        "rows": found,
    }
    (FOLDER / "captions.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(len(chosen), "captions", (FOLDER / "captions.json").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
