"""Norms and biases of a network, the leaves of which every expert has copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def non_kernels(params: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts that are not kernels: norms and biases."""
    leaves = {}
    for name, x in params.items():
        inner = non_kernels(x) if isinstance(x, Mapping) else x
        if name != "kernel" and not (isinstance(inner, dict) and not inner):
            leaves[name] = inner
    return leaves


def replaced(params: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested ``params`` with the leaves of ``leaves`` in place of those of the same path."""
    return {
        name: replaced(x, leaves.get(name, {})) if isinstance(x, Mapping) else leaves.get(name, x)
        for name, x in params.items()
    }
