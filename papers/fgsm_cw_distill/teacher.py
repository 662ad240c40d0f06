"""The teacher of defensive distillation: its tower, and its weights from another run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vision.train.tower import Tower
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError

Tree = Any


TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class TeacherFrom:
    """Loads the teacher of ``DefensiveDistillation``; the student is initialised at random.

    Attributes:
      source: as in ``InitFrom``, such as ``workdir:<the teacher's run>``.
      teacher: as in ``DefensiveDistillation``.
    """

    source: str
    teacher: Tower | None = None

    def __post_init__(self) -> None:
        InitFrom(self.source, head="read")

    def load(
        self, model: Tower, variables: Mapping[str, Tree], class_names: tuple[str, ...] = ()
    ) -> dict[str, Tree]:
        """The variables with the teacher's weights in place.

        Raises:
          WeightsError: the objective has no teacher, or the source does not fit it.
        """
        others = dict(variables.get("objective", {}))
        if TEACHER not in others:
            raise WeightsError(
                "init_from=TeacherFrom loads a teacher, and the objective has none: set "
                "config.objective.distil=True"
            )
        state = dict(others[TEACHER])
        params = state.pop("params")
        filled = InitFrom(self.source, head="read").load(
            teacher_tower(model, self.teacher), {"params": params, "model_state": state}
        )
        others[TEACHER] = {**filled["model_state"], "params": filled["params"]}
        return {**variables, "objective": others}

    def remarks(self, evaluations: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """As ``InitFrom``: student and teacher get the same images."""
        return InitFrom(self.source).remarks(evaluations)


def teacher_tower(model: Tower, teacher: Tower | None) -> Tower:
    if teacher is None:
        return model
    if getattr(teacher, "num_classes", 0) is None:
        return teacher.clone(num_classes=getattr(model, "num_classes", None))
    return teacher
