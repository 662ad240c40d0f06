"""Classes of evaluation data are matched to those of a run by their names, never by number alone.

Folders sort class names as text, tables sort numbers as numbers, and a test set may lack a class:
number 2 of one source need not be number 2 of another. ``match_classes`` gives evaluators data
whose labels are the run's class numbers.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vision.config.errors import UserError
from vision.config.repeated import first_repeated
from vision.config.schema import nearest

log = logging.getLogger(__name__)
E = TypeVar("E")
# What an evaluator whose labels are numbers of the run's classes has as ``trained_classes``: the
# name of a field that holds such data (an ``EvaluationData`` or a source; ``field.key`` in a
# mapping) to the names of the fields that name its label features, or of a feature itself where
# there is no such field.
TrainedClasses = Mapping[str, tuple[str, ...]]


class ClassNamesError(UserError):
    """Classes that do not match those of a run; the message names source and class."""


def class_numbers(
    names: Sequence[str], trained: Sequence[str], source: str
) -> tuple[int, ...] | None:
    """The run's number of every class of a source, by name.

    Args:
      names: of the source, in the order of its labels; empty without classes.
      trained: of the run, in the order of its logits; empty without classes.
      source: for messages.

    Returns:
      ``len(names)`` numbers in 0..len(trained) - 1; None where the labels mean the same already,
      or where one of the two has no names.

    Raises:
      ClassNamesError: a name that the run was not trained on, or one that it has twice.
    """
    names, trained = tuple(names), tuple(trained)
    if not names or not trained or names == trained:
        return None
    for owner, listed in ((source, names), ("the run", trained)):
        if (repeated := first_repeated(listed)) is not None:
            raise ClassNamesError(
                f"{source} and the run have different classes, which cannot be matched by name: "
                f"{owner} has {listed.count(repeated)} classes called {repeated!r}"
            )
    number = {name: i for i, name in enumerate(trained)}
    if unknown := [name for name in names if name not in number]:
        more = f" (nor {len(unknown) - 1} more of its classes)" if len(unknown) > 1 else ""
        raise ClassNamesError(
            f"{source}: class {unknown[0]!r}{more} is not among the {len(trained)} classes of the "
            f"run{nearest(unknown[0], list(trained))}. Rename the class, or wrap the source in "
            "Relabel with unmapped='drop' to leave its records out"
        )
    return tuple(number[name] for name in names)


@dataclasses.dataclass(frozen=True)
class MatchedSource:
    """A source whose labels are numbers of a run's classes.

    Attributes:
      source: the source.
      class_names: of the run.
      numbers: the run's number of every class of the source, see ``class_numbers``, by the name of
        a label feature: class numbers, or vectors with an entry per class.
    """

    source: Any
    class_names: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]

    @property
    def info(self) -> Any:
        return dataclasses.replace(self.source.info, class_names=self.class_names)

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.source[index]
        self._check(example)
        return {k: self._mapped(k, x) if k in self.numbers else x for k, x in example.items()}

    @property
    def __getitems__(self) -> Callable[[Any], dict[str, Any]] | None:
        """As the source's, where it has one."""
        gather = getattr(self.source, "__getitems__", None)
        if gather is None:
            return None

        def mapped(indices: Any) -> dict[str, Any]:
            rows = gather(indices)
            self._check(rows)
            return {
                k: np.stack([self._mapped(k, x) for x in v]) if k in self.numbers else v
                for k, v in rows.items()
            }

        return mapped

    @property
    def column(self) -> Callable[[str], list[Any]] | None:
        """As the source's, where it has one."""
        column = getattr(self.source, "column", None)
        if column is None:
            return None

        def mapped(feature: str) -> list[Any]:
            values = column(feature)
            return [self._mapped(feature, x) for x in values] if feature in self.numbers else values

        return mapped

    @property
    def names(self) -> Callable[[str], tuple[str, ...]] | None:
        """As the source's, where it has one."""
        names = getattr(self.source, "names", None)
        if names is None:
            return None
        return lambda feature: self.class_names if feature in self.numbers else names(feature)

    @property
    def fingerprint(self) -> Callable[[], str] | None:
        """As the source's, where it has one; changes with the classes too."""
        fingerprint = getattr(self.source, "fingerprint", None)
        if fingerprint is None:
            return None
        return lambda: f"{fingerprint()}/{sorted(self.numbers.items())}"

    def _check(self, example: Mapping[str, Any]) -> None:
        if not any(name in example for name in self.numbers):
            raise ClassNamesError(
                f"{self.source.info.name}: its classes are in another order than the run's, and "
                f"its records have no {' or '.join(map(repr, self.numbers))} to be matched; it "
                f"has {', '.join(example)}. Wrap the source in Relabel"
            )

    def _mapped(self, feature: str, value: Any) -> Any:
        value, numbers = np.asarray(value), self.numbers[feature]
        count, total = len(numbers), len(self.class_names)
        if value.ndim == 0:
            # What is no class of the source stays none: -1, or beyond the run's classes.
            label = int(value)
            number = numbers[label] if 0 <= label < count else label
            return np.int32(number if label < count else total + label)
        if value.shape != (count,) or count != total:
            raise ClassNamesError(
                f"{self.source.info.name}: {feature!r} is {value.dtype}{list(value.shape)} over "
                f"its {count} classes, which cannot be brought to the {total} classes of the run: "
                "give the source all classes of the run"
            )
        matched = np.empty_like(value)
        matched[list(numbers)] = value
        return matched


def match_classes(evaluator: E, trained: Sequence[str], name: str = "") -> E:
    """An evaluator whose data has the class numbers of the run, by name.

    Data of other order, or with some of the classes, is mapped, and a line of the log says so.
    Only data that the evaluator declares in ``trained_classes`` is touched: probes, retrieval and
    zero-shot have classes of their own. An evaluator that is a field of another one is matched
    like it.

    Args:
      evaluator: a frozen dataclass.
      trained: class names of the run, in the order of its logits.
      name: of the evaluator, for messages.

    Raises:
      ClassNamesError: a class that the run was not trained on.
    """
    declared: TrainedClasses = getattr(evaluator, "trained_classes", {})
    changes: dict[str, Any] = {}
    for path, label_fields in declared.items():
        features = tuple(dict.fromkeys(getattr(evaluator, f, f) for f in label_fields))
        field, _, key = path.partition(".")
        value: Any = changes.get(field, getattr(evaluator, field))
        where = f"evaluators.{name}.{path}" if name else path
        matched = _matched(value[key] if key else value, tuple(trained), features, where)
        if matched is not (value[key] if key else value):
            changes[field] = {**value, key: matched} if key else matched
    for field in dataclasses.fields(evaluator):  # pyright: ignore[reportArgumentType]
        inner = getattr(evaluator, field.name)
        if hasattr(inner, "trained_classes"):
            matched = match_classes(inner, trained, f"{name}.{field.name}" if name else field.name)
            if matched is not inner:
                changes[field.name] = matched
    return dataclasses.replace(evaluator, **changes) if changes else evaluator  # type: ignore[type-var]


def _matched(value: Any, trained: tuple[str, ...], features: tuple[str, ...], where: str) -> Any:
    if value is None or isinstance(value, MatchedSource):
        return value
    if hasattr(value, "source") and hasattr(value, "loader"):
        source = _matched(value.source, trained, features, where)
        return value if source is value.source else dataclasses.replace(value, source=source)
    info, numbers = value.info, {}
    for feature in features:
        names = _names_of(value, feature)
        order = class_numbers(names, trained, f"{info.name} ({where})")
        if order is not None:
            # ``PartialLabels`` says beside a vector of labels which of them are known.
            numbers |= {feature: order, f"{feature}_known": order}
            log.warning(
                "%s: the classes of %s are matched to the run's by name: %d of %d, %s is number "
                "%d and not %d",
                where, info.name, len(order), len(trained),
                *next(
                    ((repr(names[i]), n, i) for i, n in enumerate(order) if n != i),
                    (repr(names[0]), order[0], 0),
                ),
            )  # fmt: skip
    return MatchedSource(value, trained, numbers) if numbers else value


def _names_of(source: Any, feature: str) -> tuple[str, ...]:
    """The classes of a label feature: its own, as tables have them for every column, or else those
    of the source."""
    try:
        names = tuple(source.names(feature))
    except (AttributeError, KeyError, TypeError):
        names = ()
    return names or tuple(source.info.class_names)
