"""Images that a diffusion model of an earlier stage makes, freely or led by a classifier."""

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

    All runs take images of -1..1. Classes follow each other in the order of the records: record i
    is to be of class i mod K. Numbers: ``judged``, the share that the judge takes for that class.

    Attributes:
      run_of: folder of the diffusion model's run; its objective is ``Denoise``.
      count: N.
      diffusion: as in that objective.
      guide: folder of the run that leads, whose ``predict`` gives ``log_probabilities`` of
        ``image`` at ``time``; empty for none.
      scale: of the guide's gradient; at 0 the images are those without a guide, bit for bit.
      judge: folder of a classifier's run that looks at the images; empty for none.
      steps: of sampling.
      eta: 0 is DDIM, 1 ancestral.
      batch_size: images made at once.
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
            raise ValueError("judge: nothing to judge without a guide, which wants a class")

    def run(self, folder: Path) -> dict[str, float]:
        """Raises CheckpointError or WorkdirError where a run cannot be read."""
        made = load_run(Path(self.run_of))
        shape = made.data_spec.batch["image"][0][1:]
        labels, guide = np.zeros(self.count, np.int32), None
        if self.guide:
            guide = load_run(Path(self.guide))
            labels = np.arange(self.count, dtype=np.int32) % self._classes(guide, shape)
        led = guide if self.scale else None

        @jax.jit
        def sample(denoiser: Any, leader: Any, index: jax.Array, label: jax.Array) -> jax.Array:
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(self.seed), i))(index)
            start = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

            def noise_of(x: jax.Array, time: jax.Array) -> jax.Array:
                return made.predict(denoiser, {"image": x, "time": time})["noise"]

            def log_probability(x: jax.Array, time: jax.Array) -> jax.Array:
                assert led is not None
                said = led.predict(leader, {"image": x, "time": time})["log_probabilities"]
                return said[jnp.arange(len(x)), label]

            return self.diffusion.sample(
                noise_of,
                start,
                keys[0],
                count=self.steps,
                eta=self.eta,
                guide=None if led is None else classifier_guide(log_probability, self.scale),
            )

        parts = []
        with jax.set_mesh(made.mesh):
            leader = None if led is None else led.variables
            for begin in range(0, self.count, self.batch_size):
                # The last batch is filled up, so that there is one program.
                index = np.arange(begin, begin + self.batch_size) % self.count
                found = sample(made.variables, leader, jnp.asarray(index), labels[index])
                parts.append(np.asarray(found)[: self.count - begin])
        image = np.rint((np.concatenate(parts).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        named = {"image": image, **({"label": labels} if self.guide else {})}
        np.savez(folder / "images.npz", allow_pickle=False, **named)
        return {"judged": self._judged(image, labels)} if self.judge else {}

    def _classes(self, guide: Any, shape: tuple[int, ...]) -> int:
        seen = {
            "image": jax.ShapeDtypeStruct((1, *shape), jnp.float32),
            "time": jax.ShapeDtypeStruct((), jnp.int32),
        }
        return jax.eval_shape(guide.predict, guide.variables, seen)["log_probabilities"].shape[-1]

    def _judged(self, image: np.ndarray, labels: np.ndarray) -> float:
        judge = load_run(Path(self.judge))
        program = jax.jit(judge.predict)
        right = []
        with jax.set_mesh(judge.mesh):
            for begin in range(0, len(image), self.batch_size):
                seen = image[begin : begin + self.batch_size].astype(np.float32) / 127.5 - 1
                said = program(judge.variables, {"image": seen})["log_probabilities"]
                right.append(np.argmax(said, -1) == labels[begin : begin + self.batch_size])
        return float(np.mean(np.concatenate(right)))
