"""``x.py:small,rival=cutmix``: functions of a config file, called with texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision.config import specs as c
from vision.config.schema import ConfigError
from vision.train.optim import ParameterRule

FILE = """
from __future__ import annotations

from typing import Literal

from tests.run.test_modes import imported
from vision.config.specs import Config, spec
from vision.train.optim import ParameterRule


def get_config(folder: str = "images", decay: float = 1.0) -> Config:
    return spec(ParameterRule, pattern=folder, weight_decay=decay)


def small(rival: Literal["", "cutmix", "plain"] = "", sizes: int | tuple[int, ...] = 8) -> Config:
    return spec(ParameterRule, pattern=f"small {rival} {sizes}")


def needy(count: int) -> Config:
    return spec(ParameterRule, pattern=str(count))


def helper(x):
    return spec(ParameterRule, pattern="no mode")


def _hidden() -> Config:
    return spec(ParameterRule, pattern="no mode")


def broken() -> Config:
    return 1
"""
PLAIN = """
from vision.config.specs import Config, spec
from vision.train.optim import ParameterRule


def get_config(width: int = 1):
    return spec(ParameterRule, pattern=str(width))


def small() -> Config:
    return get_config(7)


def helper():
    return get_config(8)
"""


def imported() -> c.Config:
    raise AssertionError("not a mode of a file that imports it")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.py"
    path.write_text(FILE)
    return path


def pattern(reference: str) -> str:
    return c.build(c.load(reference)).pattern


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("", "images"),
        (":pictures", "pictures"),
        (":small", "small  8"),
        (":folder=small", "small"),
        (":./small", "./small"),
        (":small,rival=cutmix", "small cutmix 8"),
        (":small,sizes=(8,16),rival=plain", "small plain (8, 16)"),
        (":/data/cc/{00..12,14}.tar", "/data/cc/{00..12,14}.tar"),
        (":/data/x=1", "/data/x=1"),
        (":1", "1"),
        (":helper", "helper"),
        (":imported", "imported"),
        (":_hidden", "_hidden"),
        (":needy,count=3", "3"),
        (":get_config,folder=a", "a"),
    ],
)
def test_a_mode_is_a_call(file: Path, mode: str, expected: str):
    assert pattern(f"{file}{mode}") == expected


def test_values_have_the_types_of_the_function(file: Path):
    assert c.load(f"{file}:images,decay=0.5").weight_decay == 0.5


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("small,rivl=plain", r"x.py:small,rivl=plain: small has no argument 'rivl'; did you mean"),
        ("small,rival=mixup", r"rival is 'mixup': expected one of '', 'cutmix', 'plain'"),
        ("small,sizes=big", r"sizes is 'big': expected int or tuple\[int, ...\]"),
        ("images,decay=fast", r"decay is 'fast': expected float"),
        ("small,plain", r"'plain' needs a name, as in rival=plain"),
        ("small,rival=plain,rival=", "rival is given twice"),
        ("images,folder=others", "folder is given twice"),
        ("needy", "needy needs count"),
        ("broken", r"broken\(\) returns a spec\(...\), not int 1"),
    ],
)
def test_errors_of_calls(file: Path, mode: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        c.load(f"{file}:{mode}")
    assert "\n" not in str(caught.value)


def test_a_first_word_that_fits_nothing(tmp_path: Path):
    path = tmp_path / "plain.py"
    path.write_text(PLAIN)
    assert pattern(f"{path}:5") == "5"
    assert pattern(f"{path}:small") == "7"
    with pytest.raises(
        ConfigError,
        match=r"'smal' is no function of the file, nor width of get_config: expected int; "
        r"did you mean 'small'\?; it has get_config\(width\), small\(\)",
    ):
        c.load(f"{path}:smal")
    with pytest.raises(ConfigError, match=r"helper\(\) is no mode: its return annotation is not"):
        c.load(f"{path}:helper")


def test_guesses_about_spec():
    with pytest.raises(
        ConfigError, match=r"spec\(ParameterRule, pattern=...\): arguments need names"
    ):
        c.spec(ParameterRule, "kernel")
    with pytest.raises(ConfigError, match=r"takes a class or function first, not str 'vision"):
        c.spec("vision.models.vit.ViT")  # pyright: ignore[reportArgumentType]
