"""ODIN: temperature scaling, and a small step of the image that raises the confidence."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vision.config.ranges import Finite, NonNegative, Positive, checked
from vision.evaluate.evaluator import Predict
from vision.train.objective import Batch, Variables

MOVED = "odin/logits"


@dataclasses.dataclass(frozen=True)
@checked
class Odin:
    """The largest probability at ``temperature``, after a step that raises it.

    ``x' = x + epsilon sign(grad_x log max_k p_k(x; T))`` and the score is ``max_k p_k(x'; T)``:
    images of the trained classes rise more than others. Source: Liang et al., "Enhancing The
    Reliability of Out-of-distribution Image Detection in Neural Networks", 2018. With ``epsilon``
    0 and ``temperature`` 1 it is the maximum softmax probability.

    Attributes:
      temperature: positive; the authors' is 1000.
      epsilon: of the step, in the units of ``batch["image"]`` as the model gets it: an image that
        was divided by a standard deviation moves by that much more; 0 or more. The authors chose
        it on held-out data, 0.0014 of images in 0..1 for CIFAR.
    """

    temperature: Positive[Finite] = 1000.0
    epsilon: NonNegative[Finite] = 0.0014


@dataclasses.dataclass(frozen=True)
class Moved:
    """``predict`` that also gives ``odin/logits`` (B, K): those of the moved images.

    Rows must not depend on each other, as they do not in evaluation.

    Attributes:
      predict: of the run.
      odin: how far images move.
      logits: name of the logits (B, K) that ``predict`` gives.
    """

    predict: Predict
    odin: Odin
    logits: str

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        if "image" not in batch:
            raise ValueError(f"odin needs 'image' in a batch; it has {', '.join(sorted(batch))}")
        image = batch["image"]
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(
                f"odin moves floating-point images, and 'image' is {image.dtype}: put "
                "ops.ValueRange into data.ops"
            )

        def log_confidence(image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            outputs = self.predict(variables, {**batch, "image": image})
            if self.logits not in outputs:
                raise ValueError(
                    f"odin needs {self.logits!r} from the objective's predict; it gives "
                    f"{', '.join(sorted(outputs)) or 'nothing'}"
                )
            log_probabilities = jax.nn.log_softmax(
                outputs[self.logits].astype(jnp.float32) / self.odin.temperature
            )
            best_class = jax.nn.one_hot(
                jnp.argmax(log_probabilities, -1), log_probabilities.shape[-1], dtype=bool
            )
            return jnp.sum(jnp.where(best_class, log_probabilities, 0)), outputs

        gradient, outputs = jax.grad(log_confidence, has_aux=True)(image)
        step = jnp.asarray(self.odin.epsilon, image.dtype) * jnp.sign(gradient)
        moved = self.predict(variables, {**batch, "image": image + step})[self.logits]
        return {**outputs, MOVED: moved.astype(jnp.float32)}
