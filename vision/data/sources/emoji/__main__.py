"""``python -m vision.data.sources.emoji --sheet out.png``: a contact sheet of the drawings."""

from __future__ import annotations

import argparse

import numpy as np

from vision.data.sources.emoji.compose import Placed, compose
from vision.data.sources.emoji.packed import GROUPS, HOUSES, TONES, index
from vision.data.sources.emoji.source import Emoji
from vision.data.sources.scenes.contact_sheet import COLUMNS, TILE, Row, Tile, draw_sheet, outlined


def _examples(source: Emoji, feature: str = "caption") -> list[Tile]:
    examples = [source[i] for i in range(COLUMNS)]
    names = source.class_names
    if feature == "label":
        return [(each["image"], names[int(each["label"])]) for each in examples]
    return [(each["image"], each[feature]) for each in examples]


def _same_by_all_houses() -> list[Row]:
    by_emoji: dict[int, dict[int, np.ndarray]] = {}
    for drawing in Emoji().drawings:
        picture = compose(None, (Placed(drawing, 0.5),), (TILE, TILE)).image
        by_emoji.setdefault(drawing.emoji, {})[drawing.house] = picture
    everywhere = [number for number, drawn in by_emoji.items() if len(drawn) == len(HOUSES)]
    chosen = everywhere[:: len(everywhere) // COLUMNS][:COLUMNS]
    groups = [GROUPS[index().emoji[number].group] for number in chosen]
    return [
        (f"drawn by {name}", [(by_emoji[n][h], g) for n, g in zip(chosen, groups, strict=True)])
        for h, name in enumerate(HOUSES)
    ]


def rows() -> list[Row]:
    """Label and tiles of every row."""
    sheet = _same_by_all_houses()
    told = ("image", "caption", "label")
    for language in ("en", "nl"):
        source = Emoji(image_size=TILE, features=told, languages=(language,))
        sheet.append((f"one on a ground of scenes, name in {language}", _examples(source)))
    several = Emoji(
        image_size=TILE, num_objects=(2, 5), rotation_deg=30, overlap=0.3, clutter=4, features=told
    )
    sheet.append(("two to five, turned, with clutter", _examples(several)))
    tiles = []
    for i in range(COLUMNS):
        drawn = compose(several.ground(i), several.placed(i), several.image_shape)
        tiles.append((outlined(drawn), f"{drawn.visible.min():.0%} visible"))
    sheet.append(("their masks and boxes", tiles))
    for label in ("group", "subgroup"):
        source = Emoji(image_size=TILE, features=told, label=label, imbalance="none")
        sheet.append((f"label {label}, classes in equal numbers", _examples(source, "label")))
    tail = Emoji(image_size=TILE, features=told, label="group", imbalance="zipf", skew=2.0)
    sheet.append(("label group, Zipf shares, skew 2", _examples(tail, "label")))
    unseen = Emoji(image_size=TILE, features=told, part="unseen", backgrounds=())
    sheet.append(("held-out emoji, on white", _examples(unseen)))
    hands = [d for d in Emoji(groups=("people-body",), tones=TONES).drawings if d.tone]
    toned = [d for d in Emoji(groups=("people-body",), tones=TONES).drawings if d.house == 0]
    chosen = [d.emoji for d in hands if d.house == 0][:120:30]
    tiles = [
        (compose(None, (Placed(d, 0.5),), (TILE, TILE)).image, TONES[d.tone])
        for number in chosen
        for d in toned
        if d.emoji == number
    ]
    sheet.append(("near-duplicates: skin tones", tiles))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vision.data.sources.emoji",
        description="Draw a contact sheet of the emoji and what can be done with them.",
    )
    parser.add_argument("--sheet", required=True, metavar="FILE", help="image to write")
    arguments = parser.parse_args()
    draw_sheet(rows()).save(arguments.sheet)
    print(f"wrote {arguments.sheet}")


if __name__ == "__main__":
    main()
