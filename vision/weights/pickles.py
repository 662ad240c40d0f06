"""Pickles of torch's state dicts, read without being run.

A pickle is a program for a small machine with a stack. ``read_pickle`` follows it, but knows no
more than lists, dictionaries, texts, numbers and the few names with which torch describes a tensor.
It imports nothing and calls nothing: a name that it does not know ends it.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES: Mapping[str, Any] = {
    "torch.float64": np.float64,
    "torch.float32": np.float32,
    "torch.float16": np.float16,
    "torch.bfloat16": ml_dtypes.bfloat16,
    "torch.float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "torch.float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "torch.float8_e5m2": ml_dtypes.float8_e5m2,
    "torch.float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "torch.float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    "torch.complex128": np.complex128,
    "torch.complex64": np.complex64,
    "torch.int64": np.int64,
    "torch.int32": np.int32,
    "torch.int16": np.int16,
    "torch.int8": np.int8,
    "torch.uint64": np.uint64,
    "torch.uint32": np.uint32,
    "torch.uint16": np.uint16,
    "torch.uint8": np.uint8,
    "torch.bool": np.bool_,
}
# None: bytes, whose meaning the tensors on them say.
_STORAGES: Mapping[str, Any] = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.ComplexDoubleStorage": np.complex128,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.storage.UntypedStorage": None,
}
# NumPy has no arrays of more axes, and counts their bytes in 63 bits.
_MAX_AXES, _MAX_COUNT = 64, 1 << 58
# Objects that wait on the stack: torch puts dictionaries there in pieces of a thousand.
_MAX_STACK = 100_000


class PickleRefused(ValueError):
    """A pickle is not that of a state dict; the message says where and why, without the file."""


class UnknownName(PickleRefused):
    """It asks for something, or does something, that no state dict needs: code, in most cases."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where numbers of tensors lie.

    Attributes:
      key: its name in the file.
      dtype: of its elements; None where they are bytes.
      count: of its elements.
    """

    key: str
    dtype: np.dtype | None
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * (1 if self.dtype is None else self.dtype.itemsize)


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor: numbers of a storage.

    Attributes:
      storage: where they lie.
      dtype: of its elements.
      offset: of the first, in elements.
      shape, strides: of its axes, strides in elements.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """Something that a pickle asks for by its name."""

    name: str


class _Mark:
    """Where on the stack the operands of an opcode begin."""


_MARK = _Mark()
_CONSTANTS: Mapping[str, Any] = {
    "EMPTY_TUPLE": (),
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
# Of protocol 2, in which torch writes.
_LITERALS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
_UNREADABLE = (ValueError, OverflowError, struct.error, MemoryError, IndexError)


def read_pickle(file: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """What the pickle that begins here describes; the file stands behind it afterwards.

    Returns:
      Dictionaries, lists, tuples, texts, bytes and numbers, with a ``View`` for every tensor; and
      all storages by their keys.

    Raises:
      PickleRefused: it is damaged, or holds what no state dict does.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.result(), machine.storages
            machine.step(opcode.name, argument)
    except PickleRefused:
        raise
    except _UNREADABLE as error:
        raise PickleRefused(f"is damaged{machine.place()}: {error}") from error
    raise PickleRefused("has no end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def place(self) -> str:
        """The text read last, which is the key of what is being read, for messages."""
        key = next((x for x in reversed(self.stack) if isinstance(x, str)), None)
        return "" if key is None else f" at {key[:80]!r}"

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise PickleRefused("is damaged: it ends with more or less than one object")
        return self.stack[0]

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if len(stack) > _MAX_STACK:
            raise PickleRefused(f"has a dictionary or list of more than {_MAX_STACK} pieces")
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            stack.append(tuple(self.pop(_TUPLES[opcode])))
        elif opcode in _PUTS:
            self.memo[argument] = self._top()
        elif opcode in _GETS:
            if argument not in self.memo:
                raise PickleRefused(f"is damaged{self.place()}: it has nothing number {argument}")
            stack.append(self.memo[argument])
        elif opcode != "PROTO":
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise UnknownName(f"has the opcode {opcode}{self.place()}")
            handler(self, argument)

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleRefused("is damaged: an opcode finds nothing on the stack")
        return self.stack[-1]

    def pop(self, count: int) -> list[Any]:
        found = self.stack[len(self.stack) - count :] if count else []
        if len(found) != count or any(x is _MARK for x in found):
            raise PickleRefused("is damaged: an opcode finds too little on the stack")
        del self.stack[len(self.stack) - count :]
        return found

    def marked(self) -> list[Any]:
        """What lies above the last mark, which is removed with it."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise PickleRefused("is damaged: an opcode finds no mark")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def append(self, values: list[Any]) -> None:
        if type(self._top()) is not list:
            raise PickleRefused(f"appends to what is no list{self.place()}")
        self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        found = self._top()
        if type(found) is not dict or len(values) % 2:
            raise PickleRefused(f"sets entries of what is no dictionary{self.place()}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise PickleRefused(f"has an entry under a {type(key).__name__}, not a name")
            if key in found:
                raise PickleRefused(f"has two entries {str(key)[:80]!r}")
            found[key] = value

    def look_up(self, full: str) -> None:
        if full not in _STORAGES and full not in _DTYPES and full not in _CALLS:
            raise UnknownName(f"asks for {full[:120]}{self.place()}")
        self.stack.append(_Name(full))

    def persistent(self) -> None:
        """A storage: ("storage", its class, key, device, count), since 1.6 and before."""
        (found,) = self.pop(1)
        if type(found) is not tuple or not 5 <= len(found) <= 6 or found[0] != "storage":
            raise PickleRefused(f"refers to what is no storage{self.place()}")
        _, kind, key, _, count, *view = found
        if not isinstance(kind, _Name) or kind.name not in _STORAGES:
            raise PickleRefused(f"has a storage of an unknown kind{self.place()}")
        if type(key) is not str or type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise PickleRefused(f"has a storage without a key or a count{self.place()}")
        if any(view):
            raise PickleRefused(f"has a storage that is part of another{self.place()}")
        dtype = _STORAGES[kind.name]
        storage = Storage(key, None if dtype is None else np.dtype(dtype), count)
        if self.storages.setdefault(key, storage) != storage:
            raise PickleRefused(f"describes storage {key[:80]!r} in two ways{self.place()}")
        self.stack.append(storage)

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Name) or function.name not in _CALLS:
            raise PickleRefused(f"calls what is no function{self.place()}")
        if type(arguments) is not tuple:
            raise PickleRefused(f"calls {function.name} without arguments{self.place()}")
        try:
            self.stack.append(_CALLS[function.name](arguments))
        except PickleRefused as error:
            raise PickleRefused(f"{error}{self.place()}") from error

    def build(self) -> None:
        """Attributes of a dictionary, such as the versions of modules, have no meaning here."""
        found, state = self.pop(2)
        if type(found) is not dict or type(state) is not dict:
            raise PickleRefused(f"sets attributes of what is no dictionary{self.place()}")
        self.stack.append(found)


_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.push(_MARK),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    "APPEND": lambda m, _: m.append(m.pop(1)),
    "APPENDS": lambda m, _: m.append(m.marked()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.marked()),
    "GLOBAL": lambda m, argument: m.look_up(argument.replace(" ", ".")),
    "BINPERSID": lambda m, _: m.persistent(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}


def _empty_dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise PickleRefused("makes a dictionary in an unknown way")
    return {}


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) != 1 or not _are_counts(arguments[0]):
        raise PickleRefused("has a size that is none")
    return arguments[0]


def _parameter(arguments: tuple[Any, ...]) -> View:
    """``_rebuild_parameter(tensor, requires_grad, hooks)``."""
    if len(arguments) != 3 or not isinstance(arguments[0], View) or arguments[2]:
        raise PickleRefused("has a parameter that is no tensor, or has hooks")
    return arguments[0]


def _tensor(arguments: tuple[Any, ...]) -> View:
    """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)``."""
    storage = arguments[0] if arguments else None
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise PickleRefused("has a tensor without a storage of numbers")
    _check_plain(arguments[5:])
    return _view(storage, storage.dtype, arguments[1:4])


def _tensor_of_dtype(arguments: tuple[Any, ...]) -> View:
    """``_rebuild_tensor_v3``, whose storage is bytes; a dtype follows the hooks."""
    if not 7 <= len(arguments) <= 8:
        raise PickleRefused("has a tensor described in an unknown way")
    storage, *place, _, hooks, dtype = arguments[:7]
    if not isinstance(dtype, _Name) or dtype.name not in _DTYPES:
        raise PickleRefused("has a tensor of an unknown dtype")
    if not isinstance(storage, Storage):
        raise PickleRefused("has a tensor without a storage")
    _check_plain((hooks, *arguments[7:]))
    return _view(storage, np.dtype(_DTYPES[dtype.name]), tuple(place))


def _check_plain(extras: tuple[Any, ...]) -> None:
    """Hooks are code; other extras say that numbers stand for their negatives or conjugates."""
    if any(extras) or len(extras) > 2:
        raise PickleRefused("has a tensor with hooks, or before resolve_conj().resolve_neg()")


def _view(storage: Storage, dtype: np.dtype, place: tuple[Any, ...]) -> View:
    if len(place) != 3 or type(place[0]) is not int or place[0] < 0:
        raise PickleRefused("has a tensor without an offset")
    offset, shape, strides = place
    if not _are_counts(shape) or not _are_counts(strides) or len(shape) != len(strides):
        raise PickleRefused("has a tensor whose shape or strides are no counts")
    if len(shape) > _MAX_AXES or math.prod(shape) >= _MAX_COUNT:
        raise PickleRefused(f"has a tensor that no computer holds, of shape {str(shape)[:80]}")
    return View(storage, dtype, offset, shape, strides)


def _are_counts(values: Any) -> bool:
    return type(values) is tuple and all(type(v) is int and 0 <= v < _MAX_COUNT for v in values)


# What a state dict calls; nothing of torch or of Python is behind these names here.
_CALLS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_dictionary,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
}
