"""cuDNN's attention without a GPU: it is traced, not compiled."""

from __future__ import annotations

import pytest
from jax._src.cudnn import fused_attention_stablehlo


def trace_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers what tracing would ask of the GPU's driver: versions that have all features."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    capability = "is_cuda_compute_capability_equal"
    monkeypatch.setattr(fused_attention_stablehlo, capability, lambda version: False)
