"""Writes tests/golden/tokenize/clip.json: ids of open_clip's tokenizer on 1,000 varied texts.

    .venv-peers/bin/python bench/goldens/clip_tokenizer.py

Needs open_clip_torch, torch, ftfy and regex. Only open_clip's tokenizer module is imported.
"""

# ruff: noqa: RUF001 - unusual letters are what this is about
from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import random
import sys
import unicodedata
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokenize" / "clip.json"

NOUNS = ("dog", "bicycle", "skyscraper", "croissant", "axolotl", "Schadenfreude", "umbrella", "TV")
ADJECTIVES = ("small", "fluffy", "hand-painted", "19th-century", "black-and-white", "café-style")
FOREIGN = (
    *("naïve café à la crème brûlée", "Ünïcödé ÄÖÜ ß ẞ", "el niño pequeño ¿qué? ¡hola!"),
    *(
        "一只猫坐在垫子上。",
        "東京タワーの写真、夜",
        "ｆｕｌｌ　ｗｉｄｔｈ １２３",
        "사진 속의 고양이",
    ),
    *("Фотография собаки", "ΕΛΛΗΝΙΚΆ φωτογραφία", "صورة قطة صغيرة", "תמונה של כלב", "हिन्दी तस्वीर"),
    *("ภาพถ่ายของแมว", "İstanbul ıI", "ﬁne ﬂight oﬃce", "ŉ ǆ ſtone ſ's it'ſ", "K Å Ω"),
)
SYMBOLS = (
    *("😀", "👩‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "👍🏽 ok", "❤️🔥", "★☆ ½ ² ³ Ⅷ ①②", "€100 £5 ¥7 $1,234.56"),
    *("“curly” ‘quotes’ – — …", "a\u00a0b\u2003c\u200bd\ufeffe", "x²+y²=z²", "C++ & C# @ #tag"),
    *("(╯°□°)╯︵ ┻━┻", "e\u0301 vs é", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙ͬͩ͟", "१२३ ٤٥٦ 七八九", "a_b__c ___"),
)
MARKUP = (
    *("caf&eacute; &amp; bar", "&amp;amp; twice", "&lt;b&gt;bold&lt;/b&gt;", "&#128512; &#x41;"),
    *("<p>paragraph &nbsp; here</p>", "&notanentity; &", "AT&T &copy; 2020", "&EACUTE; &HELLIP;"),
    *("schÃ¶n und groÃŸ", "itâ€™s a testâ€¦", "Ã©tÃ©", "l\u0092or", "\x1b[31mred\x1b[0m plain"),
    *("<start_of_text> a <end_of_text>", "<START_OF_TEXT>x", "<|startoftext|>", "</w> end</w>"),
)
SPACES = (
    *(
        "",
        " ",
        "\t\n\r",
        "  two  spaces  ",
        "line\nbreak\r\nand\rmore",
        "a\x0bb\x0cc\x1cd\x1fe\x85f",
    ),
    *("tab\tseparated\tvalues", "\u2028line\u2029par", "trailing   ", "\u3000ideographic\u3000"),
    *("null\x00byte \x07 bell", "del\x7f"),
)
CONTRACTIONS = (
    *("it's they're we've I'm he'll she'd don't", "IT'S THEY'RE", "o'clock rock 'n' roll"),
    *("''s 's'", "'tis the season", "the dogs' bowls", "y'all'd've", "'S 'T 'LL", "d'être l'été"),
)
LONG = (
    "word " * 90,
    "supercalifragilisticexpialidocious" * 6,
    "猫" * 120,
    "1234567890" * 12,
    "!?" * 80,
    "a photo of a cat, " * 20,
    "😀" * 60,
    "x" * 75 + " tail",
)


def texts(count: int = 1000) -> list[str]:
    """Every special case above, then random mixtures of them."""
    fixed = [*FOREIGN, *SYMBOLS, *MARKUP, *SPACES, *CONTRACTIONS, *LONG]
    rng = random.Random(0)
    alphabet = [chr(c) for c in (*range(32, 127), *range(0xA1, 0x250), *range(0x400, 0x500))]
    blocks = (
        (0x4E00, 0x9FA5),
        (0x1F300, 0x1F64F),
        (0x600, 0x6FF),
        (0x900, 0x97F),
        (0x2000, 0x2BFF),
    )
    while len(fixed) < count:
        kind = len(fixed) % 4
        if kind == 0:
            parts = [rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(("on", "in", "near"))]
            text = f"A photo of a {' '.join(parts)} the {rng.choice(NOUNS)} {rng.randrange(10**6)}."
        elif kind == 1:
            text = "".join(rng.choices(alphabet, k=rng.randrange(1, 60)))
        elif kind == 2:
            pool = (*FOREIGN, *SYMBOLS, *MARKUP, *SPACES, *CONTRACTIONS)
            text = rng.choice(("", " ", ", ", "/")).join(rng.choices(pool, k=rng.randrange(2, 5)))
        else:
            low, high = rng.choice(blocks)
            # Characters of newer Unicode versions are letters for one library and not for another.
            known = [chr(c) for c in range(low, high) if unicodedata.category(chr(c)) != "Cn"]
            text = "".join(
                rng.choice(known if rng.random() < 0.6 else alphabet)
                for _ in range(rng.randrange(1, 30))
            )
        fixed.append(text)
    return fixed


def main() -> None:
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).with_name("tokenizer.py")
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.SimpleTokenizer()
    chosen = texts()
    rows = []
    for text in chosen:
        ids = tokenizer([text])[0].tolist()
        # Without the padding; a row can hold zeros before its end, since "!" has the id 0 too.
        used = len(ids) - ids[::-1].index(tokenizer.eot_token_id)
        rows.append([text, ids[:used]])
    packages = ("open_clip_torch", "ftfy", "regex")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions["python"] = sys.version.split()[0]
    lines = [json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in rows]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    body = ",\n".join(lines)
    OUT.write_text(f'{{"versions": {json.dumps(versions)},\n"rows": [\n{body}\n]}}\n')
    print(f"{OUT}: {len(rows)} texts, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
