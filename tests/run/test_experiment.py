"""How often evaluators run: one distance for all, or one by name."""

from __future__ import annotations

from typing import Any

import pytest

from configs.digits_vit import get_config
from vision.config.schema import ConfigError
from vision.run.experiment import check
from vision.run.prepare import prepare


def evaluations(evaluate_every: Any) -> dict[str, str]:
    config: Any = get_config()
    config.evaluators.other = config.evaluators.test
    with config.ignore_type():
        config.evaluate_every = evaluate_every
    check(config)
    return prepare(config).experiment.evaluations()


def test_evaluate_every():
    assert evaluations("2 epochs") == {"test": "2 epochs", "other": "2 epochs"}
    assert evaluations({"other": "5 steps"}) == {"other": "5 steps"}
    assert evaluations(None) == {}


def test_evaluate_every_names_evaluators():
    with pytest.raises(ConfigError, match=r"has 'tset', which is no evaluator; did you mean 'test"):
        evaluations({"tset": "5 steps"})
    with pytest.raises(ConfigError, match=r"config.evaluate_every is 5, expected str or"):
        evaluations(5)
