"""Ids of hostile captions beside those of open_clip, OpenAI's CLIP, transformers and big_vision.

Entities that are escaped twice, mojibake, quotes and punctuation beside them, invisible characters,
scripts, special tokens as text, empty and long captions; bench/goldens/captions.py wrote the ids.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vision.data.tokenize import Tokenizer
from vision.data.tokenizers import Canonical, ClipTokenizer, SentencePieceTokenizer
from vision.weights.text_cards import read_tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "tokenize"
GOLDEN = json.loads((FOLDER / "captions.json").read_text())
CAPTIONS: list[str] = GOLDEN["captions"]
LENGTH = 24


def from_folder(source: str, folder: Path) -> Tokenizer:
    """The tokenizer of a folder as the library keeps it: ``open_clip/t5/lower``."""
    library, kind, *clean = source.split("/")
    if library == "open_clip":
        text = {"context_length": LENGTH, "tokenizer_kwargs": {"clean": clean[0]}}
        if kind != "clip":
            text["hf_tokenizer_name"] = "org/name"
            shutil.copytree(FOLDER / kind, folder, dirs_exist_ok=True)
        config = {"model_cfg": {"text_cfg": text}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    else:
        shutil.copytree(FOLDER / kind, folder, dirs_exist_ok=True)
        if kind == "siglip":
            shutil.copy(FOLDER / "t5" / "tokenizer.json", folder)
        config = {"text_config": {"max_position_embeddings": LENGTH}}
        (folder / "config.json").write_text(json.dumps(config))
    found = read_tokenizer(f"{library}:{folder}")
    assert found is not None
    return found


def differing(tokenizer: Tokenizer, source: str) -> list[str]:
    rows = tokenizer.encode(CAPTIONS)
    theirs = np.array(GOLDEN["rows"][source])
    assert rows.shape == theirs.shape == (len(CAPTIONS), LENGTH)
    return [text for text, a, b in zip(CAPTIONS, rows, theirs, strict=True) if (a != b).any()]


def test_the_captions_are_hostile() -> None:
    assert len(CAPTIONS) > 200
    plain, cut = GOLDEN["rows"]["open_clip/clip/lower"], ClipTokenizer(length=LENGTH).eos_id
    assert sum(row[-1] == cut for row in plain) >= 10


@pytest.mark.parametrize("source", [s for s in GOLDEN["rows"] if s.startswith("open_clip/")])
def test_open_clip(source: str, tmp_path: Path) -> None:
    assert differing(from_folder(source, tmp_path), source) == []


@pytest.mark.parametrize("kind", ["bert", "t5", "siglip2"])
def test_transformers(kind: str, tmp_path: Path) -> None:
    source = f"transformers/{kind}"
    assert differing(from_folder(source, tmp_path), source) == []


def test_siglip2_as_published(tmp_path: Path) -> None:
    """In the class of Gemma, whose file does not say that letters become lower case."""
    tokenizer = from_folder("transformers/siglip2", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    lower, spaces = content["normalizer"]["normalizers"]
    assert lower == {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "normalizer": spaces}))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "GemmaTokenizer", "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    again = read_tokenizer(f"transformers:{tmp_path}")
    assert again is not None
    assert tokenizer.split("ΣΑΣ  A") != tokenizer.split("ΣΑΣ A")
    assert differing(again, "transformers/siglip2") == []


def test_clip_of_transformers_pads_with_its_end(tmp_path: Path) -> None:
    """Its causal tower is read at the first end of text, and never sees what comes after."""
    source = "transformers/clip"
    tokenizer = from_folder(source, tmp_path)
    rows = tokenizer.encode(CAPTIONS)
    assert tokenizer.pad_id == 0
    for text, row, theirs in zip(CAPTIONS, rows, GOLDEN["rows"][source], strict=True):
        end = LENGTH - row[::-1].tolist().index(tokenizer.eos_id)
        assert not row[end:].any()
        row[end:] = tokenizer.eos_id
        assert row.tolist() == theirs, text


def test_siglip_of_transformers_but_for_special_tokens_as_text(tmp_path: Path) -> None:
    source = "transformers/siglip"
    tokenizer = from_folder(source, tmp_path)
    special = ["</s>", "a </s> cat", "a</s>cat", "a cat</s>", "<unk>"]
    assert differing(tokenizer, source) == special
    assert tokenizer.split("a</s>cat") == tokenizer.split("ascat")


def test_openai() -> None:
    assert differing(ClipTokenizer(length=LENGTH, special="openai"), "openai/clip") == []
    ours = differing(ClipTokenizer(length=LENGTH), "openai/clip")
    assert len(ours) == 10
    assert all("text" in text.lower() and ">" in text.replace("&gt;", ">") for text in ours)


def test_class_names_of_big_vision() -> None:
    pieces = SentencePieceTokenizer(str(FOLDER / "t5" / "spiece.model"), length=LENGTH, pad=1)
    assert differing(Canonical(pieces), "big_vision/t5") == []


def test_cleaning_by_hand() -> None:
    clip = ClipTokenizer(clean="canonicalize")
    # Entities are resolved before punctuation goes: '&' of '&amp;' is not what names the entity.
    assert clip.split("AT&amp;amp;T") == clip.split("att")
    assert clip.split("caf&eacute;_bar!") == clip.split("café bar")
    # An accent that comes next to its letter only now is not made one with it.
    assert len(clip.split("e'\u0301")) > len(clip.split("e\u0301")) == 1
    with pytest.raises(ValueError, match="use ClipTokenizer\\(clean='canonicalize'\\)"):
        Canonical(ClipTokenizer())
