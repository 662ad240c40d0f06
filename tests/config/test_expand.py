"""What stands for other parts of a config, by objects of this file."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest

from vision.config.expand import expand, overridden
from vision.config.schema import ConfigError
from vision.config.specs import spec


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Source:
    name: str


@dataclasses.dataclass(frozen=True)
class Whole:
    model: Any = None
    parts: tuple[Any, ...] = ()
    source: Any = None


@dataclasses.dataclass(frozen=True)
class Wrapped:
    inner: Any


@dataclasses.dataclass(frozen=True)
class Named:
    """Stands for a part, and says where the whole comes from."""

    fills: ClassVar[str] = "source"

    name: str = "a"

    def expanded(self) -> Any:
        if self.name == "none":
            raise ConfigError("nothing has this name")
        return spec(Part, size=len(self.name))

    def beside(self, place: str) -> Any:
        return spec(Source, name=f"{self.name} in {place}")


@dataclasses.dataclass(frozen=True)
class Several:
    fills: ClassVar[str] = ""

    count: int = 2

    def expanded(self) -> Any:
        return tuple(spec(Part, size=i) for i in range(self.count))

    def beside(self, place: str) -> Any:
        raise NotImplementedError


def test_in_its_place_and_beside_it():
    config = expand(spec(Whole, model=spec(Wrapped, inner=spec(Named, name="abc"))))
    assert config.model.inner.size == 3
    assert config.source.name == "abc in model.inner"
    kept = spec(Whole, model=spec(Named, name="abc"), source=spec(Source, name="other"))
    assert expand(kept).to_dict()["source"]["name"] == "other"
    assert kept.to_dict()["model"]["name"] == "abc"


def test_in_a_list():
    config = expand(
        spec(Whole, parts=[spec(Part, size=9), spec(Several), spec(Named, name="abcd")])
    )
    assert [part.size for part in config.parts] == [9, 0, 1, 4]
    assert config.source.name == "abcd in parts[2]"


def test_overrides_before_and_after():
    config = spec(Whole, model=spec(Named), parts=[spec(Several)])
    found = overridden(config, {"model.size": "7", "parts[0].count": "3", "model.name": "abc"}, "x")
    assert found.model.size == 7
    assert found.source.name == "abc in model"
    assert len(found.parts) == 3
    assert overridden(spec(Whole), {}, "x").source is None


def test_errors_name_the_place():
    for node, message in (
        (spec(Named, name="none"), "x: config.model: nothing has this name"),
        (spec(Wrapped, inner=spec(Named, name="none")), "x: config.model.inner: nothing has"),
    ):
        with pytest.raises(ConfigError, match=message):
            expand(spec(Whole, model=node), "x")
