"""What evaluators measured of checkpoints, beside them: a state is saved before it is evaluated.

``checkpoints/evaluations.json``: a line with the SHA-256 of what follows, then JSON, step to
metrics and failures. A step that is in it has been evaluated to the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from vision.config.files import replace_file

_FILE = "evaluations.json"
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StepEvaluation:
    """What the evaluators that were due at a step gave.

    Attributes:
      metrics: evaluator and number, such as ``test/top1``, to the value; finite ones only.
      failed: name of an evaluator that raised to its error as text.
      finished: names of those that did not raise; empty in files of older versions.
    """

    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finished: Sequence[str] = ()

    def ran(self, name: str) -> bool:
        """Whether an evaluator finished or raised."""
        measured = any(each.partition("/")[0] == name for each in self.metrics)
        return measured or name in self.failed or name in self.finished

    def joined(self, other: StepEvaluation) -> StepEvaluation:
        """Both, of the same step and different evaluators."""
        return StepEvaluation(
            {**self.metrics, **other.metrics},
            {**self.failed, **other.failed},
            (*self.finished, *other.finished),
        )


def read_evaluations(folder: Path) -> dict[int, StepEvaluation]:
    """Step to evaluation, of a folder of checkpoints; empty, with a warning, if it is damaged."""
    path = folder / _FILE
    try:
        seal, _, body = path.read_bytes().partition(b"\n")
        if seal != hashlib.sha256(body.strip()).hexdigest().encode():
            raise ValueError("it is not what was written")
        return {int(step): StepEvaluation(**row) for step, row in json.loads(body).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s cannot be used: %s; steps are evaluated again", path, error)
        return {}


def write_evaluations(folder: Path, evaluations: Mapping[int, StepEvaluation]) -> None:
    """Replaces the file in one step; a full disk is logged, since the run matters more."""
    plain = {str(step): dataclasses.asdict(row) for step, row in sorted(evaluations.items())}
    body = json.dumps(plain).encode()
    path = folder / _FILE
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n")
    except OSError as error:
        log.error("%s cannot be written: %s", path, error.strerror)
