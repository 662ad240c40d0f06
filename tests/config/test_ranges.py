"""Ranges of fields: checked in configs before anything is built, and in constructors."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, get_args, get_origin

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_documented_fields import classes
from vision.config import specs as c
from vision.config.hints import field_hints, misfit, show
from vision.config.ranges import (
    Even,
    Finite,
    Fraction,
    Ge,
    Gt,
    Le,
    Lt,
    MinLen,
    NonEmpty,
    NonNegative,
    Odd,
    Positive,
    PositiveRange,
    Rate,
    Regex,
    Rule,
    Unique,
    checked,
)
from vision.config.schema import ConfigError


@dataclasses.dataclass(frozen=True)
@checked
class Layer:
    width: Positive[int]
    heads: Positive[int] | None = None
    rate: Rate = 0.0
    kernels: tuple[Positive[int], ...] = ()
    mode: Literal["sum", "mean"] | None = "sum"
    free: float = 0.0

    def __post_init__(self) -> None:
        if self.heads is not None and self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")


@dataclasses.dataclass(frozen=True)
class Wide(Layer):
    expand: Annotated[int, Ge(2)] = 2


@checked
class Net(nn.Module):
    layer: Layer
    depth: Positive[int] = 1

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.depth)(x)


@pytest.mark.parametrize(
    ("hint", "right", "wrong", "words"),
    [
        (Positive[int], (1, 7), (0, -1, 1.5, 1.0, True, "1", None), "a whole number >= 1"),
        (Positive[float], (1, 0.1, math.inf), (0, -0.1, math.nan, False), "a number > 0"),
        (NonNegative[int], (0, 3), (-1, 0.0), "a whole number >= 0"),
        (NonNegative[float], (0, 0.5), (-0.1, math.nan), "a number >= 0"),
        (Positive[int] | None, (1, None), (0,), "a whole number >= 1 or None"),
        (Fraction, (0, 1, 0.5), (-0.1, 1.1, math.nan), "a number in [0, 1]"),
        (Rate, (0, 0.99), (1, -1e-9, math.nan), "a number in [0, 1)"),
        (Finite, (-1.5, 0), (math.inf, math.nan), "a finite number"),
        (Annotated[int, Ge(1), Le(5)], (1, 5), (0, 6), "a whole number in 1..5"),
        (Annotated[float, Gt(0), Le(10)], (0.1, 10), (0, 11), "a number in (0, 10]"),
        (Annotated[float, Gt(0), Lt(math.inf)], (1,), (0, math.inf), "a finite number > 0"),
        (Annotated[int, Le(3)], (3, -3), (4,), "a whole number <= 3"),
        (Annotated[float, Lt(1)], (0.5,), (1, math.nan), "a number < 1"),
        (Odd, (1, 7), (0, 2, -1), "a whole number >= 1, odd"),
        (Even, (2, 8), (0, 3), "a whole number >= 2, even"),
        (Regex, ("a.*b", ""), ("(", 3), "a regular expression"),
        (PositiveRange, ((0.1, 2), [1, 1]), ((0, 1), (2, 1), (1,), 3), "(low, high) with"),
        (NonEmpty[tuple[str, ...]], (("a",),), ((), "a"), "tuple[str, ...], not empty"),
        (Annotated[tuple[int, ...], MinLen(2)], ((1, 2),), ((1,),), "at least 2 of them"),
        (Unique[tuple[str, ...]], ((), ("a", "b")), (("a", "a"),), "no item twice"),
        (tuple[Positive[int], ...], ((), (1, 2)), (3,), "each item a whole number >= 1"),
        (Literal["a", 1], ("a", 1), ("b", True, 1.0), "one of 'a', 1"),
        (Annotated[str, Rule("in capitals", str.isupper)], ("A",), ("a",), "in capitals"),
    ],
)
def test_ranges(hint: Any, right: tuple[Any, ...], wrong: tuple[Any, ...], words: str):
    assert [misfit(value, hint) for value in right] == [None] * len(right)
    for value in wrong:
        assert misfit(value, hint) is not None, value
    assert words in show(hint)


def test_the_item_at_fault_is_named():
    pair = tuple[tuple[Positive[int], ...], str]
    assert str(misfit(((1, 0), "a"), pair)) == "[0][1] is 0, expected a whole number >= 1"
    assert str(misfit({"x": -1}, dict[str, Rate])) == ".x is -1, expected a number in [0, 1)"
    sizes = Positive[int] | tuple[Positive[int], Positive[int]]
    assert str(misfit((3, 0), sizes)) == "[1] is 0, expected a whole number >= 1"
    assert str(misfit(0, sizes)).startswith(" is 0, expected a whole number >= 1 or 2 values")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "Layer: width is 0, expected a whole number >= 1"),
        ({"width": 2.5}, "Layer: width is 2.5, expected a whole number >= 1"),
        ({"width": 4, "heads": 0}, "Layer: heads is 0, expected a whole number >= 1 or None"),
        ({"width": 4, "rate": math.nan}, "Layer: rate is nan, expected a number in [0, 1)"),
        (
            {"width": 4, "kernels": (3, 0)},
            "Layer: kernels[1] is 0, expected a whole number >= 1",
        ),
        ({"width": 4, "mode": "max"}, "Layer: mode is 'max', expected one of 'sum', 'mean' or"),
        ({"width": 4, "heads": 3}, "heads=3 does not divide width=4"),
    ],
)
def test_a_checked_class_refuses_at_once(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        Layer(**fields)
    assert str(error.value).startswith(message)


def test_a_checked_class_takes_what_is_in_range():
    width: Any = np.int64(4)
    kernels: Any = (np.int32(3),)
    assert Layer(width, heads=2, kernels=kernels, free=math.nan).width == 4
    assert Layer(4, mode=None).mode is None
    # A subclass checks its own fields and those it inherits.
    with pytest.raises(ValueError, match="Wide: expand is 1, expected a whole number >= 2"):
        Wide(4, expand=1)
    with pytest.raises(ValueError, match="Wide: rate is 1, "):
        Wide(4, rate=1)


def test_linen_modules_are_checked_and_still_modules():
    with pytest.raises(ValueError, match="Net: depth is 0, expected a whole number >= 1"):
        Net(Layer(4), depth=0)
    net = Net(Layer(4), depth=3)
    with pytest.raises(ValueError, match="Net: depth is -1"):
        net.clone(depth=-1)
    out, _ = net.init_with_output({"params": jnp.zeros(2, jnp.uint32)}, jnp.ones((2, 5)))
    assert out.shape == (2, 3)


def test_a_config_is_refused_before_anything_is_built():
    with pytest.raises(ConfigError, match=r"Layer.rate is 1.5, expected a number in \[0, 1\)"):
        c.spec(Layer, width=4, rate=1.5)
    node: Any = c.spec(Net, layer=c.spec(Wide, width=4, kernels=(3,)))
    node.layer.expand = 1
    with pytest.raises(ConfigError, match=r"x.py: config.layer.expand is 1, expected .* >= 2"):
        c.validate(node, source="x.py")
    node.layer.expand = 2
    node.layer.kernels = (3, 0)
    with pytest.raises(ConfigError, match=r"config.layer.kernels\[1\] is 0, expected"):
        c.validate(node)


def test_a_name_is_said_once_when_building_refuses():
    with pytest.raises(ConfigError, match=r"^Layer: width is 0, expected"):
        c.build(c.spec(Layer), width=0)
    with pytest.raises(ConfigError, match=r"^Layer: heads=3 does not divide"):
        c.build(c.spec(Layer, width=4, heads=3))


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("layer.width", "1e1", 10),
        ("layer.kernels", "(1e1, 3)", (10, 3)),
        ("layer.rate", "0", 0.0),
        ("layer.free", "1e1", 10.0),
        ("layer.heads", "none", None),
    ],
)
def test_overrides_are_read_as_the_range_says(path: str, text: str, read: Any):
    node: Any = c.spec(Net, layer=c.spec(Layer, width=4))
    c.override(node, path, text)
    value = node.layer[path.removeprefix("layer.")]
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(("path", "text"), [("layer.width", "1.5"), ("layer.rate", "1")])
def test_overrides_out_of_range_are_refused(path: str, text: str):
    node: Any = c.spec(Net, layer=c.spec(Layer, width=4))
    with pytest.raises(ConfigError, match=f"--config.{path}={text}: expected a"):
        c.override(node, path, text)


def _restricts(hint: Any) -> bool:
    args = get_args(hint)
    return get_origin(hint) is Annotated or any(_restricts(arg) for arg in args)


def test_every_class_with_ranges_is_checked():
    unchecked = []
    for cls in classes():
        hints = field_hints(cls)
        ranges = [f.name for f in dataclasses.fields(cls) if _restricts(hints[f.name])]  # pyright: ignore
        own = [vars(base).get("__post_init__") for base in cls.__mro__]
        if ranges and not any("checked" in f.__qualname__ for f in own if f is not None):
            unchecked.append(f"{cls.__name__}: {', '.join(ranges)}")
    assert not unchecked


def test_inherited_annotations_are_read_where_they_stand():
    assert field_hints(Wide)["expand"] == Annotated[int, Ge(2)]
    from vision.data.sources.scenes import Scenes  # its bases stand in other modules

    assert Any not in [hint for name, hint in field_hints(Scenes).items()]
