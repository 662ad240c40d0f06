"""Weights of other libraries at their real sizes: do our towers compute the same from them?

    python -m bench.parity [--models vit_b16 clip_b32] [--peers .venv-peers/bin/python] [--write]
    python -m bench.parity --missing --write

For each model a process with torch makes it with random weights and says what it computes of two
images (and two texts), float32; then a process of ours reads its file as ``init_from`` does.
Written: the largest error of what the model gives (logits, or embeddings), relative to the largest
value there, the same of the outputs of its blocks or stages (of all of them, the worst), the same
of what it gives at another, non-square size of images, for which positions and biases are
resampled, and how many tensors are, written back, the same bit for bit. A model without a tower
of ours has it from the card that its library writes. Models that are not asked for keep their
rows, if those are of this version of jax; ``--missing`` asks for those without a row. ``--write``
puts the table into docs/weights.md; with ``--models none`` that is all.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.common import RESULTS, record
from bench.parity_cases import MODELS

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- parity: written by bench.parity -->", "<!-- end of parity -->"
Row = dict[str, Any]
AT_OTHER = ("other size", "max relative error at it")


def measure(name: str, folder: Path) -> Row:
    """What this process, which has no torch, makes of the files of a peer."""
    import jax
    import numpy as np

    from vision.train.tower import count_params, forward, initialise
    from vision.weights.init_from import InitFrom
    from vision.weights.mapping import save
    from vision.weights.names import names_of
    from vision.weights.reader import open_weights

    case = MODELS[name]
    stored = {key: x[...] for key, x in open_weights(folder / "expected.safetensors").items()}
    expected = {key: x for key, x in stored.items() if not key.startswith("other/")}
    file = folder / "model.safetensors"
    logits = expected.get("out/logits")
    classes = None if logits is None or case.learned else logits.shape[-1]
    tower = _of_card(case.source, folder, classes) if case.tower is None else case.tower()

    def load(expected: Mapping[str, Any]) -> tuple[Any, Any]:
        """Our parameters for images of this size, and the inputs."""
        inputs = expected.get("images", expected.get("ids"))
        if {"images", "ids"} <= expected.keys():
            inputs = {"image": expected["images"], "text": expected["ids"]}
        init = functools.partial(initialise, tower, jax.random.key(0))
        params, state = jax.eval_shape(init, inputs)
        target: dict[str, Any] = {"params": params, "model_state": dict(state)}
        if case.learned:
            number = jax.ShapeDtypeStruct((), np.float32)
            target["objective"] = {"contrast": dict.fromkeys(case.learned, number)}
        return InitFrom(f"{case.source}:{file}", head="read").load(tower, target), inputs

    loaded, inputs = load(expected)
    sites = {key.removeprefix("out/"): x for key, x in expected.items() if key.startswith("out/")}
    other = {key.removeprefix("other/"): x for key, x in stored.items() if key not in expected}

    @jax.jit
    def run(params: Any, state: Any, inputs: Any) -> dict[str, jax.Array]:
        out = forward(tower, params, state, inputs, train=False)[1]
        return {site: out[site] for site in sites if site in out}

    with jax.default_matmul_precision("float32"):
        found: dict[str, Any] = run(loaded["params"], loaded["model_state"], inputs)
    if case.learned and "logits" in sites:
        learned = loaded["objective"]["contrast"]
        logits = found["image/embedding"] @ found["text/embedding"].T
        found["logits"] = np.exp(learned["log_scale"]) * logits + learned.get("bias", 0.0)
    if missing := sites.keys() - found.keys():
        raise SystemExit(f"{name}: {type(tower).__name__} gives no {', '.join(sorted(missing))}")
    if expected.get("images", np.empty(0)).ndim == 3:  # what stands in the padding of patches
        shown = _shown(expected["images"])
        found = {k: x * shown if x.ndim == 3 else x for k, x in found.items()}
    errors = {site: _error(np.asarray(found[site]), wanted) for site, wanted in sites.items()}
    features = {site: error for site, error in errors.items() if "block" in site}
    outputs = {site: error for site, error in errors.items() if site not in features}

    weights = open_weights(file)
    at_other = dict.fromkeys(AT_OTHER, "")
    if other:
        resized, images = load(other)
        wanted = {key.removeprefix("out/"): x for key, x in other.items() if "out/" in key}
        with jax.default_matmul_precision("float32"):
            out = run(resized["params"], resized["model_state"], images)
        worst = max(_error(np.asarray(out[site]), x) for site, x in wanted.items())
        size = "x".join(map(str, other["images"].shape[1:3]))
        at_other = dict(zip(AT_OTHER, (size, f"{worst:.1e}"), strict=True))
    names = names_of(case.source, tower, weights, case.learned)
    back = save(names, loaded)
    same = sum(np.array_equal(x, weights[key][...]) for key, x in back.items())
    return {
        "parameters M": round(count_params(loaded["params"]) / 1e6, 1),
        "outputs": " ".join(outputs),
        "max relative error": f"{max(outputs.values()):.1e}",
        "blocks or stages": len(features),
        "max relative error there": f"{max(features.values()):.1e}" if features else "",
        **at_other,
        "tensors bit for bit": f"{same} of {len(back)}",
    }


def _shown(patches: Any) -> Any:
    """(B, T, 1) bool: which rows of ``ops.Patchify`` are patches, and not padding."""
    import numpy as np

    counts = patches[:, 0, -2:].prod(-1)
    return (np.arange(patches.shape[1]) < counts[:, None])[..., None]


def _of_card(source: str, folder: Path, classes: int | None) -> Any:
    from vision.config.specs import build
    from vision.weights.pretrained import Pretrained

    return build(Pretrained(f"{source}:{folder}").expanded(), num_classes=classes)


def _error(found: Any, wanted: Any) -> float:
    """Largest difference, relative to the largest value that is wanted."""
    if found.shape != wanted.shape:
        raise SystemExit(f"shapes differ: ours {found.shape}, theirs {wanted.shape}")
    error = float(abs(found - wanted).max() / abs(wanted).max())
    return error if math.isfinite(error) else math.inf


def compare(name: str, python: str) -> Row:
    """A row: the peer and ours, one after another, each in a process of its own."""
    case, start = MODELS[name], time.perf_counter()
    peer = str(ROOT / "bench" / "peers" / "parity_model.py")
    with tempfile.TemporaryDirectory() as folder:
        version = _output([python, peer, name, folder])
        ours = [sys.executable, "-m", "bench.parity", "--models", name, "--measure", folder]
        found = json.loads(_output(ours).splitlines()[-1])
    where = {"model": name, "family": case.family, "variant": case.variant, "source": case.source}
    seconds = {"seconds": round(time.perf_counter() - start)}
    return {**where, "peer": version, **found, **seconds}


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    return done.stdout.strip()


def read() -> list[dict[str, str]]:
    """The rows that were written, in the order of ``MODELS``."""
    path = RESULTS / "parity.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    return [_with_columns(rows[name]) for name in MODELS if name in rows]


def _with_columns(row: dict[str, str]) -> dict[str, str]:
    """A row with the columns of a second size, which older ones lack."""
    found = {}
    for key, value in row.items():
        found[key] = value
        if key == "max relative error there":
            found |= {name: row.get(name, "") for name in AT_OTHER}
    return found


Columns = Mapping[str, Callable[[dict[str, str]], str]]

SHORT: Columns = {
    "Family": lambda row: row["family"],
    "Source": lambda row: row["peer"],
    "Variant": lambda row: row["variant"],
    "Max relative error": lambda row: row["max relative error"],
    "Command": lambda row: f"`python -m bench.parity --models {row['model']}`",
}
LONG: Columns = {
    **{name: SHORT[name] for name in ("Family", "Source", "Variant")},
    "Parameters": lambda row: f"{row['parameters M']} M",
    "Compared": lambda row: row["outputs"].replace(" ", ", "),
    "Max relative error": SHORT["Max relative error"],
    "Of blocks or stages": lambda row: (
        f"{row['max relative error there']} ({row['blocks or stages']})"
        if row["max relative error there"]
        else ""
    ),
    "At another size": lambda row: (
        f"{row['max relative error at it']} ({row['other size']})" if row["other size"] else ""
    ),
    "Written back": lambda row: f"{row['tensors bit for bit']} tensors bit for bit",
    "Command": SHORT["Command"],
}
PAGES = {ROOT / "docs" / "numbers.md": SHORT, ROOT / "docs" / "weights.md": LONG}


def table(rows: list[dict[str, str]], columns: Columns) -> str:
    """For pages: family, source, what was compared and how near it is."""
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return "\n".join(
        f"| {' | '.join(line)} |" for line in [[*columns], ["---"] * len(columns), *cells]
    )


def page(path: Path) -> str:
    """A page with the table of the rows that are there between its markers."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path} has no markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(read(), PAGES[path])}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "none"], default=list(MODELS))
    parser.add_argument("--missing", action="store_true", help="the models without a row")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with the peers")
    parser.add_argument("--write", action="store_true", help="the tables into their pages")
    parser.add_argument("--measure", type=Path, help="folder of a peer's files; prints one row")
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(flags.models[0], flags.measure)))
        return
    asked = [name for name in flags.models if name != "none"]
    if flags.missing:
        present = {row["model"] for row in read()}
        asked = [name for name in asked if name not in present]
    for name in asked:
        found = compare(name, flags.peers)
        # Row by row, so that a run that is stopped keeps what it has.
        rows: dict[str, Row] = {
            row["model"]: row for row in read() if row["jax"] == metadata.version("jax")
        }
        rows[name] = found
        record("parity", [rows[other] for other in MODELS if other in rows])
    if flags.write:
        for path in PAGES:
            path.write_text(page(path), encoding="utf-8")
            print(f"written to {path}")


if __name__ == "__main__":
    main()
