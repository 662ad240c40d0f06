"""What a sweep varies: lists of values for a grid, ranges and choices for a search."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from vision.config import specs
from vision.config.cli import UsageError
from vision.config.hints import CONSTRUCTOR
from vision.config.modes import split
from vision.config.repeated import first_repeated
from vision.config.schema import ConfigError, locate, nearest
from vision.evaluators.accuracy.classification import Classification
from vision.run import experiment

SMALLER_IS_BETTER = ("loss", "nll", "ece", "error")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Values to take as they are.

    Attributes:
      key: path in the config, without ``config.``.
      values: texts, read as ``--config.<key>=<value>`` reads them; no two are equal.
    """

    key: str
    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts by which the key is checked: all of them."""
        return self.values


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
      key: path in the config, without ``config.``.
      low: smallest.
      high: largest.
      log: even in the logarithm.
      whole: whole numbers.
    """

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts by which the key is checked: both bounds."""
        return (self.text(self.low), self.text(self.high))

    def text(self, value: float) -> str:
        """As ``--config.<key>=`` takes it."""
        return str(int(value)) if self.whole else repr(float(value))


Axis = Choice | Range


def choice(flag: str, text: str) -> Choice:
    """``model.depth=2,4`` of ``--grid``; commas within brackets part nothing.

    Raises:
      UsageError: no key, no values, or a value twice.
    """
    key, values = _key_and_values(flag, text)
    if (twice := first_repeated(values)) is not None:
        raise UsageError(f"--{flag} {text}: {twice!r} stands twice")
    return Choice(key, tuple(values))


def axis(flag: str, text: str) -> Axis:
    """``lr=1e-4..1e-2,log``, ``depth=2..8`` or ``width=64,96`` of ``--search``.

    Whole numbers on both sides of ``..`` give whole numbers; write ``1.0..3.0`` for others.

    Raises:
      UsageError: bounds that are no numbers or not in order, or what ``choice`` refuses.
    """
    key, values = _key_and_values(flag, text)
    low, dots, high = values[0].partition("..")
    if not dots:
        return choice(flag, text)
    where = f"--{flag} {text}"
    if values[1:] not in ([], ["log"]):
        raise UsageError(f"{where}: after the bounds there may only be ,log")
    try:
        bounds = float(low), float(high)
    except ValueError:
        raise UsageError(f"{where}: the bounds are two numbers, as in {key}=1e-4..1e-2") from None
    if not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise UsageError(f"{where}: the first bound has to be below the second")
    if values[1:] and bounds[0] <= 0:
        raise UsageError(f"{where}: a logarithmic range begins above 0")
    whole = all(bound.lstrip("+-").isdigit() for bound in (low, high))
    return Range(key, *bounds, log=bool(values[1:]), whole=whole)


def _key_and_values(flag: str, text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    key = key.removeprefix("config.")
    if not key or not equals or not values:
        raise UsageError(f"--{flag} {text}: it is KEY=VALUE,VALUE,... of the config")
    listed = split(values)
    if not all(listed):
        raise UsageError(f"--{flag} {text}: a value is empty")
    return key, listed


def points(grid: Sequence[Choice]) -> Iterator[dict[str, str]]:
    """Every combination, the last key fastest: ``{key: text}``."""
    for values in itertools.product(*(choice.values for choice in grid)):
        yield {choice.key: value for choice, value in zip(grid, values, strict=True)}


def check(reference: str, overrides: Mapping[str, str], axes: Sequence[Axis]) -> None:
    """Reads and checks the config with every value of every key, the others at their first.

    Raises:
      UsageError: a key that is given twice, or set by ``--config.`` as well.
      ConfigError: a key that does not exist, with the near one, or a value that does not fit.
    """
    keys = [each.key for each in axes]
    if (twice := first_repeated(keys)) is not None:
        raise UsageError(f"{twice} is varied twice; give all its values at once")
    for key in keys:
        if key in overrides:
            raise UsageError(f"--config.{key} sets what the sweep varies; leave one of them out")
    first = {each.key: each.ends[0] for each in axes}
    for each in axes:
        for text in each.ends:
            changed = {**overrides, **first, each.key: text}
            experiment.check(specs.load(reference, changed), reference)


def chosen_metric(
    config: ml_collections.ConfigDict, metric: str | None, mode: str | None
) -> tuple[str, str]:
    """The metric that trials are ranked by, and whether ``max`` or ``min`` of it is best.

    Without ``metric`` it is ``checkpoints.best``, else top-1 of the first ``Classification``.
    Without ``mode``, that of ``checkpoints.best``, else ``min`` for a loss, likelihood or error.

    Raises:
      UsageError: neither ``max`` nor ``min``.
      ConfigError: there is none, or it names what no evaluator of the config yields.
    """
    if mode not in (None, "max", "min"):
        raise UsageError(f"--mode={mode}, but it is max or min")
    kept: Any = config.checkpoints
    chosen: Any = config.evaluators
    evaluators: dict[str, Any] = dict(chosen or {})
    if metric is None:
        metric = kept.best or next(
            (
                f"{k}/top1"
                for k, x in evaluators.items()
                if locate(x[CONSTRUCTOR]) is Classification
            ),
            None,
        )
    if metric is None:
        raise ConfigError(
            "--metric=EVALUATOR/METRIC is needed: the config has neither checkpoints.best nor a "
            f"Classification among its evaluators ({', '.join(evaluators) or 'there are none'})"
        )
    name, slash, value = metric.partition("/")
    if name != "train":
        if not slash or name not in evaluators:
            raise ConfigError(
                f"--metric={metric}: it is the name of an evaluator, a slash and a metric"
                f"{nearest(name, [*evaluators, 'train'])}"
            )
        constructor = locate(evaluators[name][CONSTRUCTOR])
        known = getattr(constructor, "metric_names", ())
        if known and value not in known:
            raise ConfigError(f"--metric={metric}: {name} has no {value!r}{nearest(value, known)}")
    if mode is None and metric == kept.best:
        mode = kept.best_mode
    last = metric.rpartition("/")[2]
    small = any(last == each or last.endswith(f"_{each}") for each in SMALLER_IS_BETTER)
    return metric, mode or ("min" if small else "max")
