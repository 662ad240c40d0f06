"""Any TensorFlow Datasets data set, without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import glob
import importlib
from typing import Any

import numpy as np

from vision.config.extras import pip_install
from vision.data import files
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo

_RANDOM_ACCESS = ("array_record", "parquet")


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A data set prepared by TFDS in a random-access format, images still encoded.

    Nothing is downloaded here. Prepare the data once, with
    ``tfds.builder(NAME, data_dir=..., file_format="array_record").download_and_prepare()``.

    There is no ``column``: a stored example is one compressed block, picture and label together, so
    that the labels of all records cost reading all records.

    Attributes:
      name: as TFDS takes it: ``cifar10``, ``imagenet2012:5.1.0``, ``caltech_birds2011``.
      split: a TFDS split expression: ``train``, ``test[:10%]``, ``train+validation``.
      data_dir: where TFDS keeps its data; None for its default.
      image_key: the TFDS feature that becomes ``image``.
      label_key: the TFDS feature that becomes ``label``; empty for none.
      extra: further TFDS features to pass on under their own names; the rest is not read out.

    Raises:
      DataError: on first use, when the data set, version, split or feature does not exist, or
        is not prepared in a random-access format; the message says how to prepare it.
    """

    name: str
    split: str = "train"
    data_dir: str | None = None
    image_key: str = "image"
    label_key: str = "label"
    extra: tuple[str, ...] = ()

    @functools.cached_property
    def _builder(self) -> Any:
        tfds = _tfds()

        where = f"TFDS data set {self.name!r}, data_dir={self.data_dir!r}"
        try:
            builder = tfds.builder(self.name, data_dir=self.data_dir, try_gcs=False)
        except Exception as error:  # TFDS raises AssertionError, ValueError and its own
            raise DataError(f"{where}: {str(error).splitlines()[0]}") from error
        if not builder.info.splits:
            raise DataError(f"{where}: not prepared in {builder.data_path}; run: {self._recipe}")
        stored = builder.info.file_format
        if stored is None or stored.value not in _RANDOM_ACCESS:
            raise DataError(
                f"{where}: prepared in {builder.data_path} as "
                f"{'unknown' if stored is None else stored.value}, which has no random access; "
                f"prepare it again, elsewhere: {self._recipe}"
            )
        return builder

    @property
    def _recipe(self) -> str:
        where = "" if self.data_dir is None else f", data_dir={self.data_dir!r}"
        return (
            f'python -c "import tensorflow_datasets as tfds; tfds.builder({self.name!r}{where}, '
            "file_format='array_record').download_and_prepare()\""
        )

    @functools.cached_property
    def _records(self) -> Any:
        tfds = _tfds()

        features = self._builder.info.features
        for key in (self.image_key, self.label_key, *self.extra):
            if key and key not in features:
                raise DataError(
                    f"TFDS data set {self.name!r} has no feature {key!r} but "
                    f"{', '.join(sorted(features))}; set image_key, label_key or extra"
                )
        encoded = {
            key: tfds.decode.SkipDecoding()
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
        }
        try:
            return self._builder.as_data_source(split=self.split, decoders=encoded)
        except Exception as error:
            raise DataError(
                f"TFDS data set {self.name!r}, split={self.split!r}: {error}"
            ) from error

    @property
    def info(self) -> SourceInfo:
        info = self._builder.info
        features = {"image": f"encoded bytes of {info.features[self.image_key]}"}
        if self.label_key:
            features["label"] = str(info.features[self.label_key])
        features |= {key: str(info.features[key]) for key in self.extra}
        names = getattr(info.features[self.label_key], "names", None) if self.label_key else None
        return SourceInfo(
            name=f"{info.full_name}/{self.split}",
            num_examples=len(self),
            class_names=tuple(names or ()),
            features=features,
            licence=info.redistribution_info.license or "",
            homepage=info.homepage or "",
            citation=(info.citation or "").strip(),
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self._records[index]
        except Exception as error:  # array_record and the feature decoders raise what they like
            raise DataError(f"{self.key(index)}: cannot be read: {error}") from error
        example = {"image": record[self.image_key]}
        if self.label_key:
            example["label"] = record[self.label_key]
            if isinstance(example["label"], int | np.integer):
                example["label"] = np.int32(example["label"])
        return example | {key: record[key] for key in self.extra}

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any file of the data set."""
        folder = str(self._builder.data_path)
        return content(self, files.expand(f"{glob.escape(folder)}/*"))

    def key(self, index: int) -> str:
        return f"{self._builder.info.full_name}/{self.split}/{index}"


def _tfds() -> Any:
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError:
        raise DataError(f"TFDS data sets need more packages: {pip_install('tfds')}") from None
