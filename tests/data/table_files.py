"""Small tables with images beside them."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from vision.data.sources.manifest import Manifest


def png(height: int = 4, width: int = 6, value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(folder, text: str, name: str = "m.csv", images: int = 3) -> str:
    for i in range(images):
        (folder / f"{i}.png").write_bytes(png(value=i))
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps({"image": f"{i}.png", **row}) + "\n" for i, row in enumerate(rows))


def from_rows(folder, columns, *rows: dict, **options) -> Manifest:
    return Manifest(
        write(folder, jsonl(*rows), "m.jsonl", images=len(rows)), columns=columns, **options
    )
