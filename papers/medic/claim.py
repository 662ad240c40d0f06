"""Four questions about a digit: one network for all, or one for each with a quarter of the units.

Whether it is even, whether it is five or more, how many closed loops it has and whether it is prime
follow from the digit; three in ten labels of every task are missing. Networks have one hidden layer
of 32 units for all tasks, or of 8 for each, and 400 steps of Adam on 300 training digits. What
counts is the mean accuracy over the tasks on test digits. The authors find one network as good as
four within a point, at a quarter of the cost; at the same cost it should be better.

The control shares its units with nothing: for each task a network of 32 units whose other three
tasks have labels of other pictures. Chance is the most frequent answer.

Held: 94.7 beside 92.8 %; without anything to share 92.1 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.data.sources.digits import Digits
from vision.objectives.multitask import MultiTask
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side
from vision.train.objective import Context, Variables

MARGIN = Margin(0.0, rule="within a point of four networks at a quarter of the cost: no margin")

TASKS: dict[str, tuple[int, ...]] = {  # the answer for every digit
    "even": (1, 0, 1, 0, 1, 0, 1, 0, 1, 0),
    "large": (0, 0, 0, 0, 0, 1, 1, 1, 1, 1),
    "loops": (1, 0, 0, 0, 1, 0, 1, 0, 2, 1),
    "prime": (0, 0, 1, 1, 0, 1, 0, 1, 0, 0),
}
COUNT, MISSING, STEPS, RATE, DECAY, UNITS = 300, 0.3, 400, 0.01, 1e-3, 32
Weights = dict[str, jax.Array]


def logits_of(w: Weights, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["in"]) @ w["out"]


def answers(
    x: np.ndarray, labels: Mapping[str, np.ndarray], new: np.ndarray, units: int, seed: int
) -> dict[str, np.ndarray]:
    """Predictions of tasks by one network that learned their labels, -1 for none."""
    sizes = {task: max(TASKS[task]) + 1 for task in labels}
    no_model: Any = None
    learns = MultiTask(no_model, sizes)
    batch = {name: jnp.asarray(y) for name, y in labels.items()}
    batch["_mask"] = jnp.ones(len(x), bool)

    def loss(w: Weights) -> jax.Array:
        nothing = Variables({}, {}, {})
        found, _ = learns.loss_from_embeddings(
            nothing, logits_of(w, jnp.asarray(x)), batch, Context.evaluation()
        )
        return found + DECAY * sum(jnp.sum(each**2) for each in w.values())

    optimizer = optax.adam(RATE)

    @jax.jit
    def fitted(w: Weights) -> Any:
        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w), state)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), None, length=STEPS)[0][0]

    rng = np.random.default_rng(seed)
    start = {
        "in": rng.normal(0, x.shape[1] ** -0.5, (x.shape[1], units)).astype(np.float32),
        "out": rng.normal(0, units**-0.5, (units, sum(sizes.values()))).astype(np.float32),
    }
    said = learns.split(logits_of(fitted(start), jnp.asarray(new)))
    return {task: np.asarray(each.argmax(-1)) for task, each in said.items()}


def measure_seed(seed: int) -> dict[str, float]:
    """Mean accuracies over the tasks."""
    rng = np.random.default_rng(seed)
    parts = [Digits(split).__getitems__(range(len(Digits(split)))) for split in ("train", "test")]
    chosen = rng.permutation(len(parts[0]["label"]))[:COUNT]
    images = [part["image"].reshape(-1, 64).astype(np.float32) / 255 for part in parts]
    x, new = (np.concatenate([image, np.ones((len(image), 1), np.float32)], 1) for image in images)
    x, digits, asked = x[chosen], parts[0]["label"][chosen], parts[1]["label"]
    labels = {
        task: np.where(rng.random(COUNT) < MISSING, -1, np.asarray(of)[digits])
        for task, of in TASKS.items()
    }
    right = {task: np.asarray(of)[asked] for task, of in TASKS.items()}
    together = answers(x, labels, new, UNITS, seed)
    alone, unshared = {}, {}
    for task in TASKS:
        alone |= answers(x, {task: labels[task]}, new, UNITS // len(TASKS), seed)
        others = {name: y if name == task else rng.permutation(y) for name, y in labels.items()}
        unshared[task] = answers(x, others, new, UNITS, seed)[task]

    def mean(said: Mapping[str, np.ndarray]) -> float:
        return float(np.mean([np.mean(said[task] == right[task]) for task in TASKS]))

    frequent = {task: np.full(len(asked), np.bincount(right[task]).argmax()) for task in TASKS}
    return {
        "together": mean(together),
        "alone": mean(alone),
        "unshared": mean(unshared),
        "frequent": mean(frequent),
    }


def test_one_network_for_four_questions(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = "accuracy, mean of four tasks"
    alone = side("four networks of 8 units", "alone")
    record(
        claim="One network of all tasks is better than a network for each with a quarter of the "
        "units.",
        expected="held",
        compared=Measured(what, side("one network of 32 units", "together"), alone),
        margin=MARGIN,
        scale=Scale(chance=rows[0]["frequent"]),
        control=Measured(what, side("32 units, other tasks permuted", "unshared"), alone),
    )
