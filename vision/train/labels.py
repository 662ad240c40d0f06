"""What a loss takes for a label, checked on the host by whatever reads the records.

Inside a compiled step nothing can be refused: a class that the model has no output for would only
weigh nothing. So an objective says here what it reads, and the data refuse a record by its name.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

Form = Literal["class", "distribution", "independent"]
_NEEDS_INDEPENDENT = "needs a loss of independent classes: Classify with loss_type='sigmoid'"
_SLACK = 1e-3  # of sums of float32, and of probabilities that were printed


@dataclasses.dataclass(frozen=True)
class LabelKind:
    """Valid values of a feature of the batch that a loss compares with K outputs.

    Attributes:
      classes: K.
      form: ``class``: integers (B,), 0..K-1, or -1 for none. ``distribution``: those, or weights
        (B, K) that sum to 1. ``independent``: integers as before, or numbers 0..1 for every class
        (B, K), of which -1 are not known. A row of nothing but -1 has no label.
    """

    classes: int
    form: Form = "class"

    def problem(self, label: np.ndarray, known: bool = False) -> str:
        """What is wrong with labels (n,) or (n, K), for people; "" if nothing is.

        Args:
          label: of n records.
          known: whether there is a feature beside it that says which classes are known.
        """
        label, count = np.asarray(label), self.classes
        if label.ndim == 1:
            if label.dtype.kind not in "iu":
                return f"is {label.dtype}, but classes are integers"
            wrong = label[(label < -1) | (label >= count)]
            if wrong.size:
                return (
                    f"{wrong[0]} is no class: the model has {count}, 0..{count - 1}, and -1 is none"
                )
            return ""
        what = f"is {label.dtype}{list(label.shape[1:])}"
        if self.form == "class":
            return f"{what}, but this loss takes one integer per record"
        if label.ndim != 2 or label.shape[1] != count:
            return f"{what}, but the model has {count} classes"
        values = label.astype(np.float64)
        values = values[~(values == -1).all(1)]
        if self.form == "independent":
            wrong = values[~((values >= 0) & (values <= 1) | (values == -1))]
            return f"has {wrong[0]:g} for a class, not 0..1 or -1, not known" if wrong.size else ""
        if known:
            return f"is known in part, {_NEEDS_INDEPENDENT}"
        sums = values.sum(1)
        wrong = sums[~(np.abs(sums - 1) <= _SLACK) | (values < 0).any(1)]
        if not wrong.size:
            return ""
        return (
            f"has weights of sum {wrong[0]:g}, and one class or a distribution has 1: several "
            f"classes at once, or none of them, {_NEEDS_INDEPENDENT}"
        )
