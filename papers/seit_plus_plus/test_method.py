"""SeiT++: ids that survive storage, vectors whose statistics move, places that are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.seit_plus_plus.codes import FromCodes, bits_of, pack_ids, read_codebook, unpack_ids
from papers.seit_plus_plus.color_adapt import ColorAdapt, color_adapt
from papers.seit_plus_plus.masked_decoder import MaskedDecoder
from papers.seit_plus_plus.method import MaskedTokens
from papers.seit_plus_plus.tokenize_images import Tokenised
from vision.config.specs import spec
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.source import DataError
from vision.data.sources.digits import Digits
from vision.data.sources.npz import Npz
from vision.models.unet import folded
from vision.models.vit import ViT
from vision.models.vq import VqAutoencoder
from vision.objectives.quantise import Quantise
from vision.run.experiment import Experiment
from vision.run.restore import load_run
from vision.scenario import stages
from vision.scenario.features import features_of
from vision.scenario.stages import Scenario, Stage
from vision.train.objective import Context
from vision.train.optim import Optimizer, ParameterRule, adamw

RNG = np.random.default_rng(0)
BOOK = RNG.normal(size=(11, 4)).astype(np.float32)


@pytest.mark.parametrize("codes", [2, 16, 64, 391, 65_000])
def test_ids_survive_packing_bit_for_bit(codes: int):
    bits = bits_of(codes)
    assert 2 ** (bits - 1) < codes <= 2**bits
    ids = RNG.integers(0, codes, (5, 13))
    ids[0, :2] = 0, codes - 1
    packed = pack_ids(ids, bits)
    assert packed.shape == (5, -(-13 * bits // 8))
    np.testing.assert_array_equal(unpack_ids(packed, bits, 13), ids)
    np.testing.assert_array_equal(unpack_ids(packed[2], bits, 13), ids[2])


def test_what_cannot_be_stored_or_read_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="2 bits hold"):
        pack_ids(np.array([[4]]), 2)
    with pytest.raises(ValueError, match="3 ids of 4 bits are 2 bytes"):
        unpack_ids(np.zeros(3, np.uint8), 4, 3)
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"a codebook is float \(K, d\)"):
        read_codebook(str(tmp_path / "flat.npy"))
    with pytest.raises(DataError, match=r"absent\.npy"):
        read_codebook(str(tmp_path / "absent.npy"))
    np.save(tmp_path / "small.npy", BOOK[:9])
    op = FromCodes(str(tmp_path / "small.npy"), 1, 2)
    example = {"ids": pack_ids(np.array([[3, 10]]), 4)[0]}
    with pytest.raises(DataError, match=r"ids has 10, but .* 9 entries"):
        op(example, RNG)


def test_colours_of_its_own_leave_every_bit_and_another_ones_are_taken_over():
    x = jnp.asarray(RNG.normal(size=(3, 4, 4, 2)), jnp.float32)
    np.testing.assert_array_equal(color_adapt(x, x), x)
    other = 3 * x[::-1] + 1
    found = color_adapt(x, other)
    np.testing.assert_allclose(found.mean((1, 2)), other.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(found.std((1, 2)), other.std((1, 2)), rtol=1e-4)
    mask = jnp.array([True, True, False])
    batch, key = {"image": x, "_mask": mask}, jax.random.key(0)
    every = ColorAdapt(1.0)(batch, key)["image"]
    np.testing.assert_allclose(every[1], color_adapt(x[1:2], x[:1])[0], atol=1e-5)
    for row in (0, 2):  # what stands before the first is masked, and so is the last
        np.testing.assert_array_equal(every[row], x[row])
    np.testing.assert_array_equal(ColorAdapt(0.0)(batch, key)["image"], x)


def objective(codebook: str) -> MaskedTokens:
    return MaskedTokens(
        ViT(width=8, depth=1, heads=2, patch=2, num_classes=0),
        MaskedDecoder(outputs=16, size=9, width=8, depth=1, heads=2),
        codebook=codebook,
    )


@pytest.fixture(scope="module")
def mtm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Objective, random parameters and a batch of 6 x 6 ids, the last row masked out."""
    path = tmp_path_factory.mktemp("book") / "codebook.npy"
    np.save(path, BOOK)
    ids = RNG.integers(0, 11, (4, 6, 6))
    batch = {"ids": jnp.asarray(ids), "image": jnp.asarray(BOOK[ids])}
    batch["_mask"] = jnp.array([True, True, True, False])
    learn = objective(str(path))
    shapes = jax.eval_shape(learn.init, jax.random.key(0), batch)
    return (
        learn,
        jax.tree.map(lambda x: jnp.asarray(RNG.normal(0, 0.4, x.shape), x.dtype), shapes),
        batch,
    )


def context(key: jax.Array) -> Context:
    return Context(jnp.int32(0), 1, train=True, key=key)


def test_what_is_masked_is_not_seen_and_the_loss_is_of_masked_places(mtm: Any):
    learn, variables, batch = mtm
    ctx = context(jax.random.key(3))
    k_order, k_share = ctx.rng("order"), ctx.rng("share")
    order = jnp.argsort(jax.random.uniform(k_order, (4, 9)))
    masked = jnp.argsort(order) < learn.count(k_share, 9)

    @jax.jit
    def both(batch: Any) -> Any:
        logits = learn.id_logits(variables, batch["image"], order, masked, ctx)[0]
        return logits, learn.loss(variables, batch, ctx)

    logits, (value, aux) = both(batch)
    assert logits.shape == (4, 9, 4, 11)
    hidden = np.repeat(np.repeat(masked.reshape(4, 3, 3), 2, 1), 2, 2)[..., None]
    noise = jnp.asarray(RNG.normal(size=batch["image"].shape), jnp.float32)
    other = both({**batch, "image": batch["image"] + noise * hidden})
    np.testing.assert_allclose(other[0], logits, atol=1e-5)
    other = both({**batch, "image": batch["image"] + noise * ~hidden})
    assert np.abs(other[0] - logits).max() > 1e-2

    truth = np.asarray(folded(batch["ids"][..., None], 2)).reshape(4, 9, 4, 1)
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), truth, -1)
    picked = nll[..., 0].mean(-1)[np.asarray(masked & batch["_mask"][:, None])]
    np.testing.assert_allclose(value, picked.mean(), rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["masked_share"], masked.mean(), rtol=1e-6)


def test_four_tenths_of_the_places_at_least_are_masked():
    learn = objective("unread")
    counts = jax.vmap(lambda key: learn.count(key, 100))(jax.random.split(jax.random.key(0), 500))
    assert counts.min() >= 40
    assert counts.max() <= 100
    # Of a normal of mean 45 and deviation 25, cut off to 40..100.
    assert 58 < counts.mean() < 64
    assert learn.hidden(100) == 40


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], EvalData]:
    workdir = tmp_path_factory.mktemp("seit") / "w"
    read: Any = {
        "source": spec(Digits, split="test"),
        "batch_size": 120,
        "ops": [spec(ops.ValueRange, low=-1, high=1)],
        "threads": 0,
    }
    tokenizer = spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Digits),
            batch_size=32,
            batch_ops=[spec(BatchValueRange, low=-1, high=1)],
            threads=0,
        ),
        model=spec(VqAutoencoder, patch=2, width=8, codes=12, code_dim=4),
        objective=spec(Quantise),
        optimizer=spec(
            Optimizer,
            method=spec(adamw),
            learning_rate=1e-2,
            rules=[spec(ParameterRule, pattern=".*")],
        ),
        total="20 steps",
    )
    work = spec(Tokenised, run_of="stage:tokenizer", data=spec(EvalData, **read))
    config = spec(
        Scenario,
        stages=[
            spec(Stage, name="tokenizer", do=tokenizer),
            spec(Stage, name="tokens", do=work),
        ],
    )
    stages.check(config)
    metrics = dict(stages.train(config, workdir, progress_s=math.inf).metrics)
    data = EvalData(Digits("test"), 120, ops=(ops.ValueRange(low=-1, high=1),), threads=0)
    return workdir, metrics, data


def test_tokens_are_encoded_stored_and_loaded_bit_for_bit(stored: Any):
    workdir, metrics, data = stored
    run = load_run(workdir / "tokenizer")
    rows = features_of(run, data, ("ids", "codes", "latent"), ("label",))
    op = FromCodes(str(workdir / "tokens" / "codebook.npy"), 4, 4)
    source = Npz(str(workdir / "tokens" / "tokens.npz"))
    assert len(source) == len(rows["ids"])
    read = [op(source[i], RNG) for i in range(len(source))]
    np.testing.assert_array_equal([each["ids"] for each in read], rows["ids"])
    np.testing.assert_array_equal([each["label"] for each in read], rows["label"])
    image = np.stack([each["image"] for each in read])
    np.testing.assert_allclose(image, rows["codes"], atol=1e-6)
    # 16 ids of 4 bits and a label of a byte, where pixels are 64 bytes.
    size = (workdir / "tokens" / "tokens.npz").stat().st_size
    assert metrics["tokens/bytes"] == size / len(source)
    np.testing.assert_allclose(metrics["tokens/share"], size / len(source) / 64)
    assert 9 * len(source) < size < 9 * len(source) + 1000
    assert 1 < metrics["tokens/entries"] <= 12
    # The nearest entry, and what decoding ids alone gives.
    book = read_codebook(op.codebook)
    distances = np.linalg.norm(rows["latent"][..., None, :] - book, axis=-1)
    np.testing.assert_array_equal(distances.argmin(-1), rows["ids"])
    whole = features_of(run, data, ("reconstruction",))["reconstruction"]
    decode: Any = run.experiment.model
    params = {"params": run.variables.params["model"]}
    ids = jnp.asarray(rows["ids"], jnp.int32)
    alone = jax.jit(lambda ids: decode.apply(params, ids, channels=1)[1]["reconstruction"])(ids)
    np.testing.assert_allclose(alone, whole, atol=1e-4)
    assert metrics["tokens/error"] < 0.9 * np.var(np.stack([b["image"] for b in batches(data)]))


def batches(data: EvalData) -> list[dict[str, np.ndarray]]:
    return list(data.loader(process_index=0, process_count=1))
