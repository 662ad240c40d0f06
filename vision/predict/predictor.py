"""A trained model that is asked about images: probabilities, embeddings, and where it looked."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vision.config.errors import UserError
from vision.data.batches import SinglePass
from vision.data.collate import Batch
from vision.data.loader import Loader, Reading
from vision.data.ops.base import Example
from vision.data.prompts import PLAIN
from vision.data.source import DataError
from vision.evaluate.evaluator import Predict
from vision.parallel.mesh import BATCH_AXES, replicated, to_device
from vision.predict.explain import Explanation, explained
from vision.predict.images import Images, Input, gather
from vision.predict.preprocessing import Prepared
from vision.predict.reading import PredictionReader, fitting
from vision.predict.results import Predictions, joined
from vision.predict.zero_shot import TextClassifier, TextSide
from vision.run.restore import Run
from vision.train.objective import Variables

OnError = Literal["raise", "keep"]
LOG_PROBABILITIES = "log_probabilities"
# What a regression gives.
NUMBERS = "prediction"
# What objectives call the embedding of an image, first choice first.
EMBEDDINGS = ("embedding", "image/embedding")
# Batches that wait on the device ahead of the host.
_AHEAD = 2


class PredictError(UserError):
    """The model cannot say what it is asked; the message has the way out."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A trained model with its preprocessing and its classes. Made by ``vision.load``.

    It changes nothing and keeps no state between calls: threads may share it. Images are the path
    of a file or of a folder (walked), the bytes of a file, a Pillow image, or a uint8 array [H, W],
    [H, W, C]; or several of them. Arrays of other dtypes are refused: their range is not known.

    Attributes:
      source: where the weights come from, in words.
      classes: names in the order of probabilities, each once; empty where the model has none.
      preprocessing: from an image to the input.
      forward: ``(variables, batch) -> dict``, what evaluators are given.
      variables: of the model, on ``mesh``.
      mesh: devices that share every batch.
      run: the run, for its config, variables and objective; None for weights of other libraries.
      text_side: what a dual encoder has beside its image tower; None where classes cannot be
        taken by their names.
      texts: embeddings of such names, once ``zero_shot`` was asked for them.
      batch_size: most images at a time. A batch that is not full is filled up, so that a whole
        call runs one compiled program.
      threads: that read and decode batches; 0 does it in between.
      workers: processes beside this one that do, for ops that hold Python's lock.
    """

    source: str
    classes: tuple[str, ...]
    preprocessing: Prepared
    forward: Predict
    variables: Variables
    mesh: Mesh
    run: Run | None = None
    text_side: TextSide | None = None
    texts: TextClassifier | None = None
    batch_size: int = 32
    threads: int = 4
    workers: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.threads < 0 or self.workers < 0:
            raise PredictError(
                f"batch_size={self.batch_size}, threads={self.threads}, workers={self.workers}: at "
                "least one image at a time, and no negative number"
            )

    def __repr__(self) -> str:
        return f"Predictor({self.source}, {len(self.classes)} classes)"

    def predict(
        self, images: Input | Iterable[Input] | Images, *, on_error: OnError = "raise"
    ) -> Predictions:
        """Probabilities of the classes, or a regression's numbers, one row per image, in order.

        Args:
          images: see the class.
          on_error: ``raise`` at an image that cannot be used; ``keep`` a row with its error.

        Raises:
          DataError: no images, or one that cannot be used.
          PredictError: the model has neither classes nor numbers.
        """
        return joined(list(self.stream(images, on_error=on_error)))

    def embed(
        self, images: Input | Iterable[Input] | Images, *, on_error: OnError = "raise"
    ) -> np.ndarray:
        """Embeddings float32 (N, D), one row per image; NaN where an error is kept.

        Arguments and errors as in ``predict``.
        """
        parts = self.stream(images, probabilities=False, embeddings=True, on_error=on_error)
        return joined(list(parts)).embeddings

    def explain(
        self, image: Input | Images, class_name: str | None = None, site: str = ""
    ) -> Explanation:
        """Where in one image the evidence for a class lies: Grad-CAM (Selvaraju et al., 2017).

        Args:
          image: one image; see the class; also what ``gather`` gave of one.
          class_name: one of ``classes``; None for the likeliest one.
          site: of the tower's activations; empty for the last map of features that the class
            depends on.

        Raises:
          DataError: an image that cannot be used, or not one.
          PredictError: no such class, no such site, or a model without classes.
        """
        self._need_classes()
        source = image if isinstance(image, Images) else self._gather(image)
        if len(source) != 1:
            raise DataError(f"explain takes one image, and these are {len(source)}")
        if class_name is not None and class_name not in self.classes:
            raise PredictError(f"{self.source} has no class {class_name!r}; see .classes")
        (example, batch) = self.single(source)
        target = None if class_name is None else self.classes.index(class_name)
        with jax.set_mesh(self.mesh):
            heat, number, probability = explained(
                self.forward, self.variables, to_device(batch, self.mesh), self.texts, target, site
            )
        name = self.classes[number]
        return Explanation(source.names[0], name, probability, heat, example)

    def zero_shot(self, classes: Sequence[str], templates: Sequence[str] = PLAIN) -> Predictor:
        """A dual encoder as a classifier of these classes, by the embeddings of their prompts.

        Probabilities are those of the loss that the run learned with its temperature: a softmax
        over the classes, or a sigmoid of each.

        Args:
          classes: names, each once.
          templates: sentences with ``{}`` where the name belongs; their embeddings are averaged.

        Raises:
          PredictError: the model has no text tower, or its loss gives no probabilities.
          DataError: names or templates that cannot be used.
        """
        if self.text_side is None or EMBEDDINGS[1] not in self._outputs:
            raise PredictError(
                f"{self.source} is no dual encoder of images and texts: it cannot take classes by "
                "their names" + (", and has its own: see .classes" if self.classes else "")
            )
        texts = self.text_side.classifier(
            self.forward, self.variables, self.mesh, classes, templates
        )
        return dataclasses.replace(self, classes=tuple(classes), texts=texts)

    def gather(self, images: Input | Iterable[Input]) -> tuple[Images, str]:
        """The images that are meant, and what folders have beside them, in words.

        Nothing is opened. The first of the two may be given to ``stream``.
        """
        return gather(images, self.preprocessing.mode)

    def stream(
        self,
        images: Input | Iterable[Input] | Images,
        *,
        probabilities: bool = True,
        embeddings: bool = False,
        on_error: OnError = "raise",
    ) -> Generator[Predictions, None, None]:
        """``predict`` a batch at a time, for more images than memory holds.

        Args:
          images: see the class; also what ``gather`` gave.
          probabilities: whether they are computed, or a regression's numbers.
          embeddings: whether they are.
          on_error: as in ``predict``.
        """
        source = images if isinstance(images, Images) else self._gather(images)
        if probabilities and not self.num_numbers:
            self._need_classes()
        outputs = self._asked(probabilities, embeddings)
        rows = self._rows(len(source))
        reader = PredictionReader(
            source=source,
            ops=self.preprocessing.ops,
            order=SinglePass(len(source)),
            seed=0,
            batch_size=rows,
            first_row=0,
            rows=rows,
            on_error="mask",
            prepared=self.preprocessing,
        )
        count = -(-len(source) // rows)
        reading = Reading(min(self.threads, count - 1), self.workers, 4, 60.0)
        in_flight: collections.deque[tuple[np.ndarray, dict[int, str], Any]] = collections.deque()
        program = _program(self.forward, outputs, self.mesh)
        with Loader(reader, "images", 0, count, reading) as loader:
            for batch in loader:
                errors = {bad.index: bad.reason for bad in loader.take_bad()}
                if errors and on_error == "raise":
                    index = min(errors)
                    raise DataError(_named(source.names[index], errors[index]))
                with jax.set_mesh(self.mesh):
                    out = program(self.variables, to_device(_inputs(batch), self.mesh))
                in_flight.append((batch["_index"], errors, out))
                if len(in_flight) > _AHEAD:
                    yield self._fetched(source, *in_flight.popleft(), probabilities, embeddings)
            while in_flight:
                yield self._fetched(source, *in_flight.popleft(), probabilities, embeddings)

    def _fetched(
        self,
        source: Images,
        index: np.ndarray,
        errors: Mapping[int, str],
        outputs: Any,
        probabilities: bool,
        embeddings: bool,
    ) -> Predictions:
        host = {name: np.asarray(x) for name, x in jax.device_get(outputs).items()}
        count = int((index >= 0).sum())
        empty = np.zeros((count, 0), np.float32)
        given, vectors, said = empty, empty, None
        if probabilities:
            if self.num_numbers:
                said = host[NUMBERS][:count].reshape(count, -1).astype(np.float32, copy=True)
            elif self.texts is not None:
                given = self.texts.probabilities(host[EMBEDDINGS[1]][:count])
            else:
                given = np.exp(host[LOG_PROBABILITIES][:count])
        if embeddings:
            vectors = host[self._embedding][:count].astype(np.float32, copy=True)
        numbers = index[:count].tolist()
        files = tuple(source.names[i] for i in numbers)
        reasons: list[str | None] = [errors.get(i) for i in numbers]
        given = np.array(given, np.float32)
        found = (given, vectors) if said is None else (given, vectors, said)
        for row, file in enumerate(files):
            reason = reasons[row]
            if reason is not None:
                reasons[row] = reason.removeprefix(f"{file}: ")
            elif not all(np.isfinite(x[row]).all() for x in found):
                reasons[row] = "the model gives NaN or infinity for it"
            if reasons[row] is not None:
                for x in found:
                    x[row] = np.nan
        return Predictions(files, self.classes, given, vectors, tuple(reasons), said)

    def _gather(self, images: Any) -> Images:
        return self.gather(images)[0]

    def _rows(self, count: int) -> int:
        """Rows of a batch: a power of two, so that few shapes are compiled, shared by devices."""
        rows = min(self.batch_size, 1 << (count - 1).bit_length())
        parts = math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)
        return -(-rows // parts) * parts

    def single(self, source: Images) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Of one image: uint8 [H, W, C] as the model sees it, and a batch that is full of it."""
        example: Example = source[0]
        rng = np.random.default_rng(0)
        seen = None
        try:
            for op in self.preprocessing.ops:
                image = example["image"]
                seen = image if isinstance(image, np.ndarray) and image.dtype == np.uint8 else seen
                example = op(example, rng)
            image = fitting(example["image"], self.preprocessing)
        except DataError as error:
            raise DataError(_named(source.names[0], str(error))) from error
        if image.dtype == np.uint8:
            seen = image
        rows = self._rows(1)
        batch = {k: np.stack([np.asarray(x)] * rows) for k, x in example.items() if k[:1] != "_"}
        valid = np.arange(rows) < 1
        batch |= {"_mask": valid, "_index": np.where(valid, 0, -1).astype(np.int32)}
        assert seen is not None  # decoding gives one
        return seen, batch

    @functools.cached_property
    def _outputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What the model gives of a batch with one image per part of the mesh."""
        rows = self._rows(1)
        prepared = self.preprocessing
        batch: dict[str, Any] = {
            "image": jax.ShapeDtypeStruct((rows, *prepared.shape), prepared.dtype),
            "_mask": jax.ShapeDtypeStruct((rows,), jnp.bool_),
            "_index": jax.ShapeDtypeStruct((rows,), jnp.int32),
        }
        try:
            with jax.set_mesh(self.mesh):
                return jax.eval_shape(self.forward, self.variables, batch)
        except (KeyError, ValueError, TypeError, UserError) as error:
            raise PredictError(
                f"{self.source} cannot be asked about images of "
                f"{' x '.join(map(str, prepared.shape))} alone, by the preprocessing of "
                f"{prepared.where}: {type(error).__name__}: {error}"
            ) from error

    @property
    def num_logits(self) -> int:
        """Classes of the model's head; 0 where it gives no probabilities of classes."""
        found = self._outputs.get(LOG_PROBABILITIES)
        return found.shape[1] if found is not None and len(found.shape) == 2 else 0

    @property
    def num_numbers(self) -> int:
        """Numbers that a regression says of an image; 0 of other models."""
        found = self._outputs.get(NUMBERS)
        if found is None or len(found.shape) > 2 or LOG_PROBABILITIES in self._outputs:
            return 0
        return math.prod(found.shape[1:])

    @property
    def _embedding(self) -> str:
        for name in EMBEDDINGS:
            if name in self._outputs and len(self._outputs[name].shape) == 2:
                return name
        raise PredictError(
            f"{self.source} gives no embedding of an image, but {', '.join(sorted(self._outputs))}"
        )

    def _need_classes(self) -> None:
        if self.texts is not None:
            return
        if EMBEDDINGS[1] in self._outputs and LOG_PROBABILITIES not in self._outputs:
            raise PredictError(
                f"{self.source} is a dual encoder of images and texts, which has no classes of its "
                "own: name them, --classes='a cat,a dog' or --classes_file=names.txt; in Python "
                "run.zero_shot(['a cat', 'a dog']); or ask for embeddings only"
            )
        if self.num_numbers:
            raise PredictError(
                f"{self.source} is a regression and has no classes: python -m vision.predict and "
                "run.predict give its numbers"
            )
        if not self.num_logits:
            raise PredictError(
                f"{self.source} gives no probabilities of classes, but "
                f"{', '.join(sorted(self._outputs)) or 'nothing'}: ask for embeddings only, with "
                "--embeddings=FILE.npz and no --out, or run.embed"
            )
        if self.num_logits != len(self.classes):
            raise PredictError(
                f"{self.source} has {self.num_logits} logits, but {len(self.classes)} names of "
                "classes: its head was made for other classes"
            )

    def _asked(self, probabilities: bool, embeddings: bool) -> tuple[str, ...]:
        if not (probabilities or embeddings):
            raise PredictError("neither probabilities nor embeddings are asked for")
        said = NUMBERS if self.num_numbers else LOG_PROBABILITIES
        names = [EMBEDDINGS[1] if self.texts is not None else said]
        names = names if probabilities else []
        return tuple(dict.fromkeys([*names, *([self._embedding] if embeddings else [])]))


def _inputs(batch: Batch) -> Batch:
    return {name: x for name, x in batch.items() if name[:1] != "_" or name in ("_mask", "_index")}


def _named(file: str, reason: str) -> str:
    return reason if file in reason else f"{file}: {reason}"


@functools.lru_cache(maxsize=32)
def _program(forward: Predict, outputs: tuple[str, ...], mesh: Mesh) -> Any:
    def program(variables: Variables, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = forward(variables, batch)
        return {name: found[name].astype(jnp.float32) for name in outputs}

    return jax.jit(program, out_shardings=replicated(mesh))
