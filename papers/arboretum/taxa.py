"""Taxa: names of a species at seven ranks, and the texts that are made of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from vision.config.ranges import NonEmpty, Unique, checked
from vision.data.ops.base import Example
from vision.data.prompts import read_json
from vision.data.source import DataError

Kind = Literal[
    "scientific_name",
    "common_name",
    "taxonomic_name",
    "sci",
    "com",
    "sci_com",
    "taxon",
    "taxon_com",
    "taxonTag",
    "taxonTag_com",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRAINED: tuple[Kind, ...] = ("sci", "com", "taxon", "sci_com", "taxon_com")
COMMON = "common_name"
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")


@dataclasses.dataclass(frozen=True)
class Taxon:
    """A species.

    Attributes:
      scientific_name: by which it is listed.
      ranks: (rank, name) from the root down.
      common_name: empty where it has none.
    """

    scientific_name: str
    ranks: tuple[tuple[str, str], ...]
    common_name: str = ""

    def text(self, kind: Kind) -> str:
        """One of the authors' ten texts; without a common name the scientific one stands for it."""
        common = self.common_name or self.scientific_name
        path = " ".join(name for _, name in self.ranks)
        tagged = " ".join(f"{rank} {name}" for rank, name in self.ranks)
        subject = {"sci": self.scientific_name, "com": common, "taxon": path, "taxonTag": tagged}
        if kind in ("scientific_name", "common_name", "taxonomic_name"):
            return {"s": self.scientific_name, "c": common, "t": path}[kind[0]]
        name, _, both = kind.partition("_")
        return f"a photo of {subject[name]}{f' with common name {common}' if both else ''}."


def read_taxa(
    given: Mapping[str, Mapping[str, str]] | str, class_names: Sequence[str] = ()
) -> tuple[Taxon, ...]:
    """Species in label order.

    Args:
      given: scientific name to names by rank, from the root down, with ``common_name`` or without;
        or the name of a JSON file with such an object.
      class_names: scientific names in label order; empty takes the order of the file. A mapping
        in a config is sorted by its keys, and needs them.

    Raises:
      DataError: the file is not there or no such object, a species is missing or lacks a rank that
        the first has, or a name is empty. It names file and species.
    """
    where = given if isinstance(given, str) else "taxa"
    found: Any = read_json(given) if isinstance(given, str) else given
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{where}: must map scientific names to names by rank")
    if not class_names and not isinstance(given, str):
        raise DataError("taxa in a config have no order of their own: give class_names")
    if missing := [name for name in class_names if name not in found]:
        raise DataError(f"{where}: no species {missing[0]!r}, nor {len(missing) - 1} others")
    taxa: list[Taxon] = []
    for species, names in ((name, found[name]) for name in class_names or found):
        if not isinstance(names, Mapping) or not all(isinstance(x, str) for x in names.values()):
            raise DataError(f"{where}: {species!r} needs an object of names by rank")
        ranks = _from_the_root(names)
        wanted = [rank for rank, _ in taxa[0].ranks] if taxa else [rank for rank, _ in ranks]
        if [rank for rank, _ in ranks] != wanted or not ranks:
            raise DataError(
                f"{where}: {species!r} has the ranks {[rank for rank, _ in ranks]}, others "
                f"{wanted}; all need the same, from the root down"
            )
        if not species.strip() or not all(name.strip() for _, name in ranks):
            raise DataError(f"{where}: {species!r} has an empty name")
        taxa.append(Taxon(species, ranks, names.get(COMMON, "").strip()))
    return tuple(taxa)


def _from_the_root(names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The seven ranks first, in their order whatever that of the keys; then others."""
    known = [rank for rank in RANKS if rank in names]
    others = [rank for rank in names if rank not in RANKS and rank != COMMON]
    return tuple((rank, names[rank]) for rank in (*known, *others))


@dataclasses.dataclass(frozen=True)
@checked
class TaxonTexts:
    """Makes texts of a species, one per kind, in their order.

    The label stays; one that is no species raises DataError. For
    ``Tokenize(pick="first", captions=len(kinds))``.

    Attributes:
      taxa, class_names: see ``read_taxa``.
      kinds: which texts.
      feature: the label, one integer.
      output: name of the texts, a tuple of strings.
    """

    taxa: Mapping[str, Mapping[str, str]] | str
    class_names: tuple[str, ...] = ()
    kinds: Unique[NonEmpty[tuple[Kind, ...]]] = TRAINED
    feature: str = "label"
    output: str = "caption"

    @functools.cached_property
    def species(self) -> tuple[Taxon, ...]:
        return read_taxa(self.taxa, self.class_names)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        label = int(example[self.feature])
        if not 0 <= label < len(self.species):
            raise DataError(
                f"{self.feature!r} is {label}, not a species in 0..{len(self.species) - 1}"
            )
        taxon = self.species[label]
        return {**example, self.output: tuple(taxon.text(kind) for kind in self.kinds)}
