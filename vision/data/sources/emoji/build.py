"""Builds ``emoji.zip`` from four npm packages; needed only where the file is to be made anew.

    cd /tmp/packages
    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python -m vision.data.sources.emoji.build --packages=/tmp/packages --out=emoji.zip

The archives are checked against the digests below and read where they lie; nothing is unpacked.
The same packages and the same Pillow with the same libwebp give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, features

from vision.config.errors import UserError
from vision.config.files import replace_file
from vision.data.sources.emoji.packed import CELLS, HOUSES, LANGUAGES, SIDE_PX, TONES

PACKAGES = {
    "noto": (
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twemoji": (
        "emoji-datasource-twitter-16.0.0.tgz",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "fluent": (
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "names": (
        "emojibase-data-17.0.0.tgz",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
}
"""Archive of every part as ``npm pack`` names it, and its SHA-256."""

_TONE_CODES = {"light": "1F3FB", "dark": "1F3FF"}
_QUALITY, _ALPHA_QUALITY = 78, 70
_EPOCH = (1980, 1, 1, 0, 0, 0)


def package(path: Path, sha256: str) -> dict[str, bytes]:
    """The files of an npm archive by their path inside it, large sheets left out.

    Raises:
      UserError: there is no such file, or it does not have this SHA-256.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; get it with npm pack, see --help")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{path}: SHA-256 is {found}, expected {sha256}")
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and "/sheets" not in member.name:
                file = archive.extractfile(member)
                assert file is not None
                files[member.name.removeprefix("package/")] = file.read()
    return files


def plain_code(code: str) -> str:
    """A code without variation selectors, in capitals: packages differ in both."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


Files = dict[str, bytes]


def emoji_list(noto: Files, names: Files) -> list[dict[str, Any]]:
    """Every emoji in Unicode's order: ``code``, ``group``, ``subgroup``, ``tones`` (codes)."""
    drawn = json.loads(noto["emoji.json"])
    named = {plain_code(each["hexcode"]): each for each in json.loads(names["en/data.json"])}
    emoji = []
    for each in drawn:
        code = plain_code(each["unified"])
        variations = each.get("skin_variations", {})
        tones = {
            tone: plain_code(variations[part]["unified"])
            for tone, part in _TONE_CODES.items()
            if part in variations
        }
        place = named[code]
        emoji.append(
            {
                "code": code,
                "group": place["group"],
                "subgroup": place["subgroup"],
                "order": place["order"],
                "tones": tones,
            }
        )
    return sorted(emoji, key=lambda each: each["order"])


def picture(code: str, pictures: Files) -> Image.Image | None:
    """The drawing of a code at its own size with alpha; None where the house has none."""
    if code not in pictures:
        return None
    return Image.open(io.BytesIO(pictures[code])).convert("RGBA")


_FOLDERS = {"noto": "img/google/64/", "twemoji": "img/twitter/64/", "fluent": "assets/"}


def sheets(images: list[Image.Image]) -> list[bytes]:
    """Pictures as WebP sheets of CELLS x CELLS cells, in rows from the top left."""
    found = []
    for start in range(0, len(images), CELLS * CELLS):
        part = images[start : start + CELLS * CELLS]
        rows = -(-len(part) // CELLS)
        sheet = Image.new("RGBA", (CELLS * SIDE_PX, rows * SIDE_PX))
        for k, image in enumerate(part):
            small = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            sheet.paste(small, (k % CELLS * SIDE_PX, k // CELLS * SIDE_PX))
        file = io.BytesIO()
        sheet.save(file, "WEBP", quality=_QUALITY, alpha_quality=_ALPHA_QUALITY, method=6)
        found.append(file.getvalue())
    return found


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def members(folder: Path) -> dict[str, bytes]:
    """The files of the archive by name, made from the packages in ``folder``."""
    packages = {part: package(folder / name, sha) for part, (name, sha) in PACKAGES.items()}
    texts = packages["names"]
    emoji = emoji_list(packages["noto"], texts)
    groups = json.loads(texts["meta/groups.json"])
    drawings: dict[str, list[tuple[int, int]]] = {}
    files: dict[str, bytes] = {}
    for house in HOUSES:
        pictures = {
            plain_code(Path(name).stem): data
            for name, data in packages[house].items()
            if name.startswith(_FOLDERS[house])
        }
        drawn: list[tuple[int, int]] = []
        images: list[Image.Image] = []
        for tone_number, tone in enumerate(TONES):  # all default tones first
            for number, each in enumerate(emoji):
                code = each["code"] if tone == "default" else each["tones"].get(tone)
                image = picture(code, pictures) if code else None
                if image is not None:
                    drawn.append((number, tone_number))
                    images.append(image)
        drawings[house] = drawn
        for k, sheet in enumerate(sheets(images)):
            files[f"{house}/{k:02}.webp"] = sheet
    for language in LANGUAGES:
        data = json.loads(texts[f"{language}/data.json"])
        said = {plain_code(each["hexcode"]): each for each in data}
        rows = [said[each["code"]] for each in emoji]
        files[f"names/{language}.json"] = _as_json(
            [[row["label"], *row.get("tags", [])] for row in rows]
        )
    files["index.json"] = _as_json(
        {
            "groups": list(groups["groups"].values()),
            "subgroups": list(groups["subgroups"].values()),
            "languages": LANGUAGES,
            "emoji": [[each["code"], each["group"], each["subgroup"]] for each in emoji],
            "drawings": drawings,
        }
    )
    files["LICENSE.emoji.md"] = Path(__file__).with_name("LICENSE.emoji.md").read_bytes()
    files["made_from.json"] = json.dumps(
        {
            "packages": dict(PACKAGES.values()),
            "side_px": SIDE_PX,
            "webp": {"quality": _QUALITY, "alpha_quality": _ALPHA_QUALITY},
            "libwebp": features.version("webp"),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        },
        indent=1,
    ).encode()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vision.data.sources.emoji.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--packages", required=True, metavar="FOLDER", help="the four archives")
    parser.add_argument("--out", required=True, metavar="FILE", help="archive to write")
    arguments = parser.parse_args()
    files = members(Path(arguments.packages))
    with (
        replace_file(Path(arguments.out)) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        for name, data in sorted(files.items()):
            stored = name.endswith(".webp")
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=None if stored else 9)
    data = Path(arguments.out).read_bytes()
    print(f"{arguments.out}: {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
