"""Ranges, references and guesses: one line before anything is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vision.config.schema import ConfigError
from vision.config.specs import load
from vision.run import experiment, loop
from vision.run.prepare import check_for_training, prepare

ROOT = Path(__file__).resolve().parents[2]
DIGITS = f"{ROOT}/configs/digits_vit.py"


def digits(**overrides: str) -> Any:
    made = load(DIGITS, {key.replace("__", "."): text for key, text in overrides.items()})
    experiment.check(made, "digits_vit.py")
    return made


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"optimizer__clip_norm": "-1"}, r"config\.optimizer\.clip_norm=-1: expected a number > 0"),
        ({"optimizer__clip_norm": "0"}, r"clip_norm=0: expected a number > 0"),
        (
            {"optimizer__learning_rate": "-0.01"},
            r"learning_rate=-0\.01: expected a finite number >= 0",
        ),
        (
            {"optimizer__learning_rate": "1e999"},
            r"learning_rate=1e999: expected a finite number >= 0",
        ),
        ({"optimizer__weight_decay": "-1"}, r"weight_decay=-1: expected a number >= 0"),
        ({"optimizer__method__b2": "1.5"}, r"b2=1\.5: expected a number in \[0, 1\)"),
        ({"ema__decay": "1.5"}, r"config\.ema\.decay=1\.5: expected a number in \[0, 1\)"),
        ({"seed": "-1"}, r"config\.seed=-1: expected a whole number in 0\.\.4294967295"),
        ({"seed": "4294967296"}, r"config\.seed=4294967296: expected"),
        ({"accumulate": "0"}, r"config\.accumulate=0: expected a whole number >= 1"),
        ({"checkpoints__keep": "0"}, r"config\.checkpoints\.keep=0: expected"),
        ({"checkpoints__every_s": "0"}, r"config\.checkpoints\.every_s=0: expected"),
        ({"checkpoints__best": "tset/top1"}, r"best is 'tset/top1'.*did you mean 'test'\?"),
        ({"checkpoints__best": "top1"}, r"best is 'top1'.*a slash"),
        ({"batch_size": "8"}, r"no config\.batch_size; did you mean config\.data\.batch_size"),
        ({"lr": "1"}, r"no config\.lr; did you mean config\.optimizer\.learning_rate\?"),
        ({"epochs": "3"}, r"no config\.epochs; did you mean config\.total\?"),
        ({"model": "ResNet"}, r"model is spec\(ViT, .*cannot replace.*--config\.model\.\w+="),
    ],
)
def test_wrong_values_are_refused_by_name(override: dict[str, str], words: str):
    with pytest.raises(ConfigError, match=words) as raised:
        digits(**override)
    assert "\n" not in str(raised.value)


def test_whole_numbers_may_be_written_as_floats():
    assert digits(model__depth="1e1").model.depth == 10


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            {"total": "30 steps", "optimizer__schedule__warmup": "100 steps"},
            r"config\.optimizer\.schedule\.warmup is '100 steps', 100 steps; the run has 30",
        ),
        (
            {"checkpoints__best": "test/top11"},
            r"best is 'test/top11', but evaluator test yields top1, .*did you mean 'top1'\?",
        ),
    ],
)
def test_what_depends_on_the_run_is_refused_before_it_is_compiled(
    override: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = digits(**override)
    with pytest.raises(ConfigError, match=words):
        check_for_training(prepare(made))
    monkeypatch.setattr(loop, "compile_step", lambda *_: pytest.fail("compiled"))
    with pytest.raises(ConfigError, match=words):
        loop.train(made, tmp_path)
