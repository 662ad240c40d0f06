"""Relevance of the inputs of the test networks whose results by captum are stored."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tests import captum_cases
from vision.blocks.relevance import Lrp, relevance

RULES = {
    "epsilon": Lrp(),
    "epsilon_0.25": Lrp(epsilon=0.25),
    "z_plus": Lrp("alpha_beta", "alpha_beta"),
}


@jax.jit
def computed() -> dict[str, jax.Array]:
    """Logits and relevance of both networks, by their names in captum's results."""
    p, results = captum_cases.golden(), {}
    nets: dict[str, Callable[..., jax.Array]] = {"cnn": captum_cases.cnn, "mlp": captum_cases.mlp}
    for name, net in nets.items():
        x = jnp.asarray(captum_cases.last(p[f"{name}/x"]))
        logits = results[f"{name}/logits"] = net(p, x)
        start = jax.nn.one_hot(p[f"{name}/target"], logits.shape[1])
        for rule, lrp in RULES.items():
            forward = lambda x, net=net: net(p, x)  # noqa: E731
            results[f"{name}/lrp/{rule}"] = relevance(forward, x, start, lrp)
    return results


def errors() -> dict[str, float]:
    return captum_cases.errors(computed())
