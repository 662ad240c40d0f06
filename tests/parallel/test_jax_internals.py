"""What is read of JAX's internals, one test a reading: run with every JAX that is allowed."""

from __future__ import annotations

import socket
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src import distributed
from jax._src.mesh import AbstractDevice
from jax.experimental import pallas as pl
from jax.extend.core import jaxpr_as_fun
from jax.sharding import PartitionSpec as P

from tests.cudnn import trace_without_gpu
from vision.parallel import jax_internals
from vision.parallel.mesh import platform

X = jnp.ones((4, 4))


def traced(function: Any, *args: Any) -> Any:
    return jax.make_jaxpr(function)(*args).jaxpr


def only(name: str, function: Any, *args: Any) -> Any:
    found = [
        e for e in jax_internals.equations(traced(function, *args)) if e.primitive.name == name
    ]
    assert len(found) == 1, [e.primitive.name for e in found]
    return found[0]


def test_scan():
    def function(x: jax.Array, xs: jax.Array, start: jax.Array) -> Any:
        def step(carry: Any, each: jax.Array) -> Any:
            one, two = carry
            return (one @ x, two + 1), (each.sum(), one[0])

        return lax.scan(step, (start, 0), xs, reverse=True)

    equation = only("scan", function, X, jnp.ones((3, 2)), X)
    found = jax_internals.scan(equation.params)
    assert (found.length, found.reverse, found.constants, found.carry) == (3, True, 1, 2)
    shapes = [v.aval.shape for v in found.body.jaxpr.invars]
    assert shapes == [(4, 4), (4, 4), (), (2,)]
    assert [v.aval.shape for v in found.body.jaxpr.outvars] == [(4, 4), (), (), (4,)]
    assert len(equation.invars) == len(shapes)
    forward = only("scan", lambda xs: lax.scan(lambda c, x: (c + x, None), 0.0, xs), jnp.ones(5))
    found = jax_internals.scan(forward.params)
    assert (found.length, found.reverse, found.constants, found.carry) == (5, False, 0, 1)


@jax.custom_jvp
def with_jvp(x: jax.Array) -> jax.Array:
    return 2 * x


@jax.custom_vjp
def with_vjp(x: jax.Array) -> jax.Array:
    return 2 * x


with_jvp.defjvp(lambda primals, tangents: (2 * primals[0], 2 * tangents[0]))
with_vjp.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (2 * cotangent,))


@pytest.mark.parametrize("wrapped", [with_jvp, with_vjp, jax.checkpoint(lambda x: 2 * x)])
def test_calls(wrapped: Any):
    [equation] = traced(wrapped, X).eqns
    call = jax_internals.called(equation)
    assert call is not None
    name, program = call
    assert name == equation.primitive.name
    np.testing.assert_array_equal(jaxpr_as_fun(program)(X)[0], 2 * X)


def test_a_jitted_function_keeps_its_name():
    @jax.jit
    def named(x: jax.Array) -> jax.Array:
        return 2 * x

    [equation] = traced(named, X).eqns
    call = jax_internals.called(equation)
    assert call is not None
    assert call[0] == "named"
    [equation] = traced(lambda x: 2 * x, X).eqns
    assert jax_internals.called(equation) is None


def test_programs_inside():
    def function(flag: jax.Array, x: jax.Array) -> jax.Array:
        x = lax.cond(flag, jnp.sin, lambda x: x @ x, x)
        return lax.while_loop(lambda x: x.sum() < 0, lambda x: jax.jit(jnp.tanh)(x), x)

    [*_, cond] = [e for e in traced(function, True, X).eqns if e.primitive.name == "cond"]
    branches = jax_internals.branches(cond.params)
    assert [b.eqns[0].primitive.name for b in branches] == ["dot_general", "sin"]
    assert list(jax_internals.inner_programs(cond.params)) == list(branches)
    names = [e.primitive.name for e in jax_internals.equations(traced(function, True, X))]
    assert {"cond", "sin", "dot_general", "while", "lt", "tanh"} <= set(names)
    assert names.index("cond") < names.index("sin")


def test_shard_map():
    mesh = jax.make_mesh((4, 2), ("data", "other"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def split(x: jax.Array, **options: Any) -> jax.Array:
        specs = {"in_specs": P("data"), "out_specs": P("data")}
        return jax.shard_map(lambda x: 2 * x, mesh=mesh, **specs, **options)(x)

    assert jax_internals.shard_map_devices(only("shard_map", split, X).params) == 8
    some = only("shard_map", lambda x: split(x, axis_names={"data"}), X)
    assert jax_internals.shard_map_devices(some.params) == 4


def test_products_and_convolutions():
    dot = only("dot_general", lambda x, y: jnp.einsum("bij,bkj->bik", x, y), X[None], X[None])
    assert [tuple(axes) for axes in jax_internals.contracted_axes(dot.params)] == [(2,), (2,)]
    layout = ("NHWC", "HWIO", "NHWC")
    conv = only(
        "conv_general_dilated",
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout),
        jnp.ones((2, 4, 4, 3)),
        jnp.ones((3, 3, 3, 5)),
    )
    axes = jax_internals.convolution_axes(conv.params)
    assert tuple(axes.lhs_spec) == (0, 3, 1, 2)
    assert tuple(axes.rhs_spec) == (3, 2, 0, 1)
    assert tuple(axes.out_spec) == (0, 3, 1, 2)


def test_layout_of_fused_attention(monkeypatch: pytest.MonkeyPatch):
    trace_without_gpu(monkeypatch)
    x = jnp.ones((2, 8, 4, 16), jnp.bfloat16)  # batch, tokens, heads, width

    def attend(x: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(x, x, x, implementation="cudnn")

    found = [
        e
        for e in jax_internals.equations(traced(attend, x))
        if e.primitive.name.startswith("dot_product_attention_")
    ]
    assert len(found) >= 1
    assert not jax_internals.attention_is_heads_first(found[0].params)


def test_name_of_a_kernel():
    def double(x_ref: Any, out_ref: Any) -> None:
        out_ref[...] = 2 * x_ref[...]

    out = jax.ShapeDtypeStruct(X.shape, X.dtype)
    found = only("pallas_call", pl.pallas_call(double, out, name="twice", interpret=True), X)
    assert jax_internals.kernel_name(found.params) == "twice"


def test_variables_and_constants():
    equation = only("mul", lambda x: 2.0 * x, X)
    constant, variable = equation.invars
    assert jax_internals.is_variable(variable)
    assert not jax_internals.is_variable(constant)
    assert jax_internals.literal_value(variable) is None
    assert jax_internals.literal_value(constant) == (2.0,)


@pytest.mark.parametrize("scanned", [False, True])
def test_all_intermediates_are_kept(scanned: bool):
    """The gradient of a rematerialised function computes no sine twice."""

    def loss(x: jax.Array) -> jax.Array:
        block = jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)), prevent_cse=not scanned)
        if scanned:
            return lax.scan(lambda c, _: (block(c), None), x, length=3)[0].sum()
        return block(x).sum()

    program = jax.make_jaxpr(loss)(X)
    kept = jax_internals.keep_all_intermediates(program)

    def sines(program: Any) -> int:
        gradient = traced(jax.grad(lambda x: jaxpr_as_fun(program)(x)[0]), X)
        return sum(e.primitive.name == "sin" for e in jax_internals.equations(gradient))

    assert sines(kept) == 2 < sines(program)
    np.testing.assert_allclose(jaxpr_as_fun(kept)(X)[0], loss(X), rtol=1e-6)


def test_coordination_client(monkeypatch: pytest.MonkeyPatch):
    """A service of its own with one process, asked for everything that is read of a client."""
    assert jax_internals.coordination_client() is None
    assert jax_internals.coordinator_address() is None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    state = distributed.State()
    state.initialize(address, 1, 0, coordinator_bind_address=address)
    monkeypatch.setattr(distributed, "global_state", state)
    try:
        assert jax_internals.coordinator_address() == address
        assert jax_internals.coordination_client() is None  # a run of one process needs none
        state.num_processes = 2
        client = jax_internals.coordination_client()
        assert client is not None
        client.key_value_set("folder/a", "1")
        with pytest.raises(jax.errors.JaxRuntimeError, match="ALREADY_EXISTS"):
            client.key_value_set("folder/a", "2")
        assert client.blocking_key_value_get("folder/a", 1000) == "1"
        with pytest.raises(jax.errors.JaxRuntimeError, match="DEADLINE_EXCEEDED"):
            client.blocking_key_value_get("folder/b", 10)
        assert client.key_value_dir_get("folder/") == [("folder/a", "1")]
        client.key_value_delete("folder/")
        assert client.key_value_dir_get("folder/") == []
        client.wait_at_barrier("here", 1000)
    finally:
        state.num_processes = 1
        state.shutdown()


def test_mesh_platform():
    """What the mesh stands for decides, also where none of its devices is here."""
    axes = ((1,), ("data",))
    assert jax_internals.mesh_platform(jax.sharding.AbstractMesh(*axes)) is None
    here = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    assert jax_internals.mesh_platform(here.abstract_mesh) == jax.devices()[0].platform
    tpu = AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh(*axes, abstract_device=tpu)
    assert jax_internals.mesh_platform(mesh) == "tpu"
    with jax.sharding.use_abstract_mesh(mesh):
        assert platform() == "tpu"
    assert platform() == jax.default_backend()


def test_scopes_outlive_transformations():
    def function(x: jax.Array) -> jax.Array:
        def row(x: jax.Array) -> jax.Array:
            with jax.named_scope("mine"):
                return x * X[0]

        return lax.map(jax.checkpoint(row), x).sum()

    for traced_one in (traced(function, X), traced(jax.grad(function), X)):
        found = [
            jax_internals.scopes(e)
            for e in jax_internals.equations(traced_one)
            if e.primitive.name == "mul"
        ]
        assert found
        assert all("mine" in each for each in found)
