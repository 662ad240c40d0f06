"""Towers and preprocessing from the name of weights alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from vision.config.hints import CONSTRUCTOR
from vision.config.modes import Config
from vision.config.schema import locate, parameters, unknown_key
from vision.config.specs import spec
from vision.weights import cards
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.naflex import NaflexPreprocessing
from vision.weights.preprocessing import Preprocessing
from vision.weights.tower_cards import TowerCard, read_tower


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Stands for the tower of some weights, in the place of a ``model``, and has it read from them.

    The config file is read with the file beside the weights, so that the run's own config holds the
    tower in full, ``spec(ViT, width=384, ...)``, and ``init_from`` with the source, unless that is
    there already. It does not depend on that file later, and ``--config.model.drop_path=0.1`` sets
    a field of the tower.

    Attributes:
      source: as of ``InitFrom``; ``timm:``, ``open_clip:`` or ``transformers:``.
      part: ``image`` or ``text`` of an image-text model; empty for all of it.
      fields: of the tower, that the weights leave open: ``{"drop_path": 0.1}``.
    """

    fills: ClassVar[str] = "init_from"

    source: str
    part: Literal["", "image", "text"] = ""
    fields: Mapping[str, Any] | None = None

    def expanded(self) -> Config:
        """The tower's config.

        Raises:
          WeightsError: nothing says which tower it is, or none here is it.
        """
        card = tower_card(self.source)
        config = (card.part(self.part) if self.part else card).config.copy_and_resolve_references()
        constructor = locate(config[CONSTRUCTOR])
        accepted = parameters(constructor)
        for key, value in (self.fields or {}).items():
            if key not in accepted:
                raise WeightsError(f"fields: {unknown_key(key, accepted, constructor)}")
            with config.unlocked(), config.ignore_type():
                config[key] = value
        return config

    def beside(self, place: str) -> Config:
        """Where a run's parameters come from.

        Raises:
          WeightsError: it stands elsewhere than in the ``model``, which alone has its parameters
            read.
        """
        field, _, inside = place.partition(".")
        if field != "model":
            raise WeightsError(f"Pretrained stands in a model, not in {place}, which nothing fills")
        return spec(InitFrom, source=self.source, into=inside)


@dataclasses.dataclass(frozen=True)
class PretrainedOps:
    """Stands, in a list of ops, for those that turn an image into what some weights expect.

    Attributes:
      source: as of ``Pretrained``.
      only_values: only those from pixels to numbers, after a training run's own crops.
    """

    source: str
    only_values: bool = False

    def expanded(self) -> tuple[Config, ...]:
        """Decoding, resizing, cropping and normalisation, as the card says.

        Raises:
          WeightsError: there is no card, or it is not what it should be.
        """
        card = preprocessing(self.source)
        found = card.values() if self.only_values else card.evaluation()
        return tuple(_as_spec(op) for op in found)


def preprocessing(source: str) -> Preprocessing | NaflexPreprocessing:
    """What weights expect of images, from the card beside them.

    Raises:
      WeightsError: there is no card, or it is not what it should be.
    """
    found = cards.read(source)
    if found is None:
        raise WeightsError(
            f"{source}: no {cards.FILES.get(source.partition(':')[0], 'card')} beside the weights "
            "says how images are prepared; write it into the config, Preprocessing(size=...)"
        )
    return found[0]


def tower_card(source: str) -> TowerCard:
    """The tower of weights as the file beside them states it.

    Raises:
      WeightsError: there is no such file, or no tower here is it.
    """
    card = read_tower(source)
    if card is None:
        raise WeightsError(
            f"{source}: no config file beside the weights says which tower they are of; write it "
            "into the config by hand, model=spec(ViT, ...) and init_from=spec(InitFrom, ...)"
        )
    return card


def _as_spec(op: Any) -> Config:
    fields = {f.name: getattr(op, f.name) for f in dataclasses.fields(op) if f.init}
    return spec(type(op), **fields)
