"""What is changed in a translated ONNX graph: any number of images, choices between truth values.

jax2onnx writes the number of rows that it saw into a graph: as constants of whole numbers, the
shapes, and as arrays that are there once per row. Two translations, for different numbers, have the
same nodes and differ in these constants alone, so they are found and computed instead. (jax2onnx
can leave a dimension open itself, but of 0.13 neither padding nor convolutions can.)

onnxruntime has no ``Where`` between truth values, as masks of causal attention are made of; the
same in ``And``, ``Or`` and ``Not`` it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

ROWS = "rows"  # name of the open dimension
_PREFIX = "any_rows_"
_COUNT = f"{_PREFIX}count"


class ClosedError(Exception):
    """A graph has its number of rows elsewhere than in shapes; the message says where."""


def open_rows(first: Any, second: Any, rows: tuple[int, int]) -> Any:
    """One graph for any number of rows, of two that were translated for so many each.

    Args:
      first, second: ``onnx.ModelProto`` of the same program; ``first`` is changed.
      rows: the numbers, which differ.

    Raises:
      ClosedError: they differ in more than shapes that grow evenly and arrays that are repeated.
    """
    from onnx import helper, numpy_helper  # pyright: ignore[reportMissingImports]

    graph = first.graph
    (given,) = graph.input
    made = [helper.make_node("Shape", [given.name], [_COUNT], start=0, end=1)]
    constants: list[Any] = []
    pairs = list(zip(_graphs(graph), _graphs(second.graph), strict=True))
    for place, (ours, other) in enumerate(pairs):
        _check_same_nodes(ours, other)
        later = {each.name: each for each in other.initializer}
        for tensor in list(ours.initializer):
            a, b = (numpy_helper.to_array(each) for each in (tensor, later[tensor.name]))
            if a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                continue
            name = tensor.name if not place else f"{_PREFIX}{place}_{tensor.name}"
            values, nodes = _computed(name, a, b, rows)
            constants += [numpy_helper.from_array(x, key) for key, x in values.items()]
            made += nodes
            ours.initializer.remove(tensor)
            if place:  # graphs inside of others see the names of those around them
                _renamed(ours, tensor.name, name)
        del ours.value_info[:]
    graph.initializer.extend(constants)
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for each in (given, *graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = ROWS
    return first


def without_choices_of_truth(model: Any) -> Any:
    """The model with ``Where`` between truth values as ``And``, ``Or`` and ``Not``; changed."""
    from onnx import TensorProto, helper, shape_inference  # pyright: ignore[reportMissingImports]

    if not any(node.op_type == "Where" for graph in _graphs(model.graph) for node in graph.node):
        return model
    for graph in _graphs(model.graph):
        del graph.value_info[:]  # jax2onnx's shapes are not always right, and nothing needs them
    known = shape_inference.infer_shapes(model)
    truths = {
        each.name
        for graph in _graphs(known.graph)
        for each in (*graph.value_info, *graph.input, *graph.output)
        if each.type.tensor_type.elem_type == TensorProto.BOOL
    }
    truths |= {
        tensor.name
        for graph in _graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.BOOL
    }
    for graph in _graphs(model.graph):
        nodes = []
        for node in graph.node:
            if node.op_type != "Where" or not truths & {*node.input[1:], *node.output}:
                nodes.append(node)
                continue
            (condition, yes, no), (out,) = node.input, node.output
            names = [f"{out}_{part}" for part in ("yes", "not", "no")]
            nodes += [
                helper.make_node("And", [condition, yes], [names[0]]),
                helper.make_node("Not", [condition], [names[1]]),
                helper.make_node("And", [names[1], no], [names[2]]),
                helper.make_node("Or", [names[0], names[2]], [out]),
            ]
        del graph.node[:]
        graph.node.extend(nodes)
    return model


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes, such as the bodies of loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _check_same_nodes(ours: Any, other: Any) -> None:
    def plain(node: Any) -> tuple[Any, ...]:
        attributes = [x for x in node.attribute if not (x.HasField("g") or x.graphs)]
        values = [x.SerializeToString(deterministic=True) for x in attributes]
        return node.op_type, tuple(node.input), tuple(node.output), values

    if len(ours.node) != len(other.node):
        raise ClosedError("it has another number of nodes for another number of images")
    for a, b in zip(ours.node, other.node, strict=True):
        if plain(a) != plain(b):
            raise ClosedError(f"{a.op_type} ({a.name}) is another for another number of images")
    names = [{each.name for each in graph.initializer} for graph in (ours, other)]
    if names[0] != names[1]:
        raise ClosedError("it has other constants for another number of images")


def _computed(
    name: str, a: np.ndarray, b: np.ndarray, rows: tuple[int, int]
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """What makes a constant, named ``name``, from the number of rows: constants and nodes.

    Either whole numbers that grow evenly with it, or an array that is repeated as often.
    """
    from onnx import helper  # pyright: ignore[reportMissingImports]

    if a.shape != b.shape:
        base, repeats = _repeated(name, a, b, rows)
        times, nodes = _computed(f"{name}_times", repeats[0], repeats[1], rows)
        nodes.append(helper.make_node("Tile", [f"{name}_once", f"{name}_times"], [name]))
        return {**times, f"{name}_once": base}, nodes
    if a.dtype != np.int64:
        raise ClosedError(f"the constant {name} is another for another number of images")
    slope, left = np.divmod(b - a, rows[1] - rows[0])
    if left.any():
        raise ClosedError(f"the shape {name} does not grow evenly with the number of images")
    factor, added, product = (f"{name}_{part}" for part in ("factor", "added", "product"))
    values = {factor: np.atleast_1d(slope), added: np.atleast_1d(a - slope * rows[0])}
    nodes = [helper.make_node("Mul", [_COUNT, factor], [product])]
    whole = name if a.ndim else f"{name}_row"
    nodes.append(helper.make_node("Add", [product, added], [whole]))
    if not a.ndim:
        nodes.append(helper.make_node("Squeeze", [whole], [name]))
    return values, nodes


def _repeated(
    name: str, a: np.ndarray, b: np.ndarray, rows: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The part of an array that is there once per row, and how often each axis has it."""
    problem = ClosedError(f"the constant {name} is not the same for every image")
    if a.ndim != b.ndim:
        raise problem
    once = [np.ones(a.ndim, np.int64) for _ in rows]
    base = a
    for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)):
        if m == n:
            continue
        if m * rows[1] != n * rows[0] or m % rows[0]:
            raise problem
        base = np.take(base, range(m // rows[0]), axis)
        for repeats, number in zip(once, rows, strict=True):
            repeats[axis] = number
    for whole, repeats in zip((a, b), once, strict=True):
        if not np.array_equal(np.tile(base, repeats), whole, equal_nan=a.dtype.kind == "f"):
            raise problem
    return base, once


def _renamed(graph: Any, old: str, new: str) -> None:
    for inner in _graphs(graph):
        for node in inner.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
