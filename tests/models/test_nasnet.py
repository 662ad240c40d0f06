"""NASNet: genotypes as text, the published size, and a drop path that follows its schedule."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tower_cases import abstract_variables, quick_jit, random_variables
from vision.models.nasnet import NASNET_A, Cell, CellLayer, Genotype, NasNet
from vision.train.precision import Precision
from vision.train.tower import count_params, forward

SMALL = Genotype(
    Cell(("max3(0)+identity(1)", "avg3(2)+sep3(1)")), Cell(("identity(0)+avg3(1)",), (1, 2))
)
TOWER = NasNet(
    SMALL, depth=1, stages=2, filters=4, drop_path=0.4, drop_path_calls=10, num_classes=3
)


def test_genotype_json_round_trip_and_errors():
    for genotype in (NASNET_A, SMALL):
        assert Genotype.from_json(genotype.to_json()) == genotype
    plain = json.loads(SMALL.to_json())
    plain["normal"]["steps"][0] = "sep9(0)+identity(1)"
    with pytest.raises(ValueError, match="sep9"):
        Genotype.from_json(json.dumps(plain))
    with pytest.raises(ValueError, match="not a genotype"):
        Genotype.from_json("{}")
    with pytest.raises(ValueError, match="later"):
        Cell(("sep3(0)+sep3(2)",))
    with pytest.raises(ValueError, match="concat"):
        Cell(("sep3(0)+sep3(1)",), (3,))


def test_unread_states_are_concatenated():
    assert SMALL.normal.result() == (3,)
    assert SMALL.reduction.result() == (1, 2)
    assert NASNET_A.normal.result() == (1, 2, 3, 4, 5, 6)


@pytest.mark.slow
def test_nasnet_a_has_the_size_of_the_paper():
    """3.3 million: a network with two cells per stage, and four more of those that repeat."""
    network = NasNet(depth=2, num_classes=10)
    total = count_params(abstract_variables(network, (1, 32, 32, 3))[0])
    given = jnp.zeros((1, 4, 4, 6 * 32))
    cell = CellLayer(NASNET_A.normal, 32, 1, Precision())
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), given, given, False, None, 0.0))
    for leaf in jax.tree.leaves(shapes["params"]):
        square = leaf.ndim == 4 and leaf.shape[2] > 1  # of both channels, which double per stage
        total += 4 * math.prod(leaf.shape) * sum((4 if square else 2) ** i for i in range(3))
    assert round(total / 1e6, 1) == 3.3


@pytest.mark.slow
def test_scheduled_drop_path_counts_calls():
    variables = random_variables(TOWER, (6, 8, 8, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), jnp.float32)

    @quick_jit
    def call(params, state, keys):
        def one(key):
            _, out, after = forward(TOWER, params, state, x, train=True, key=key)
            return out, after["schedule"]["calls"]

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(0), 2)

    def at(calls):
        schedule = {"schedule": {"calls": jnp.asarray(calls, jnp.float32)}}
        return call(variables[0], {**variables[1], **schedule}, keys)

    early, after = at(0)
    np.testing.assert_array_equal(early["logits"][0], early["logits"][1])
    np.testing.assert_array_equal(after, [1, 1])
    late, _ = at(10)
    assert np.abs(late["logits"][0] - late["logits"][1]).max() > 0.01
    assert {k: v.shape[1:] for k, v in late.items() if k.startswith("block")} == {
        "block00": (6, 8, 8, 4),
        "block01": (6, 4, 4, 16),
        "block02": (6, 4, 4, 8),
    }
    assert all(math.isfinite(float(v.sum())) for v in late.values())
