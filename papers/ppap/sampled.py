"""A job that samples images from a diffusion model, unconditionally or with classifier guidance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.diffusion import Diffusion, classifier_guide
from vision.config.ranges import Positive, checked
from vision.run.restore import load_run


@dataclasses.dataclass(frozen=True)
@checked
class Sampled:
    """``images.npz``: ``image`` uint8 (N, H, W, C), 0..255, and, with a guide, ``label`` int32.

    All runs take images in -1..1. The target class of record i is i mod K. Metric: ``judged``, the
    share of images that the judge assigns to their target class.

    Attributes:
      run_of: folder of the diffusion model's run; its objective is ``Denoise``.
      count: N.
      diffusion: as in that objective.
      guide: folder of the guiding classifier's run, whose ``predict`` gives ``log_probabilities``
        of ``image`` at ``time``; empty for none.
      scale: of the guide's gradient; with 0 the images are those without a guide, bit for bit.
      judge: folder of the run of a classifier that evaluates the images; empty for none.
      steps: sampling steps.
      eta: 0 is DDIM, 1 ancestral.
      batch_size: images sampled at once.
      seed: of the noise; every image has its own.
    """

    run_of: str
    count: Positive[int]
    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen
    guide: str = ""
    scale: float = 7.5
    judge: str = ""
    steps: int = 25
    eta: float = 0.0
    batch_size: Positive[int] = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.judge and not self.guide:
            raise ValueError("judge: needs a guide, without which images have no target class")

    def run(self, folder: Path) -> dict[str, float]:
        """Raises CheckpointError or WorkdirError where a run cannot be read."""
        denoiser_run = load_run(Path(self.run_of))
        shape = denoiser_run.data_spec.batch["image"][0][1:]
        labels, guide = np.zeros(self.count, np.int32), None
        if self.guide:
            guide = load_run(Path(self.guide))
            labels = np.arange(self.count, dtype=np.int32) % self._classes(guide, shape)
        active_guide = guide if self.scale else None

        @jax.jit
        def sample(
            denoiser: Any, guide_variables: Any, index: jax.Array, label: jax.Array
        ) -> jax.Array:
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(self.seed), i))(index)
            start = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

            def noise_of(x: jax.Array, time: jax.Array) -> jax.Array:
                return denoiser_run.predict(denoiser, {"image": x, "time": time})["noise"]

            def log_probability(x: jax.Array, time: jax.Array) -> jax.Array:
                assert active_guide is not None
                log_probabilities = active_guide.predict(
                    guide_variables, {"image": x, "time": time}
                )["log_probabilities"]
                return log_probabilities[jnp.arange(len(x)), label]

            return self.diffusion.sample(
                noise_of,
                start,
                keys[0],
                count=self.steps,
                eta=self.eta,
                guide=None
                if active_guide is None
                else classifier_guide(log_probability, self.scale),
            )

        parts = []
        with jax.set_mesh(denoiser_run.mesh):
            guide_variables = None if active_guide is None else active_guide.variables
            for first in range(0, self.count, self.batch_size):
                # The last batch is padded, so that one program is compiled.
                index = np.arange(first, first + self.batch_size) % self.count
                samples = sample(
                    denoiser_run.variables, guide_variables, jnp.asarray(index), labels[index]
                )
                parts.append(np.asarray(samples)[: self.count - first])
        image = np.rint((np.concatenate(parts).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        arrays = {"image": image, **({"label": labels} if self.guide else {})}
        np.savez(folder / "images.npz", allow_pickle=False, **arrays)
        return {"judged": self._judged(image, labels)} if self.judge else {}

    def _classes(self, guide: Any, shape: tuple[int, ...]) -> int:
        inputs = {
            "image": jax.ShapeDtypeStruct((1, *shape), jnp.float32),
            "time": jax.ShapeDtypeStruct((), jnp.int32),
        }
        return jax.eval_shape(guide.predict, guide.variables, inputs)["log_probabilities"].shape[-1]

    def _judged(self, image: np.ndarray, labels: np.ndarray) -> float:
        judge = load_run(Path(self.judge))
        program = jax.jit(judge.predict)
        correct = []
        with jax.set_mesh(judge.mesh):
            for first in range(0, len(image), self.batch_size):
                images = image[first : first + self.batch_size].astype(np.float32) / 127.5 - 1
                log_probabilities = program(judge.variables, {"image": images})["log_probabilities"]
                correct.append(
                    np.argmax(log_probabilities, -1) == labels[first : first + self.batch_size]
                )
        return float(np.mean(np.concatenate(correct)))
