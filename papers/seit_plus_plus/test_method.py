"""SeiT++: ids that survive storage, vectors whose statistics move, places that are told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from papers.seit_plus_plus import tokenize_images
from papers.seit_plus_plus.codes import FromCodes, bits_of, pack_ids, read_codebook, unpack_ids
from papers.seit_plus_plus.color_adapt import ColorAdapt, color_adapt
from papers.seit_plus_plus.masked_decoder import MaskedDecoder
from papers.seit_plus_plus.masking import dropped_count, id_scores, masked_count
from papers.seit_plus_plus.method import MaskedTokens
from papers.seit_plus_plus.tokenize_images import Tokenised
from tests.tiny import drawn, untrained
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
from vision.run.restore import Run, load_run
from vision.scenario import stages
from vision.scenario.features import features_of
from vision.scenario.stages import Scenario, Stage
from vision.train.objective import Context
from vision.train.optim import Optimizer, ParameterRule, adamw

RNG = np.random.default_rng(0)
SHARES = (0.4, 0.45, 0.25)  # dropped, and mean and deviation of the masked: the defaults
BOOK = RNG.normal(size=(11, 4)).astype(np.float32)
DATA = EvalData(Digits("test"), 120, ops=(ops.ValueRange(low=-1, high=1),), threads=0)


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
    x = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    adapt = jax.jit(color_adapt)
    np.testing.assert_array_equal(adapt(x, x), x)
    other = 3 * x[::-1] + 1
    recoloured = np.asarray(adapt(x, other))
    np.testing.assert_allclose(recoloured.mean((1, 2)), other.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(recoloured.std((1, 2)), other.std((1, 2)), rtol=1e-4)
    batch, key = {"image": x, "_mask": np.array([True, True, False])}, jax.random.key(0)

    def adapted(probability: float) -> np.ndarray:
        return np.asarray(jax.jit(ColorAdapt(probability).__call__)(batch, key)["image"])

    every = adapted(1.0)
    np.testing.assert_allclose(every[1], np.asarray(adapt(x, np.roll(x, 1, 0)))[1], atol=1e-5)
    for row in (0, 2):  # what stands before the first is masked, and so is the last
        np.testing.assert_array_equal(every[row], x[row])
    np.testing.assert_array_equal(adapted(0.0), x)


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
    batch = {"ids": ids, "image": BOOK[ids], "_mask": np.array([True, True, True, False])}
    learn = objective(str(path))
    return learn, drawn(learn.init, batch), batch


def context(key: jax.Array) -> Context:
    return Context(jnp.int32(0), 1, train=True, key=key)


def test_what_is_masked_is_not_seen_and_the_loss_is_of_masked_places(mtm: Any):
    learn, variables, batch = mtm

    @jax.jit
    def of(variables: Any, batch: Any) -> Any:
        ctx = context(jax.random.key(3))
        order = jnp.argsort(jax.random.uniform(ctx.rng("order"), (4, 9)))
        masked = jnp.argsort(order) < masked_count(ctx.rng("share"), 9, *SHARES)
        logits = learn.id_logits(variables, batch["image"], order, masked, ctx)[0]
        return jax.nn.log_softmax(logits), masked, learn.loss(variables, batch, ctx)

    def both(batch: Any) -> Any:
        return jax.device_get(of(variables, batch))

    logits, masked, (value, aux) = both(batch)
    assert logits.shape == (4, 9, 4, 11)
    hidden = np.repeat(np.repeat(masked.reshape(4, 3, 3), 2, 1), 2, 2)[..., None]
    noise = RNG.normal(size=batch["image"].shape).astype(np.float32)
    other = both({**batch, "image": batch["image"] + noise * hidden})
    np.testing.assert_allclose(other[0], logits, atol=1e-5)
    other = both({**batch, "image": batch["image"] + noise * ~hidden})
    assert np.abs(other[0] - logits).max() > 1e-2

    fold = jax.jit(folded, static_argnums=1)
    truth = np.asarray(fold(batch["ids"][..., None], 2)).reshape(4, 9, 4, 1)
    nll = -np.take_along_axis(logits, truth, -1)
    picked = nll[..., 0].mean(-1)[masked & batch["_mask"][:, None]]
    np.testing.assert_allclose(value, picked.mean(), rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["masked_share"], masked.mean(), rtol=1e-6)


def test_scores_are_those_of_gelu_norm_and_codebook():
    values = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    scale, shift, bias = (RNG.normal(size=n).astype(np.float32) for n in (4, 4, 11))
    found = id_scores(
        jnp.asarray(values),
        jnp.asarray(BOOK),
        {"norm_scale": scale, "norm_bias": shift, "bias": bias},
    )
    x = values * ndtr(values)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, (x * scale + shift) @ BOOK.T + bias, rtol=1e-4, atol=1e-5)


def test_the_decoder_hides_what_is_masked_and_was_kept():
    decoder = MaskedDecoder(outputs=3, size=4, width=8, depth=1, heads=2)
    x = RNG.normal(size=(1, 4, 8)).astype(np.float32)  # a prefix and three kept positions
    places = np.asarray([[0, 2, 3]])
    masked = np.asarray([[False, True, True, False]])  # position 1 was dropped, 2 was kept

    @jax.jit
    def both(key: jax.Array) -> Any:
        variables = decoder.init(key, x, places, masked)
        of_two, of_three = x.copy(), x.copy()
        of_two[0, 2] += 3.0
        of_three[0, 3] += 3.0
        return tuple(
            decoder.apply(variables, each, places, masked)[1]["values"]  # pyright: ignore[reportIndexIssue]
            for each in (x, of_two, of_three)
        )

    plain, of_two, of_three = jax.device_get(both(jax.random.key(0)))
    np.testing.assert_allclose(of_two, plain, atol=1e-6)
    assert np.abs(of_three - plain).max() > 1e-3


def test_four_tenths_of_the_places_at_least_are_masked():
    @jax.jit
    def of(key: jax.Array) -> jax.Array:
        return jax.vmap(lambda key: masked_count(key, 100, *SHARES))(jax.random.split(key, 500))

    counts = np.asarray(of(jax.random.key(0)))
    assert counts.min() >= 40
    assert counts.max() <= 100
    # Of a normal of mean 45 and deviation 25, cut off to 40..100.
    assert 58 < counts.mean() < 64
    assert [dropped_count(n, 0.4) for n in (100, 196, 9)] == [40, 79, 4]  # rounded up


def tokenised(tmp_path: Path) -> tuple[Path, dict[str, float]]:
    """A workdir of a trained tokenizer and of its tokens, and the metrics of both."""
    workdir = tmp_path / "w"
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
    return workdir, dict(stages.train(config, workdir, progress_s=math.inf).metrics)


def test_tokens_are_encoded_stored_and_loaded_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tower = VqAutoencoder(patch=2, width=8, codes=12, code_dim=4)
    run = untrained(Quantise(tower), {"image": np.zeros((1, 8, 8, 1), np.float32)})
    monkeypatch.setattr(tokenize_images, "load_run", lambda folder: run)
    metrics = Tokenised("tokenizer", DATA).run(tmp_path)
    assert_stored(run, tmp_path, metrics)


@pytest.mark.slow
def test_a_trained_tokenizer_gives_the_image_back(tmp_path: Path):
    workdir, metrics = tokenised(tmp_path)
    token_metrics = {name.removeprefix("tokens/"): value for name, value in metrics.items()}
    assert_stored(load_run(workdir / "tokenizer"), workdir / "tokens", token_metrics)
    images = [batch["image"] for batch in DATA.loader(process_index=0, process_count=1)]
    assert metrics["tokens/error"] < 0.9 * np.var(np.stack(images))


def assert_stored(run: Run, folder: Path, metrics: Mapping[str, float]) -> None:
    data = DATA
    asked = ("ids", "codes", "latent", "reconstruction")
    rows = features_of(run, data, asked, ("label",))
    op = FromCodes(str(folder / "codebook.npy"), 4, 4)
    source = Npz(str(folder / "tokens.npz"))
    assert len(source) == len(rows["ids"])
    read = [op(source[i], RNG) for i in range(len(source))]
    np.testing.assert_array_equal([each["ids"] for each in read], rows["ids"])
    np.testing.assert_array_equal([each["label"] for each in read], rows["label"])
    image = np.stack([each["image"] for each in read])
    np.testing.assert_allclose(image, rows["codes"], atol=1e-6)
    # 16 ids of 4 bits and a label of a byte, where pixels are 64 bytes.
    size = (folder / "tokens.npz").stat().st_size
    assert metrics["bytes"] == size / len(source)
    np.testing.assert_allclose(metrics["share"], size / len(source) / 64)
    assert 9 * len(source) < size < 9 * len(source) + 1000
    assert 1 < metrics["entries"] <= 12
    # The nearest entry, and what decoding ids alone gives.
    book = read_codebook(op.codebook)
    distances = np.linalg.norm(rows["latent"][..., None, :] - book, axis=-1)
    np.testing.assert_array_equal(distances.argmin(-1), rows["ids"])
    expected = rows["reconstruction"]
    decode: Any = run.experiment.model
    params = {"params": run.variables.params["model"]}
    ids = jnp.asarray(rows["ids"], jnp.int32)
    alone = jax.jit(lambda ids: decode.apply(params, ids, channels=1)[1]["reconstruction"])(ids)
    np.testing.assert_allclose(alone, expected, atol=1e-4)
