"""Evolution by its definition, encodings and ascent by their identities, and the evaluator."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.fooling.ascent import Ascent
from papers.fooling.encodings import Patterns, Pixels, polynomial
from papers.fooling.evaluator import Fooling
from papers.fooling.method import MapElites, begun, evolved, nearest, produced
from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError
from vision.train.objective import Variables

SHAPE, CLASSES = (3, 4, 1), 5
WEIGHTS = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
BY_HAND = (np.sin, lambda v: 1 / (1 + np.exp(-v)), lambda v: np.exp(-v * v), lambda v: v)
SEARCH = MapElites(Pixels(rate=0.5), generations=6, children=8)


def logits(images: Any) -> Any:
    return (images.reshape(len(images), -1) - 0.5) @ WEIGHTS


def predict(variables: Variables, batch: Any) -> dict[str, Any]:
    return {"logits": logits(batch["image"])}


@functools.cache
def searched(search: MapElites, *parts: int) -> Any:
    """The state after all parts and the confidences after every generation."""

    @jax.jit
    def whole(key: jax.Array) -> Any:
        state, history = begun(search, key, CLASSES, SHAPE), []
        for part in parts:
            state, each = evolved(search, logits, state, SHAPE, part)
            history.append(each)
        images = search.encoding.render(state.genomes, SHAPE)
        return state, jnp.concatenate(history), images, jax.nn.softmax(logits(images))

    return jax.device_get(whole(jax.random.key(3)))


@pytest.mark.parametrize(
    "encoding",
    [SEARCH.encoding, pytest.param(Patterns(width=3, depth=1), marks=pytest.mark.slow)],
)
def test_elites_never_fall_and_are_what_the_network_says(encoding: Any):
    search = MapElites(encoding, generations=6, children=8)
    state, history, images, said = searched(search, 6)
    assert (np.diff(history, axis=0) >= 0).all()
    assert (history[-1] > history[0]).all()
    np.testing.assert_allclose(np.diagonal(said), state.confidence, atol=1e-6)
    assert images.min() >= 0
    assert images.max() <= 1
    assert state.generation == 6


def test_a_search_may_be_continued():
    whole, parts = searched(SEARCH, 6), searched(SEARCH, 2, 4)
    np.testing.assert_allclose(whole[2], parts[2], atol=1e-6)
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-6)


def test_a_generation_is_the_one_written_out():
    @jax.jit
    def born(key: jax.Array) -> Any:
        start = begun(SEARCH, key, CLASSES, SHAPE)
        draw, mutation = jax.random.split(jax.random.fold_in(key, 1))
        parents = jax.random.randint(draw, (8,), 0, CLASSES)
        children = SEARCH.encoding.mutate(mutation, start.genomes[parents], start.generation)
        after, _ = evolved(SEARCH, logits, start, SHAPE, 1)
        return children, jax.nn.softmax(logits(children)), after

    children, sure, state = jax.device_get(born(jax.random.key(3)))
    # Nothing was there before: the best child of every class, one perhaps of several.
    np.testing.assert_allclose(state.genomes, children[sure.argmax(0)], atol=1e-6)
    np.testing.assert_allclose(state.confidence, sure.max(0), atol=1e-6)


def test_images_without_an_answer_take_no_place():
    def broken(images: jax.Array) -> jax.Array:
        return jnp.where(jnp.arange(8)[:, None] == 2, logits(images), jnp.nan)

    def nowhere(images: jax.Array) -> jax.Array:
        return logits(images) * jnp.nan

    @jax.jit
    def both(key: jax.Array) -> Any:
        start = begun(SEARCH, key, CLASSES, SHAPE)
        return start, *(evolved(SEARCH, of, start, SHAPE, 1)[0] for of in (broken, nowhere))

    start, one, none = jax.device_get(both(jax.random.key(0)))
    np.testing.assert_allclose(one.genomes, np.broadcast_to(one.genomes[:1], one.genomes.shape))
    np.testing.assert_allclose(none.genomes, start.genomes)
    assert (none.confidence == -1).all()


def test_mutation_of_pixels():
    u = np.asarray([0, 0.125, 0.5, 0.875, 1], np.float32)
    encoding = Pixels(rate=0.4, halved_every=10)

    @jax.jit
    def both(generation: jax.Array) -> Any:
        many = jnp.full((200, *SHAPE), 0.5)
        return polynomial(jnp.asarray(u), 1.0), encoding.mutate(jax.random.key(0), many, generation)

    steps, _ = both(9)
    np.testing.assert_allclose(steps, [-1, -0.5, 0, 0.5, 1], atol=1e-6)
    shares = [float(np.mean(np.asarray(both(at)[1]) != 0.5)) for at in (9, 10, 20)]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.1], atol=0.04)


def test_a_pattern_is_its_network_at_every_pixel():
    encoding = Patterns(width=6, depth=1)
    still = Patterns(width=6, depth=1, rate=0.0, swap=0.0)

    @jax.jit
    def whole(key: jax.Array) -> Any:
        genomes = encoding.draw(key, 2, (3, 5, 2))
        child = still.mutate(key, genomes, jnp.asarray(0))
        return genomes, child, encoding.render(genomes, (3, 5, 2))

    genomes, child, rendered = jax.device_get(whole(jax.random.key(1)))
    for (n, row, column), _ in np.ndenumerate(rendered[..., 0]):
        x, y = np.linspace(-1, 1, 5)[column], np.linspace(-1, 1, 3)[row]
        at = np.asarray([x, y, np.hypot(x, y), 1])
        for layer in genomes:
            at = at @ layer["kernel"][n] / np.sqrt(len(at))
            at = np.asarray([BY_HAND[k](v) for k, v in zip(layer["kind"][n], at, strict=True)])
        np.testing.assert_allclose(rendered[n, row, column], 1 / (1 + np.exp(-at)), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, child, genomes)


def test_ascent_climbs_and_decay_keeps_it_near_grey():
    @jax.jit
    def both(key: jax.Array) -> Any:
        plain = produced(Ascent(steps=20), logits, key, CLASSES, SHAPE)
        # A decay that outweighs every gradient, with steps too short to leave grey.
        held = produced(Ascent(steps=20, step_size=0.01, decay=1e3), logits, key, CLASSES, SHAPE)
        return plain, jax.nn.softmax(logits(plain)), held

    plain, said, held = jax.device_get(both(jax.random.key(0)))
    # A linear network's surest image of a class: as far as the weights' directions lead.
    assert (said.argmax(1) == np.arange(CLASSES)).all()
    assert np.diagonal(said).min() > 0.7
    assert plain.min() >= 0
    assert plain.max() <= 1
    assert np.abs(held - 0.5).mean() < np.abs(plain - 0.5).mean() / 2


def test_nearest_is_the_least_of_all_distances():
    rng = np.random.default_rng(0)
    images, real = rng.random((4, *SHAPE)), rng.random((6, *SHAPE))
    expected = [min(np.sqrt(np.mean((x - y) ** 2)) for y in real) for x in images]
    np.testing.assert_allclose(nearest(images, real), expected)
    other = [np.sqrt(np.mean((real[0] - y) ** 2)) for y in real[1:]]
    assert nearest(real, real, itself=True)[0] == pytest.approx(min(other))


def test_the_evaluator_tells_producers_from_real_images():
    image = 2 * np.random.default_rng(1).random((30, 12)) - 1
    producers = {"pixels": SEARCH, "ascent": Ascent(steps=10)}
    asked = Fooling(data(image=image), producers, (0.5,), (0.5,), examples=20, shown=3)

    def scaled(variables: Variables, batch: Any) -> dict[str, Any]:
        return {"logits": logits(batch["image"] / 2 + 0.5)}

    got = run(asked, function=scaled)
    assert got["examples"] == 20
    assert got["ascent_fooled"] == 1
    assert got["ascent_median"] > got["real_median"]
    assert got["pixels_least"] <= got["pixels_median"] <= 1
    assert len(got["ascent"].items) == 3
    line = got["median_by_generation"].lines[0]
    assert line.x[-1] == 6
    assert line.y[-1] == pytest.approx(got["pixels_median"], abs=1e-6)


def test_other_pixels_other_outputs_and_empty_budgets_are_refused():
    good = data(image=np.full((4, 12), 0.5))
    with pytest.raises(DataError, match=r"pixels reach from 2 to 2 and not from 0 to 1"):
        run(Fooling(data(image=np.full((4, 12), 2.0)), {"a": Ascent(steps=1)}), function=predict)
    with pytest.raises(ValueError, match=r"attacks need 'scores'.* gives logits"):
        run(Fooling(good, {"a": Ascent(steps=1)}, logits="scores"), function=predict)
    with pytest.raises(ValueError, match="'real' is what the images of data are called"):
        Fooling(good, {"real": Ascent()})
    with pytest.raises(ValueError, match="generations is 0"):
        MapElites(Pixels(), generations=0)
    with pytest.raises(ValueError, match="children is 0"):
        MapElites(Pixels(), children=0)
    with pytest.raises(ValueError, match="steps is 0"):
        Ascent(steps=0)
