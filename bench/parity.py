"""Weights of other libraries at their real sizes: do our towers compute the same from them?

    python -m bench.parity [--models vit_b16 clip_b32] [--peers .venv-peers/bin/python] [--write]

For each model a process with torch makes it with random weights and says what it computes of two
images (and two texts), float32; then a process of ours reads its file as ``init_from`` does.
Written: the largest error of what the model gives (logits, or embeddings), relative to the largest
value there, the same of the outputs of its blocks or stages (of all of them, the worst), the same
of what it gives at another, non-square size of images, for which positions and biases are
resampled, and how many tensors are, written back, the same bit for bit. A model without a tower
of ours has it from the card that its library writes. Models that are not asked for keep their
rows, if those are of this version of jax. ``--write`` puts the table into docs/weights.md; with
``--models none`` that is all.
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
from typing import Any, NamedTuple

from bench.common import RESULTS, record

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- parity: written by bench.parity -->", "<!-- end of parity -->"
Row = dict[str, Any]
AT_OTHER = ("other size", "max relative error at it")


class Case(NamedTuple):
    """A model: what the table calls it, whose file it is, and our tower: None is the card's."""

    family: str
    variant: str
    source: str
    tower: Callable[[], Any] | None = None
    learned: tuple[str, ...] = ()


def _vit(**fields: Any) -> Any:
    from vision.models.vit import ViT

    return ViT(**fields)


def _text(**fields: Any) -> Any:
    from vision.models.text import TextTransformer

    return TextTransformer(**fields)


def _tower(module: str, name: str, **fields: Any) -> Any:
    from importlib import import_module

    return getattr(import_module(f"vision.models.{module}"), name)(**fields)


def _clip() -> Any:
    image = _vit(
        variant="B/32",
        class_position=True,
        pre_norm=True,
        norm_epsilon=1e-5,
        activation="quick_gelu",
    )
    text = _text(vocab_size=49408, norm_epsilon=1e-5, activation="quick_gelu")
    return _tower("dual", "Dual", image=image, text=text, width=512)


def _siglip(activation: str) -> Any:
    sizes = {"vocab_size": 32000, "width": 768, "heads": 12, "context": 64}
    text = _text(**sizes, causal=False, pad_id=None, activation=activation)
    image = _vit(variant="B/16", pool="map", activation=activation)
    return _tower(
        "dual", "Dual", image=image, text=text, width=768, image_projection=False, bias=True
    )


def _bert() -> Any:
    return _text(
        vocab_size=30522,
        width=768,
        heads=12,
        context=512,
        causal=False,
        post_norm=True,
        segments=2,
        pool="first",
        pooler=True,
        norm_epsilon=1e-12,
    )


_DINOV2 = functools.partial(_vit, variant="S/14", class_position=True, layer_scale=1.0)
_SCALE, _BOTH = ("log_scale",), ("log_scale", "bias")
MODELS: Mapping[str, Case] = {
    "vit_b16": Case(
        "ViT",
        "B/16",
        "timm",
        functools.partial(_vit, variant="B/16", class_position=True, num_classes=1000),
    ),
    "dinov2_s14_timm": Case("DINOv2", "ViT-S/14", "timm", _DINOV2),
    "dinov2_s14_transformers": Case("DINOv2", "ViT-S/14", "transformers", _DINOV2),
    "resnet50": Case(
        "ResNet", "50", "timm", functools.partial(_tower, "resnet", "ResNet", num_classes=1000)
    ),
    "convnext_t": Case(
        "ConvNeXt",
        "T",
        "timm",
        functools.partial(_tower, "convnext", "ConvNeXt", variant="tiny", num_classes=1000),
    ),
    "swin_t": Case(
        "Swin",
        "T",
        "timm",
        functools.partial(_tower, "swin", "Swin", variant="T", num_classes=1000),
    ),
    "efficientnet_b0": Case(
        "EfficientNet",
        "B0",
        "timm",
        functools.partial(_tower, "efficientnet", "EfficientNet", variant="B0", num_classes=1000),
    ),
    "clip_b32": Case("CLIP, complete", "ViT-B/32", "open_clip", _clip, _SCALE),
    "clip_b32_transformers": Case("CLIP, complete", "ViT-B/32", "transformers", _clip, _SCALE),
    "siglip_b16": Case(
        "SigLIP, complete", "B/16", "open_clip", functools.partial(_siglip, "gelu"), _BOTH
    ),
    "siglip_b16_transformers": Case(
        "SigLIP, complete", "B/16", "transformers", functools.partial(_siglip, "gelu_tanh"), _BOTH
    ),
    "bert_base": Case("BERT", "base", "transformers", _bert),
    "deit3_s16": Case("DeiT III", "S/16", "timm"),
    "so150m": Case("ViT, registers with positions", "so150m2/16", "timm"),
    "dinov2_s14_head": Case("DINOv2, classifier", "S/14, 4 registers", "transformers"),
    "dinov3_s16_timm": Case("DINOv3", "S/16", "timm"),
    "dinov3_s16_transformers": Case("DINOv3", "S/16", "transformers"),
    "beit_b16_timm": Case("BEiT", "B/16", "timm"),
    "beit_b16_transformers": Case("BEiT", "B/16", "transformers"),
    "eva02_ti14": Case("EVA-02", "Ti/14", "timm"),
    "swinv2_t": Case("Swin V2", "T, window 8", "timm"),
    "mixer_b16": Case("MLP-Mixer", "B/16", "timm"),
    "tf_efficientnet_lite0": Case("EfficientNet-Lite, SAME", "lite0", "timm"),
    "seresnet50": Case("SE-ResNet", "50", "timm"),
    "resnetaa50": Case("ResNet, means", "50", "timm"),
    "resnetblur50": Case("ResNet, blur", "50", "timm"),
    "resnetv2_50": Case("ResNet v2, BatchNorm", "50", "timm"),
    "regnety_016": Case("RegNetY", "1.6GF", "timm"),
    "resnet50_transformers": Case("ResNet", "50", "transformers"),
    "xcit_nano": Case("XCiT", "nano, 12 blocks, p16", "timm"),
    "maxvit_t": Case("MaxViT", "T, of Google", "timm"),
    "mobilenetv4_conv_small": Case("MobileNetV4", "small", "timm"),
    "resnet50d": Case("ResNet-D", "50", "timm"),
    "convnextv2_t": Case("ConvNeXt V2", "T", "timm"),
}


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
    classes = 1000 if "out/logits" in expected and not case.learned else None
    tower = _of_card(case.source, folder, classes) if case.tower is None else case.tower()

    def load(expected: Mapping[str, Any]) -> tuple[Any, Any]:
        """Our parameters for images of this size, and the inputs."""
        inputs = expected.get("images", expected.get("ids"))
        if case.learned:
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
    if case.learned:
        learned = loaded["objective"]["contrast"]
        logits = found["image/embedding"] @ found["text/embedding"].T
        found["logits"] = np.exp(learned["log_scale"]) * logits + learned.get("bias", 0.0)
    if missing := sites.keys() - found.keys():
        raise SystemExit(f"{name}: {type(tower).__name__} gives no {', '.join(sorted(missing))}")
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
        "max relative error there": f"{max(features.values()):.1e}",
        **at_other,
        "tensors bit for bit": f"{same} of {len(back)}",
    }


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
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with the peers")
    parser.add_argument("--write", action="store_true", help="the tables into their pages")
    parser.add_argument("--measure", type=Path, help="folder of a peer's files; prints one row")
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(flags.models[0], flags.measure)))
        return
    asked = [name for name in flags.models if name != "none"]
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
