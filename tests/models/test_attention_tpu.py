"""A TPU's kernel of attention, interpreted on a CPU, against the plain form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.models import attention_tpu
from vision.models.attention import attend
from vision.parallel.mesh import Mesh
from vision.train.precision import Precision


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_kernel_gives_what_the_plain_form_does(
    everything: bool, monkeypatch: pytest.MonkeyPatch
):
    """Output and gradients; with masks in two groups of heads, two blocks of queries, the second
    over the end."""
    monkeypatch.setattr(attention_tpu, "_LOGITS_BYTES", 4 * 20 * 16 if everything else 2**20)
    monkeypatch.setattr(attention_tpu, "_BLOCKS_BYTES", 200_000)
    shape = (2, 20, 4, 64) if everything else (2, 5, 2, 80)
    cut = attention_tpu.plan(shape, 4, 1, everything, True)
    assert cut is not None
    assert (cut.heads, cut.steps) == ((2, 2) if everything else (2, 1))
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, weights = (jax.random.normal(key, shape) for key in keys)
    mask = jnp.arange(20) < jnp.asarray([[20], [17]]) if everything else None

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = attention_tpu.attention(q, k, v, mask, causal=everything, interpret=True)
        assert out is not None
        return jnp.sum(out * weights)

    def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(attend(q, k, v, Precision(), "xla", mask, everything) * weights)

    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(kernel, (0, 1, 2))(q, k, v)),
        jax.tree.leaves(jax.value_and_grad(plain, (0, 1, 2))(q, k, v)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5)


def test_plans():
    def plan(tokens: int, heads: int, width: int, parts: int = 1) -> attention_tpu.Plan | None:
        return attention_tpu.plan((8, tokens, heads, width), 2, parts, False, False)

    small, large = plan(196, 6, 64), plan(1370, 12, 64)
    assert small is not None
    assert large is not None
    # Heads of 64 lanes go in pairs; a head at the end of an odd number stays alone.
    assert (small.heads, small.steps, small.lanes) == (6, 1, 384)
    assert [(w.start, w.stop, start) for w, start in small.windows()][:3] == [
        (0, 128, 0), (0, 128, 64), (128, 256, 0),
    ]  # fmt: skip
    assert large.steps > 1
    assert large.rows % 16 == 0
    assert large.lanes % 128 == 0
    shared = plan(196, 6, 64, parts=2)
    assert shared is not None
    assert (shared.heads, shared.all_heads) == (3, 6)
    assert plan(100_000, 12, 64) is None


def test_devices_of_a_mesh_have_their_examples_and_heads():
    """Each has a call for its own part, and what cannot be split takes the plain form."""
    mesh = Mesh(data=2, tensor=2).build(jax.devices()[:4])
    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((4, 6, 2, 16), jnp.float32)
        program = jax.make_jaxpr(lambda x: attention_tpu.attention(x, x, x))(x)
        assert "float32[2,6,16]" in str(program).replace("f32", "float32")
        odd = jax.ShapeDtypeStruct((3, 6, 2, 16), jnp.float32)
        assert jax.eval_shape(lambda x: attention_tpu.attention(x, x, x), odd) is None
    query = jnp.ones((4, 1, 2, 16))
    assert attention_tpu.attention(query, jnp.ones((4, 6, 2, 16)), jnp.ones((4, 6, 2, 16))) is None
