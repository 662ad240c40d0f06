"""Exports a run as a folder for other programs: weights, config, preprocessing, model card.

    python -m vision.weights.export --workdir=workdirs/x --output=folder --to=timm

The folder holds

    model.safetensors     open_clip_model.safetensors for open_clip
    config.json           in the convention of ``--to``; for ``ours`` the resolved config
    preprocessing.json    from image to input; the other libraries' own files beside it
    labels.json           names of the classes
    README.md             model card: metrics, data, licence, step and digest
    model.stablehlo       with ``--stablehlo``: see ``vision.weights.artefact``
    model.onnx            with ``--onnx``: see ``vision.weights.onnx_program``
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from vision.config.cli import help_first

To = Literal["ours", "timm", "open_clip", "transformers"]
FLAGS = {
    "workdir": "folder of the run",
    "output": "folder to write",
    "step": "of the checkpoint, or best; the newest valid one by default",
    "to": f"whose names and config: {', '.join(get_args(To))}; ours by default",
    "dtype": "float32, float16 or bfloat16; as the parameters are by default",
    "licence": "for the model card, such as apache-2.0",
    "architecture": "timm's name of it, where it cannot be told from the tower",
    "stablehlo": "write the compiled program too",
    "onnx": "write an ONNX file, for any number of images at a time; --onnx=8 for eight",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import jax
import ml_dtypes
import numpy as np

from vision.blocks.scale import Scale
from vision.checkpoint.commands import exported
from vision.checkpoint.reading import flatten
from vision.checkpoint.retention import named_step
from vision.config.cli import UsageError, parse, run_main, whole_number
from vision.config.specs import to_plain
from vision.models.adapted import AdaptedTower, merged
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.posemb import sincos2d
from vision.models.relative_vit import RelativeViT
from vision.models.resnet import ResNet
from vision.models.swin_v2 import SwinV2
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast
from vision.run.restore import Run, load_run
from vision.run.workdir import read_config, write_text
from vision.train.state import digest
from vision.weights.artefact import LABELS, PROGRAM, make_artefact
from vision.weights.cards import OURS, written
from vision.weights.configs import config_of
from vision.weights.families.dual import usual
from vision.weights.mapping import Tree, WeightsError, is_floating, save
from vision.weights.merge import merged_state
from vision.weights.model_card import model_card
from vision.weights.naflex import NaflexPreprocessing, patchify_of
from vision.weights.names import names_of
from vision.weights.onnx_program import ONNX, check_packages, make_onnx, real_images
from vision.weights.preprocessing import Preprocessing, of_ops
from vision.weights.reader import write_safetensors

# Images that an ONNX file for any number is verified on.
_VERIFIED = 5
_DTYPES: Mapping[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def export(
    workdir: Path,
    output: Path,
    *,
    step: int | None = None,
    to: To = "ours",
    dtype: str | None = None,
    licence: str = "unknown",
    architecture: str | None = None,
    stablehlo: bool = False,
    onnx: int | None = None,
) -> None:
    """Writes a run's model, averaged parameters where it keeps an average, into a folder.

    Args:
      workdir: folder of a run.
      output: folder to write, made where there is none; files in it are replaced.
      step: of the checkpoint; None for the newest valid one.
      to: whose names, layout and config.
      dtype: of the floating-point tensors; None for that of the parameters.
      licence: identifier for the model card, such as ``apache-2.0``.
      architecture: timm's name of it, where it cannot be told from the tower.
      stablehlo: write the compiled program too.
      onnx: write an ONNX file for so many images at a time, verified on real ones; 0 for any
        number; None for no file.

    Raises:
      WeightsError: the library cannot express the model or its preprocessing.
      CheckpointError, WorkdirError: the run cannot be read.
    """
    if to not in get_args(To):
        raise WeightsError(f"--to={to}, but it is one of {', '.join(get_args(To))}")
    if dtype is not None and dtype not in _DTYPES:
        raise WeightsError(f"--dtype={dtype}, but it is one of {', '.join(_DTYPES)}")
    if onnx is not None:
        check_packages()
    run = load_run(workdir, step)
    card = card_of(run)
    if card is None and (to != "ours" or stablehlo or onnx is not None):
        raise WeightsError(
            f"no evaluator of {workdir} has ops, which give the model's preprocessing"
        )
    if isinstance(card, NaflexPreprocessing) and (to != "ours" or stablehlo or onnx is not None):
        raise WeightsError(
            f"{workdir} reads images of any shape as patches, of which only --to=ours is written"
        )
    texts = {"step": str(run.step), "format": "pt"}
    files: dict[str, Any] = {}
    if to == "ours":
        tensors, texts = exported(workdir, run.step)
        merged_tensors = merged_state(workdir, tensors)
        tensors = {name: np.asarray(x[...]) for name, x in merged_tensors.items()}
        files["config.json"] = _plain_config(workdir, run)
    else:
        assert isinstance(card, Preprocessing)
        (model, trees), labels = _plain_model(run), run.data_spec.class_names
        files = config_of(to, model, card, labels, _learned(trees), architecture)
        tensors = library_tensors(model, trees, to, card.size)
    if dtype is not None:
        tensors = {name: _cast(array, _DTYPES[dtype]) for name, array in tensors.items()}
    texts["digest"] = digest(tensors)
    if card is not None:
        files[OURS] = written("safetensors", card)
        files[LABELS] = list(run.data_spec.class_names)
    readme = model_card(workdir, run, files, tensors, to=to, licence=licence, texts=texts)

    translated, differences = b"", {}
    if onnx is not None:
        assert isinstance(card, Preprocessing)
        images = real_images(run, card, onnx or _VERIFIED)
        translated, differences = make_onnx(
            run.predict, run.variables, card, images, any_number=not onnx
        )
    output.mkdir(parents=True, exist_ok=True)
    weights = "open_clip_model.safetensors" if to == "open_clip" else "model.safetensors"
    write_safetensors(output / weights, tensors, texts)
    for name, content in files.items():
        write_text(output / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(output / "README.md", readme)
    if stablehlo:
        assert isinstance(card, Preprocessing)
        (output / PROGRAM).write_bytes(make_artefact(run.predict, run.variables, card))
    if onnx is not None:
        (output / ONNX).write_bytes(translated)
    programs = [*([PROGRAM] if stablehlo else []), *([ONNX] if onnx is not None else [])]
    listed = ", ".join([weights, *files, "README.md", *programs])
    print(f"{output}: step {run.step}, {len(tensors)} tensors as {to} names them: {listed}")
    if onnx is not None:
        worst = max(differences.items(), key=lambda pair: pair[1], default=("nothing", 0.0))
        print(
            f"{output / ONNX}: {onnx or 'any number of'} image(s) at a time; onnxruntime differs "
            f"from us by at most {worst[1]:.1e} of the largest number ({worst[0]})"
        )


def card_of(run: Run) -> Preprocessing | NaflexPreprocessing | None:
    """Preprocessing of the first evaluator that has ops; None where none has any."""
    shape = run.data_spec.batch["image"][0][1:] if "image" in run.data_spec.batch else None
    for evaluator in (run.experiment.evaluators or {}).values():
        evaluation = getattr(getattr(evaluator, "data", None), "ops", ())
        if evaluation and shape is not None and (len(shape) == 3 or patchify_of(evaluation)):
            return of_ops(evaluation, tuple(shape))
    return None


def library_tensors(
    model: Any, trees: Mapping[str, Tree], to: str, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The variables of a model under another library's names.

    Fixed positions of a ViT are written as the learned ones that the libraries have.

    Args:
      model: ours.
      trees: ``params``, ``model_state`` and, for a ``Dual``, ``objective``.
      to: the library.
      size: (height, width) of its images.

    Raises:
      WeightsError: the library has no names for the model.
    """
    if isinstance(model, ViT) and model.posemb == "sincos2d":
        patch, width = model.resolved().patch, model.resolved().width
        positions = sincos2d((size[0] // patch, size[1] // patch), width)
        model = model.clone(posemb="learned")
        trees = {**trees, "params": {**trees["params"], "pos_embed": positions}}
    if isinstance(model, Dual):
        return save(names_of(to, model, usual(to, model), _learned(trees)), trees)
    layout_names = _classifier_names(model) if to == "transformers" else ()
    network_trees = {name: tree for name, tree in trees.items() if name != "objective"}
    return save(
        names_of(to, model, dict.fromkeys(layout_names, np.zeros(0, np.float32))), network_trees
    )


def _classifier_names(model: Any) -> tuple[str, ...]:
    """Names by which the files of transformers' classifiers are told: what is within the model, and
    its head beside it."""
    first, head = "vit.embeddings.cls_token", "classifier"
    match model:
        case ResNet():
            first, head = "resnet.embedder.embedder", "classifier.1"
        case ConvNeXt():
            first = f"convnext{'v2' if model.grn else ''}.embeddings"
        case SwinV2():
            first = "swinv2.embeddings"
        case RelativeViT():
            first = "beit.relative_position" if model.rope is None else ""
        case ViT() if model.layer_scale is not None:
            first = f"dinov2{'_with_registers' if model.registers else ''}.lambda1"
        case _:
            pass
    return first, f"{head}.weight", f"{head}.bias"


def _learned(trees: Mapping[str, Tree]) -> list[str]:
    """Names of the learned parameters of an image-text model's loss."""
    return [name.rpartition(".")[2] for name in flatten(trees.get("objective", {}))]


def _plain_model(run: Run) -> tuple[Any, dict[str, Tree]]:
    """The model of a run, with adapters merged into it, and its variables."""
    variables = jax.device_get(run.variables)
    if "model" not in variables.params:
        raise WeightsError("this run's objective has no network called model")
    model = run.experiment.model
    trees = {
        "params": variables.params["model"],
        "model_state": variables.model_state.get("model", {}),
    }
    if isinstance(model, AdaptedTower):
        try:
            model, trees = merged(model, trees)
        except ValueError as error:
            raise WeightsError(str(error)) from error
    objective = {k: tree for k, tree in variables.params.items() if k != "model"}
    if isinstance(run.experiment.objective, Contrast) and "contrast" in objective:
        criterion: Any = run.experiment.objective.criterion
        objective["contrast"] = as_used(criterion.scale, objective["contrast"])
    return model, {**trees, "objective": objective}


def as_used(scale: Scale, learned: Mapping[str, Any]) -> dict[str, Any]:
    """The learned parameters of a loss with the bound on the scale applied, as training does.

    The parameter itself may lie beyond the bound, which only this code applies when it is read.
    """
    if "log_scale" not in learned or scale.maximum is None:
        return dict(learned)
    highest = np.float32(math.log(scale.maximum))
    return {**learned, "log_scale": np.minimum(np.asarray(learned["log_scale"]), highest)}


def _plain_config(workdir: Path, run: Run) -> Any:
    """The resolved config, of the tower alone where adapters were merged into it."""
    config = to_plain(read_config(workdir))
    if isinstance(run.experiment.model, AdaptedTower):
        config["model"] = config["model"]["tower"]
    return config


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if is_floating(array.dtype) else array


def main(arguments: list[str]) -> int:
    options = parse(
        arguments,
        __doc__ or "",
        required=("workdir",),
        **FLAGS,
    )
    if not isinstance(options.output, str):
        raise UsageError("--output=... is required (see --help)")
    export(
        Path(options.workdir),
        Path(options.output),
        step=named_step(Path(options.workdir), options.step or None),
        to=options.to or "ours",
        dtype=options.dtype or None,
        licence=options.licence or "unknown",
        architecture=options.architecture or None,
        stablehlo=bool(options.stablehlo),
        onnx=_images(options.onnx),
    )
    return 0


def _images(given: str | bool) -> int | None:
    """``onnx`` of ``export``, of the flag."""
    if given is False:
        return None
    if given is not True and not whole_number("onnx", given):
        raise UsageError("--onnx=0: leave the number out for any number of images")
    return whole_number("onnx", given) if given is not True else 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
