"""The checksum: one number for all layouts, and no change of an element unseen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.checkpoint import checksum as checksums
from vision.checkpoint.checksum import as_text, checksum
from vision.parallel.mesh import Mesh

DTYPES = (
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    ml_dtypes.int4,
    np.bool_,
    np.int8,
    np.uint8,
    np.int16,
    np.int32,
    np.uint32,
    np.complex64,
)


def random(shape: tuple[int, ...], dtype, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 7, (*shape, 2))
    if dtype is np.complex64:
        return (values[..., 0] - 1j * values[..., 1]).astype(dtype)
    return values[..., 0].astype(dtype)


@pytest.fixture
def on_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small an array is."""
    monkeypatch.setattr(checksums, "_DEVICE_ELEMENTS", 0)


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_device_and_host_agree_on_every_dtype(dtype: type):
    for shape in ((0, 3), (3, 4)):
        x = random(shape, dtype)
        assert as_text(checksum(jnp.asarray(x))) == as_text(checksum(x))
    assert as_text(checksum(x)) != as_text(checksum(random((3, 4), dtype, seed=1)))


@pytest.mark.usefixtures("on_devices")
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)], ids=str)
def test_device_and_host_agree_on_every_number_of_axes(shape: tuple[int, ...]):
    x = random(shape, np.float32)
    assert as_text(checksum(jnp.asarray(x))) == as_text(checksum(x))


def test_a_small_array_needs_no_program_and_a_large_one_waits_for_nothing():
    size = checksums._DEVICE_ELEMENTS
    small, large = np.zeros(size - 1, np.uint8), np.zeros(size, np.uint8)
    for x, kind in ((small, np.ndarray), (large, jax.Array)):
        (part,) = checksum(jnp.asarray(x))
        assert isinstance(part, kind)
        assert as_text([part]) == as_text(checksum(x))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.int4, np.complex64])
def test_the_host_sums_parts_of_any_dtype(dtype: type):
    x = random((16, 3, 4), dtype)
    split = jax.device_put(x, NamedSharding(Mesh(data=2, fsdp=4).build(), P("fsdp", None, "data")))
    assert as_text(checksum(split)) == as_text(checksum(x))


@pytest.mark.usefixtures("on_devices")
def test_eight_byte_elements_agree():
    with jax.enable_x64(True):
        for dtype in (np.float64, np.int64):
            x = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
            assert as_text(checksum(jnp.asarray(x))) == as_text(checksum(x))


def test_the_host_s_chunks_do_not_show():
    x = np.random.default_rng(0).normal(size=(7, 5001)).astype(np.float32)
    assert as_text(checksum(x)) == as_text(checksum(jnp.asarray(x)))
    assert as_text(checksum(x)) == as_text(checksum(x.T.copy().T))  # order in memory


@pytest.mark.usefixtures("on_devices")
def test_every_layout_gives_the_same_number_without_gathering_the_array():
    x = np.random.default_rng(0).normal(size=(16, 8, 24)).astype(np.float32)
    expected = as_text(checksum(x))
    for shape, spec in (
        ({"data": 8}, P()),
        ({"data": 1, "fsdp": 8}, P("fsdp")),
        ({"data": 2, "fsdp": 4}, P(None, "fsdp", "data")),
        ({"data": 2, "fsdp": 2, "tensor": 2}, P(("data", "tensor"), None, "fsdp")),
    ):
        sharded = jax.device_put(x, NamedSharding(Mesh(**shape).build(), spec))
        parts = checksum(sharded)
        assert as_text(parts) == expected
        pieces = {str(shard.index) for shard in sharded.addressable_shards}
        # Copies are summed once, and every part where it lies.
        assert len(parts) == len(pieces)
        assert len({str(part.device) for part in parts}) == len(pieces)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.uint8])
def test_every_flip_of_one_bit_changes_the_number(dtype: type):
    x = random((4, 3), dtype)
    seen = {as_text(checksum(x))}
    raw = bytearray(x.tobytes())
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        seen.add(as_text(checksum(np.frombuffer(bytes(raw), dtype).reshape(x.shape))))
        raw[bit // 8] ^= 1 << bit % 8
    assert len(seen) == 1 + 8 * len(raw)


def test_swapped_shifted_and_repeated_elements_change_the_number():
    x = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    seen = {as_text(checksum(x))}
    for k in range(1, 200):
        swapped = x.copy()
        swapped[[0, k]] = swapped[[k, 0]]
        seen |= {as_text(checksum(swapped)), as_text(checksum(np.roll(x, k)))}
    zeros = [as_text(checksum(np.zeros(k, np.float32))) for k in range(200)]
    assert len(seen) == 399
    assert len(set(zeros)) == 200


def test_the_two_sums_are_spread_and_independent():
    """Of 4,000 related arrays, either sum alone falls into all of 64 bins, evenly."""
    arrays = [np.asarray([k, 0, 0], np.uint32) for k in range(4000)]
    sums = np.stack([np.asarray(checksum(x)[0]) for x in arrays])
    for column in sums.T:
        counts = np.bincount(column >> 26, minlength=64)
        assert ((counts - 62.5) ** 2 / 62.5).sum() < 120  # chi-squared, 63 degrees: p < 1e-5
    assert abs(np.corrcoef(sums.T.astype(float))[0, 1]) < 0.08
