"""Configs: every mistake is one line that names the key, the place and the way out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optax
import pytest

from vision.config import specs as c
from vision.config.hints import fits
from vision.config.schema import ConfigError, public_path


@dataclasses.dataclass(frozen=True)
class Either:
    value: str | Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Leaf:
    size: int
    rate: float = 0.5
    name: str = "leaf"
    mode: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Branch:
    leaf: Leaf
    leaves: tuple[Leaf, ...] = ()
    named: Mapping[str, Leaf] | None = None
    pair: tuple[int, int] = (1, 2)
    flag: bool = False
    default: Leaf = Leaf(size=3)
    num_classes: int | None = None


def example() -> Any:
    return c.spec(
        Branch,
        leaf=c.spec(Leaf, size=1),
        leaves=(c.spec(Leaf, size=2), c.spec(Leaf, size=3, rate=1)),
        named={"x": c.spec(Leaf, size=4)},
    )


def test_build_calls_constructors_inside_out_with_defaults():
    built = c.build(example())
    assert built == Branch(
        leaf=Leaf(1), leaves=(Leaf(2), Leaf(3, rate=1)), named={"x": Leaf(4)}, default=Leaf(3)
    )


def test_offers_fill_only_what_is_declared_and_unset():
    assert c.build(example(), num_classes=7, unheard_of=1).num_classes == 7
    node = example()
    node.num_classes = 5
    assert c.build(node, num_classes=7).num_classes == 5


def test_json_round_trip_builds_the_same():
    node = example()
    plain = json.loads(c.to_json(node))
    assert c.build(c.from_plain(plain)) == c.build(node)
    assert c.differences(plain, c.to_plain(c.from_plain(plain))) == []


def test_a_stored_config_gains_the_defaults_of_newer_parameters():
    plain = c.to_plain(example())
    del plain["leaves"][1]["name"]
    del plain["pair"]
    assert c.to_plain(c.with_defaults(c.from_plain(plain))) == c.to_plain(example())


def test_public_path_is_the_one_people_import():
    assert public_path(optax.scale_by_adam) == "optax.scale_by_adam"
    assert c.build(c.spec(optax.scale_by_lion, b1=0.5)).init is not None


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"size": 1, "raet": 0.1}, ["raet", "did you mean 'rate'", "test_config.py:"]),
        ({"size": "big"}, ["Leaf.size", "'big'", "expected int", "test_config.py:"]),
        ({"size": 1, "mode": "c"}, ["Leaf.mode", "one of 'a', 'b'"]),
        ({"size": True}, ["Leaf.size", "expected int"]),
    ],
)
def test_spec_refuses_at_once(kwargs: dict[str, Any], words: list[str]):
    with pytest.raises(ConfigError) as error:
        c.spec(Leaf, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_validate_names_the_path_of_late_mistakes():
    node = example()
    node.leaves[1].siez = 3
    with pytest.raises(ConfigError, match=r"config.leaves\[1\].siez.*did you mean 'size'"):
        c.validate(node, source="x.py")
    node = example()
    with node.unlocked(), node.ignore_type():
        node.named.x.rate = "fast"
    with pytest.raises(ConfigError, match=r"x.py: config.named.x.rate is 'fast', expected float"):
        c.validate(node, source="x.py")
    node = example()
    del node.leaf["size"]
    with pytest.raises(ConfigError, match=r"config.leaf.size is missing: Leaf needs it"):
        c.validate(node)
    node = example()
    node.leaf["_constructor"] = "vision.nowhere.Thing"
    with pytest.raises(ConfigError, match=r"leaf: cannot import .*'vision.nowhere.Thing'"):
        c.validate(node)


def test_missing_argument_at_build_is_named():
    with pytest.raises(ConfigError, match="Leaf needs size"):
        c.build(c.spec(Leaf))


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("leaf.size", "12", lambda b: b.leaf.size == 12),
        ("leaf.name", "12", lambda b: b.leaf.name == "12"),
        ("leaf.rate", "1e-3", lambda b: b.leaf.rate == 1e-3),
        ("leaves[1].rate", "3", lambda b: b.leaves[1].rate == 3),
        ("leaves.0.mode", "b", lambda b: b.leaves[0].mode == "b"),
        ("named.x.size", "9", lambda b: b.named["x"].size == 9),
        ("pair", "(3, 4)", lambda b: b.pair == (3, 4)),
        ("flag", "true", lambda b: b.flag is True),
        ("named", "None", lambda b: b.named is None),
        ("default.size", "8", lambda b: b.default.size == 8),
        ("num_classes", "6", lambda b: b.num_classes == 6),
    ],
)
def test_overrides(path: str, text: str, read: Any):
    node = example()
    c.override(node, path, text)
    c.validate(node)
    assert read(c.build(node))


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("leef.size", "1", ["--config.leef.size=1", "did you mean 'leaf'"]),
        ("leaf.sise", "1", ["did you mean 'size'"]),
        ("leaf.size", "many", ["--config.leaf.size=many", "expected int"]),
        ("leaves[7].size", "1", ["2 item(s)"]),
        ("leaf.size.x", "1", ["no key 'x'"]),
        ("named.y.size", "1", ["no key 'y'"]),
        ("", "1", ["needs a key"]),
        ("leaf.size", "spec(ViT)", ["expected int; a spec(...) stands in a config file"]),
    ],
)
def test_override_mistakes(path: str, text: str, words: list[str]):
    with pytest.raises(ConfigError) as error:
        c.override(example(), path, text, source="x.py")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_override_of_a_shared_node_changes_one_place_only():
    shared = c.spec(Leaf, size=1)
    node = c.spec(Branch, leaf=shared, leaves=(shared, shared))
    c.override(node, "leaves[0].size", "2")
    built = c.build(node)
    assert (built.leaf.size, built.leaves[0].size, built.leaves[1].size) == (1, 2, 1)


def test_load_errors_name_file_and_line(tmp_path: Path):
    good = tmp_path / "good.py"
    good.write_text(
        "from vision.config.specs import spec\nfrom vision.train.optim import ParameterRule\n"
        "def get_config(pattern: str = 'x'):\n    return spec(ParameterRule, pattern=pattern)\n"
    )
    assert c.build(c.load(f"{good}:small")).pattern == "small"
    assert c.build(c.load(str(good), {"weight_decay": "2"})).weight_decay == 2
    with pytest.raises(ConfigError, match=r"does not exist; did you mean .*good.py"):
        c.load(str(tmp_path / "goood.py"))
    bad = tmp_path / "bad.py"
    bad.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"bad.py:2: ZeroDivisionError"):
        c.load(str(bad))
    bad.write_text("def get_config():\n    return {}\n")
    with pytest.raises(ConfigError, match=r"returns a spec"):
        c.load(str(bad))
    bad.write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"has no function get_config"):
        c.load(str(bad))
    bad.write_text("def get_config(:\n")
    with pytest.raises(ConfigError, match=r"bad.py.*SyntaxError"):
        c.load(str(bad))


def test_differences_name_every_changed_value():
    old, new = c.to_plain(example()), c.to_plain(example())
    new["leaf"]["size"] = 2
    new["leaves"][1]["rate"] = 0.25
    assert c.differences(old, new) == [
        "config.leaf.size: 1 -> 2",
        "config.leaves[1].rate: 1 -> 0.25",
    ]


def test_fits():
    assert fits(1, float)
    assert not fits("1", float)
    assert fits((1, 2), tuple[int, ...])
    assert not fits((1, "2"), tuple[int, ...])
    assert not fits((1,), tuple[int, int])
    assert fits(None, int | None)
    assert not fits(3, Leaf)
    assert fits(c.spec(Leaf, size=1), Leaf)


def test_a_field_of_several_types_changes_its_type():
    config = c.spec(Either, value="1 epochs")
    c.override(config, "value", "{'val': '2 epochs'}")
    assert c.to_plain(config.value) == {"val": "2 epochs"}
    c.override(config, "value", "3 epochs")
    assert config.value == "3 epochs"
