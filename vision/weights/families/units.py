"""Entries of the layers that many families have, in PyTorch's naming."""

from __future__ import annotations

from vision.weights.mapping import CONV, LINEAR, Form, MapEntry

# Dense layers on pooled features that others write as 1x1 convolutions.
POINTWISE = Form(
    "1x1 convolution (out, in, 1, 1)",
    lambda tensors: tensors[0].reshape(tensors[0].shape[:2]).T,
    lambda array: (array.T[:, :, None, None],),
)
# What a BatchNorm of theirs holds besides its four arrays.
COUNTERS = {r".*\.num_batches_tracked": "counts training steps; ours averages with a fixed rate"}


def layer(ours: str, theirs: str, form: Form = LINEAR, bias: bool = True) -> tuple[MapEntry, ...]:
    """Kernel, and bias if there is one, of a dense layer or convolution."""
    kernel = MapEntry(f"params.{ours}.kernel", (f"{theirs}.weight",), form)
    if not bias:
        return (kernel,)
    return kernel, MapEntry(f"params.{ours}.bias", (f"{theirs}.bias",))


def norm(ours: str, theirs: str) -> tuple[MapEntry, ...]:
    """Scale and bias of a normalisation."""
    return (
        MapEntry(f"params.{ours}.scale", (f"{theirs}.weight",)),
        MapEntry(f"params.{ours}.bias", (f"{theirs}.bias",)),
    )


def batch_norm(ours: str, theirs: str) -> tuple[MapEntry, ...]:
    """Scale, bias and running statistics."""
    statistics = f"model_state.batch_stats.{ours}"
    return (
        *norm(ours, theirs),
        MapEntry(f"{statistics}.mean", (f"{theirs}.running_mean",)),
        MapEntry(f"{statistics}.var", (f"{theirs}.running_var",)),
    )


def conv_norm(ours: tuple[str, str], theirs: tuple[str, str]) -> tuple[MapEntry, ...]:
    """A convolution without bias and its BatchNorm: names of both, ours and theirs."""
    return (
        *layer(ours[0], theirs[0], CONV, bias=False),
        *batch_norm(ours[1], theirs[1]),
    )
