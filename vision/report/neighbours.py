"""The training images that lie nearest to others, by the embeddings of a trained model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vision.blocks.nearest import nearest
from vision.config.errors import UserError
from vision.config.specs import build
from vision.data.source import Source
from vision.evaluators.image_text.embeddings import spread
from vision.evaluators.thumbnail import picture
from vision.predict.images import Images
from vision.predict.predictor import Predictor

IMAGE = "image"
NO_RUN = "weights of other libraries come without their training data"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SourceImages(Images):
    """Some records of a source, as images.

    Attributes:
      source: has the records; ``items`` are their indices.
    """

    source: Any = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source[self.items[index]]
        return Images((record[IMAGE],), (self.names[index],), self.mode)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images and their embeddings.

    Attributes:
      source: of the training data.
      indices: of the records that were embedded.
      vectors: unit vectors float32 (N, D), of the same records.
      about: which they are, in words.
    """

    source: Source
    indices: tuple[int, ...]
    vectors: np.ndarray
    about: str

    def of(self, vectors: np.ndarray, count: int) -> list[list[dict[str, Any]]]:
        """For every row the nearest: ``png`` (empty without one), ``key``, ``label``, ``cosine``.

        Args:
          vectors: float32 (Q, D), finite.
          count: of each.
        """
        cosines, found = nearest(_unit(vectors), self.vectors, min(count, len(self.vectors)))
        names = self.source.info.class_names
        results = []
        for row, values in zip(np.asarray(found), np.asarray(cosines), strict=True):
            results.append([])
            for place, cosine in zip(row.tolist(), values.tolist(), strict=True):
                index = self.indices[place]
                label = np.asarray(self.source[index].get("label"))
                known = label.ndim == 0 and label.dtype.kind in "iu" and int(label) >= 0
                name = str(int(label)) if known else ""
                if known and int(label) < len(names):
                    name = names[int(label)]
                shown = picture(self.source, index, IMAGE, name, "", cosine)
                results[-1].append(
                    {"png": shown.png, "key": shown.key, "label": name, "cosine": cosine}
                )
        return results


def training_images(predictor: Predictor, limit: int) -> Neighbours | str:
    """Embeds the training data of a run, or says why that cannot be.

    Args:
      predictor: of a run.
      limit: most images, evenly spread over what there is.
    """
    if predictor.run is None:
        return NO_RUN
    data: Any = predictor.run.config.data
    if "source" not in data:
        return "the run's training data has no single source"
    try:
        source = build(data.source)
        indices = tuple(spread(min(limit, len(source)), len(source)).tolist())
        if not indices or IMAGE not in source[indices[0]]:
            return f"records of {source.info.name} have no {IMAGE!r}"
        names = tuple(source.key(i) for i in indices)
        images = SourceImages(indices, names, predictor.preprocessing.mode, source)
        parts = list(
            predictor.stream(images, probabilities=False, embeddings=True, on_error="keep")
        )
    except UserError as error:
        return f"the run's training data cannot be read here: {error}"
    vectors = np.concatenate([part.embeddings for part in parts])
    kept = np.flatnonzero(np.isfinite(vectors).all(1))
    if not len(kept):
        return f"no image of {source.info.name} can be read here"
    of_all = f" of {len(source):,}, evenly spread" if len(indices) < len(source) else ""
    bad = f"; {len(indices) - len(kept):,} could not be read" if len(kept) < len(indices) else ""
    about = f"{len(kept):,} training images{of_all} of {source.info.name}{bad}"
    return Neighbours(source, tuple(indices[i] for i in kept), _unit(vectors[kept]), about)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
