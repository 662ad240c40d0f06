"""How often evaluators run: one distance for all, or one by name."""

from __future__ import annotations

from typing import Any

import pytest

from configs.digits_vit import get_config
from vision.config.schema import ConfigError
from vision.run.experiment import DataSpec, check
from vision.run.prepare import prepare

DATA = DataSpec(1437, tuple("0123456789"), {"image": ((64, 8, 8, 1), "float32")})


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


@pytest.mark.parametrize(
    ("total", "every", "saved"),
    [
        ("20 steps", None, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
        ("24 steps", None, [2, 5, 7, 10, 12, 14, 17, 19, 22, 24]),
        ("3 steps", None, [1, 2, 3]),
        ("20000 steps", None, [*range(1000, 20001, 1000)]),
        ("20 steps", "8 steps", [8, 16]),
    ],
)
def test_short_runs_are_saved_too(total: str, every: str | None, saved: list[int]):
    """A run that is killed has lost a tenth of its steps at most, or a thousand."""
    config: Any = get_config()
    config.total, config.optimizer.schedule.warmup = total, "0 steps"
    with config.ignore_type():
        config.checkpoints.every = every
    check(config)
    found = prepare(config, DATA)
    steps = range(1, found.total_steps + 1)
    assert [step for step in steps if found.intervals.save.due(step)] == saved


def test_evaluate_every_names_evaluators():
    with pytest.raises(ConfigError, match=r"has 'tset', which is no evaluator; did you mean 'test"):
        evaluations({"tset": "5 steps"})
    with pytest.raises(ConfigError, match=r"config.evaluate_every is 5, expected str or"):
        evaluations(5)
