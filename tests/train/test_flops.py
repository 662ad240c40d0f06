"""FLOPs: published and hand-computed counts, gradients, control flow, peaks of devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from tests.cudnn import trace_without_gpu
from vision.models import attention, layers
from vision.models.convolution import convolve
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel import jax_internals
from vision.parallel.mesh import Mesh
from vision.train.flops import count, mfu, peak_flops, without_recomputation
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.precision import Precision
from vision.train.schedule import TrainLength
from vision.train.step import Step


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def forward_flops(model: Any, batch: int = 1, size: int = 224) -> int:
    image = shape(batch, size, size, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return count(lambda v, x: model.apply(v, x)[1]["logits"], variables, image)


def vit_macs(width: int, depth: int, mlp: int, tokens: int, patch: int, classes: int) -> int:
    block = tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width
    patches = (tokens - 1) * patch**2 * 3 * width
    return patches + depth * block + width * classes


def test_published_counts_of_whole_networks():
    vit = forward_flops(ViT(variant="S/16", num_classes=1000))
    assert vit == 2 * vit_macs(384, 12, 1536, 197, 16, 1000)
    assert vit / 2 == pytest.approx(4.6e9, rel=0.01)  # timm's vit_small_patch16_224
    resnet = forward_flops(ResNet(depth=50, num_classes=1000))
    assert resnet / 2 == pytest.approx(4.09e9, rel=0.005)  # torchvision's resnet50
    assert forward_flops(ViT(variant="S/16", num_classes=1000), batch=3) == 3 * vit


def test_scanned_blocks_count_as_unrolled_ones():
    sizes: dict[str, Any] = {"width": 16, "depth": 5, "heads": 2, "patch": 8, "num_classes": 3}
    scanned, unrolled = (forward_flops(ViT(scan=s, **sizes), size=16) for s in (True, False))
    assert scanned == unrolled


def conv(stride: int = 1, groups: int = 1, padding: Any = "SAME", dilation: int = 1) -> Callable:
    def fn(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return fn


@pytest.mark.parametrize(
    ("size", "kernel", "options", "out"),
    [
        (14, (3, 3, 8, 16), {}, 14),
        (14, (3, 3, 8, 16), {"stride": 2}, 7),
        (15, (3, 3, 8, 16), {"stride": 2, "padding": "VALID"}, 7),
        (14, (1, 1, 8, 16), {"stride": 2}, 7),
        (14, (7, 7, 1, 8), {"groups": 8}, 14),
        (14, (3, 3, 2, 16), {"groups": 4, "stride": 2}, 7),
        (14, (3, 3, 8, 16), {"dilation": 2}, 14),
    ],
)
def test_convolutions_and_their_gradients(size: int, kernel: Any, options: Any, out: int):
    fn, (h, w, per_group, features) = conv(**options), kernel
    x, weights = shape(2, size, size, 8), shape(*kernel)
    macs = 2 * out * out * features * per_group * h * w
    assert count(fn, x, weights) == 2 * macs

    def pull(x: jax.Array, weights: jax.Array, cotangent: jax.Array) -> Any:
        return jax.vjp(fn, x, weights)[1](cotangent)

    y = jax.eval_shape(fn, x, weights)
    assert count(pull, x, weights, y) == 2 * 2 * macs
    assert count(lambda *args: pull(*args)[1], x, weights, y) == 2 * macs


@pytest.mark.parametrize("kernel", [(3, 3, 1, 8), (5, 5, 1, 8)])
def test_a_depthwise_convolution_on_a_cpu_counts_as_the_convolution_it_is(kernel: Any):
    def fn(x: jax.Array, weights: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return convolve(x, weights, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=8)

    def pull(x: jax.Array, weights: jax.Array, cotangent: jax.Array) -> Any:
        return jax.vjp(jax.jit(fn), x, weights)[1](cotangent)

    x, weights = shape(2, 7, 9, 8), shape(*kernel)
    macs = 2 * 7 * 9 * 8 * kernel[0] * kernel[1]
    assert "conv_general_dilated" not in str(jax.make_jaxpr(fn)(x, weights))
    assert count(fn, x, weights) == 2 * macs
    assert count(pull, x, weights, x) == 2 * 2 * macs
    assert count(lambda *args: pull(*args)[0], x, weights, x) == 2 * macs
    assert count(lambda *args: pull(*args)[1], x, weights, x) == 2 * macs
    general = count(conv(groups=8), x, weights)
    assert count(fn, x, weights) == general


@jax.custom_vjp
def custom(x: jax.Array) -> jax.Array:
    return x @ x


custom.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))


def test_products_and_control_flow():
    a, b = shape(4, 5, 6), shape(4, 6, 7)
    assert count(jnp.matmul, a, b) == 2 * 4 * 5 * 6 * 7
    square, flag = shape(8, 8), shape(dtype=jnp.bool_)
    one = 2 * 8**3

    def twice(x: jax.Array) -> jax.Array:
        return x @ x @ x

    assert count(lambda f, x: jax.lax.cond(f, twice, jnp.sin, x), flag, square) == 2 * one
    assert count(lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y @ y, x), square) == 5 * one
    assert count(lambda n, x: jax.lax.fori_loop(0, n, lambda i, y: y @ y, x), 3, square) == one
    assert count(jax.jit(lambda x: (x @ x, twice(x))[0]), square) == one
    assert count(lambda x: jax.jit(lambda y: (y @ y, twice(y)))(x)[0], square) == one
    assert count(jax.vmap(twice), shape(3, 8, 8)) == 3 * 2 * one

    assert count(custom, square) == one
    assert count(jax.grad(lambda x: custom(x).sum()), square) == 2 * one
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")
    )
    assert count(split, shape(64, 8), square) == 2 * 64 * 8 * 8


def step(model: Any, **changes: Any) -> Step:
    optimizer = Optimizer(adamw(), 1e-3)
    train_length = TrainLength(num_examples=16, batch_size=8, total_steps=4)
    return dataclasses.replace(Step(Classify(model), optimizer, train_length), **changes)


def update_flops(a_step: Step, size: int = 16) -> int:
    batch: dict[str, Any] = {
        "image": shape(8, size, size, 3),
        "label": shape(8, dtype=jnp.int32),
        "_mask": shape(8, dtype=jnp.bool_),
    }
    return a_step.flops(jax.eval_shape(a_step.init, batch), batch)


def test_an_update_costs_three_forward_passes_less_the_gradient_of_the_image():
    sizes: dict[str, Any] = {"width": 16, "depth": 3, "heads": 2, "patch": 4, "num_classes": 3}
    model = ViT(**sizes)
    forward = forward_flops(model, 8, 16)
    stem = 2 * 8 * 16 * 4 * 4 * 3 * 16
    expected = 3 * forward - stem
    assert update_flops(step(model)) == expected
    assert update_flops(step(model, accumulate=2)) == expected
    assert update_flops(step(ViT(remat="full", scan=True, **sizes))) == expected
    assert update_flops(step(ViT(remat="dots", scan=False, **sizes))) == expected
    frozen = Optimizer(
        adamw(), 1e-3, rules=(ParameterRule("head"), ParameterRule(".*", learning_rate=0.0))
    )
    head = 2 * 8 * 16 * 3
    assert update_flops(step(model, optimizer=frozen)) == forward + head

    resnet = ResNet(depth=10, num_classes=3, width_multiplier=0.25)
    stem = 2 * 8 * 16**2 * 7 * 7 * 3 * 16
    # A single CPU device has forms of convolution of its own, which multiply more.
    with jax.set_mesh(Mesh().build()):
        assert update_flops(step(resnet), 32) == 3 * forward_flops(resnet, 8, 32) - stem


def test_fused_attention_counts_as_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    trace_without_gpu(monkeypatch)
    sizes: dict[str, Any] = {
        "width": 16,
        "depth": 2,
        "heads": 2,
        "patch": 4,
        "pool": "mean",
        "num_classes": 3,
    }
    fused, plain = (
        ViT(precision=Precision(compute="bfloat16"), attention=kind, **sizes)
        for kind in ("cudnn", "xla")
    )
    assert forward_flops(fused, 8, 16) == forward_flops(plain, 8, 16)
    assert update_flops(step(fused)) == update_flops(step(plain))


def test_a_tpus_attention_counts_as_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    """And its sums by products are sums."""
    for module in (attention, layers):
        monkeypatch.setattr(module, "platform", lambda: "tpu")
    sizes: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "num_classes": 3}
    kernel, plain = ViT(pool="mean", **sizes), ViT(pool="mean", attention="xla", **sizes)
    x = shape(8, 16, 2, 8)

    def attended(x: jax.Array) -> jax.Array:
        return attention.attend(x, x, x, Precision(), None)

    names = [e.primitive.name for e in jax_internals.equations(jax.make_jaxpr(attended)(x).jaxpr)]
    assert "pallas_call" in names
    assert forward_flops(kernel, 8, 16) == forward_flops(plain, 8, 16)
    there = update_flops(step(kernel))
    monkeypatch.undo()
    assert there == update_flops(step(plain))


def test_recomputation_shows_where_it_is_not_taken_out():
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.checkpoint(lambda x: jnp.tanh(jnp.tanh(x @ w) @ w))(x).sum()

    one = 2 * 8**3
    args = shape(8, 8), shape(8, 8)
    assert count(jax.value_and_grad(loss), *args) == 7 * one
    assert count(jax.value_and_grad(without_recomputation(loss)), *args) == 5 * one
    real = jnp.eye(8) * 0.3, jnp.ones((8, 8))
    kept = jax.grad(without_recomputation(loss))(*real)
    assert jnp.allclose(kept, jax.grad(loss)(*real))

    def solved(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.linalg.solve(w, x).sum()

    kept = jax.grad(without_recomputation(solved))(*real)
    assert jnp.allclose(kept, jax.grad(solved)(*real))


def test_peaks_are_found_by_the_whole_name_of_a_device():
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32", "highest") == 19.5e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("NVIDIA H200", "float16") == 989.4e12
    assert peak_flops("Tesla T4", "float32") == 8.1e12
    assert peak_flops("Tesla T4", "bfloat16") is None
    assert peak_flops("TPU v4", "bfloat16") == 275e12
    assert peak_flops("TPU v5 lite", "float32") == 197e12
    assert peak_flops("TPU v5 lite", "float32", "highest") is None
    for other in ("cpu", "NVIDIA L40", "NVIDIA A10G", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"):
        assert peak_flops(other, "bfloat16") is None
    with pytest.raises(ValueError, match="dtype='int8', but it is one of 'bfloat16'"):
        peak_flops("NVIDIA H200", "int8")


@dataclasses.dataclass
class Chip:
    device_kind: str


def test_mfu_is_a_share_of_all_devices():
    chips = [Chip("TPU v4")] * 4
    assert mfu(int(275e12), 0.5, chips, "bfloat16") == pytest.approx(0.5)
    assert mfu(int(275e12), 0.5, [*chips, Chip("cpu")], "bfloat16") is None
    assert mfu(1, 1.0, jax.devices(), "float32") is None
