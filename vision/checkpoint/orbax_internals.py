"""What is changed inside Orbax, which has no switch for it; ``tests/checkpoint`` has a test each.

TensorStore (to 0.1.86, the newest, at least) never frees the texts in what it gives out as JSON.
Orbax asks for that in every save: once per array, where its files lie, and twice how many bytes
were moved, for a log. So every save left some 20 KiB and 1 KiB for every array behind, hundreds of
megabytes in a long run that saves often. Both questions are answered here instead.

Of an array that stands on several devices Orbax saves a part from each. To cut it is a program for
every shape and place, which takes tens of milliseconds to compile: for a small array that is longer
than to write it. Those are written whole, by one device.
"""

from __future__ import annotations

import types
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint._src.serialization import tensorstore_utils

# Other versions of Orbax may not have them.
_COUNT, _PLACE = "get_tensorstore_raw_bytes", "_build_ocdbt_kvstore_tspec"
_LEAST = "_min_slice_bytes_for_replica_parallel"
# A part of an array that is worth a program of its own.
_LEAST_BYTES = 1 << 16


def stop_leaks() -> None:
    """Keeps Orbax from asking TensorStore for JSON in saves and restores; may be called again."""
    if hasattr(tensorstore_utils, _COUNT):
        setattr(tensorstore_utils, _COUNT, _no_bytes)
    place = getattr(tensorstore_utils, _PLACE, None)
    if isinstance(place, types.FunctionType) and place.__globals__.get("ts") is tensorstore:
        names = {**place.__globals__, "ts": _Tensorstore()}
        answered = types.FunctionType(place.__code__, names, _PLACE, place.__defaults__)
        answered.__kwdefaults__ = place.__kwdefaults__
        setattr(tensorstore_utils, _PLACE, answered)


def write_small_arrays_whole() -> None:
    """Keeps Orbax from cutting replicated arrays into parts below ``_LEAST_BYTES``; may be called
    again."""
    handler = ocp.type_handlers.get_type_handler(jax.Array)
    if hasattr(handler, _LEAST):
        setattr(handler, _LEAST, _LEAST_BYTES)


def _no_bytes(direction: Any = None) -> int:
    return 0  # then none are logged


class _Tensorstore:
    """The module ``tensorstore``, but for what it says of a folder of files."""

    def __init__(self):
        self.KvStore = types.SimpleNamespace(Spec=_spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(tensorstore, name)


class _FileSpec:
    """``tensorstore.KvStore.Spec`` of a folder of files, which is its own JSON."""

    def __init__(self, plain: dict[str, str]):
        self._plain = plain

    def to_json(self) -> dict[str, str]:
        return dict(self._plain)


def _spec(plain: Any) -> Any:
    if isinstance(plain, dict) and plain.keys() == {"driver", "path"} and plain["driver"] == "file":
        return _FileSpec(plain)
    return tensorstore.KvStore.Spec(plain)
