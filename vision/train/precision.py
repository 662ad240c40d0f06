"""In which number formats a network keeps parameters, computes, and answers."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True)
class Precision:
    """Number formats of a tower. Statistics of norms and softmax are float32 whatever it says.

    Attributes:
      params: of stored parameters, so also of gradients and of moments that follow them.
      compute: of activations between layers and of the inputs of products.
      output: of ``pooled``, ``embedding`` and ``logits``, and of the head that computes them.
      attention_logits: in which products of queries and keys leave the multiplication, before
        the softmax. Below float32 they take half the memory, and JAX's fused kernels do not run.
    """

    params: Dtype = "float32"
    compute: Dtype = "float32"
    output: Dtype = "float32"
    attention_logits: Dtype = "float32"

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value not in get_args(Dtype):
                valid = ", ".join(map(repr, get_args(Dtype)))
                raise ValueError(f"{name}={value!r}, but it is one of {valid}")
