"""Classifies images by an exported program, without the code of its model.

    python -m vision.weights.serve_artefact FOLDER IMAGE...

The folder was written by ``vision.weights.export --stablehlo``: the program, the preprocessing,
and the names of the classes. Prints the five likeliest classes of every image. An exported program
is code: run only folders whose origin you trust.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vision.config.cli import help_first

if __name__ == "__main__":
    help_first(__doc__)

import jax.export
import numpy as np

from vision.config.errors import UserError
from vision.data import files
from vision.data.decode import DecodeError, decode
from vision.weights.artefact import LABELS, PROGRAM
from vision.weights.cards import read
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print("error: give a folder and at least one image", file=sys.stderr)
        return 2
    folder, images = Path(arguments[0]), arguments[1:]
    try:
        card_and_path = read(f"safetensors:{folder}")
        if card_and_path is None or not (folder / PROGRAM).is_file():
            raise WeightsError(f"{folder} holds no exported program; export with --stablehlo")
        card = card_and_path[0]
        if not isinstance(card, Preprocessing):
            raise WeightsError(f"{card_and_path[1]} is of images of any shape, and no program is")
        program = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        labels = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        for image in images:
            mode = "grey" if len(card.mean) == 1 else "rgb"
            example = {"image": decode(files.read_bytes(image), mode=mode)}
            for op in card.geometry():
                example = op(example, np.random.default_rng(0))
            log_probabilities = np.asarray(
                program.call(example["image"][None])["log_probabilities"]
            )[0]
            best = np.argsort(-log_probabilities)[:5]
            lines = [
                f"{labels[i] if labels else i} {np.exp(log_probabilities[i]):.1%}" for i in best
            ]
            print(f"{image}  {'  '.join(lines)}")
    except (UserError, DecodeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
