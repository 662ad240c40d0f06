"""Contrastive losses of large batches without the matrix of all pairs on any device.

Every device keeps its images. Blocks of texts, with their statistics, are passed around a ring of
devices (``ppermute``): at each step a device compares its images with the texts that it holds.
After one round every text has been compared with all images and is back on its device. The backward
pass recomputes each block of pairs, so that beside the texts of the ring only one block of (B /
devices)^2 pairs exists.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from vision.blocks.contrast import (
    ContrastResult,
    Loss,
    Pairs,
    Stats,
    affinities,
    begin,
    conclude,
    finish,
    visit,
)
from vision.blocks.similarity import ContrastError, Features, Similarity, chunks, unchunk
from vision.parallel.mesh import BATCH_AXES

Coefficients = tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Modality:
    """The images, or the texts, of a batch: row i of one belongs to row i of the other.

    Attributes:
      features: inputs of the similarity, (n, ...).
      key: (n,) int or (n, K) float: see ``vision.blocks.contrast.affinities``.
      valid: (n,) bool: False for rows that count neither as positive nor as negative.
      twin: (n, C, L) integers, or None: fingerprints of a row's captions, from ``fingerprint``.
        Rows that share one are not negatives of each other.
    """

    features: Features
    key: jax.Array
    valid: jax.Array
    twin: jax.Array | None = None


def compare(
    loss: Loss,
    similarity: Similarity,
    coefficients: Coefficients,
    images: Modality,
    texts: Modality,
    groups: int = 1,
) -> ContrastResult:
    """The contrast of a batch, split over the mesh in use (``jax.set_mesh``), if there is one.

    Args:
      loss: ``Softmax``, ``Sigmoid`` or ``Ranking``.
      similarity: see ``vision.blocks.similarity``.
      coefficients: scale and bias, ``loss.coefficients(params)``.
      images, texts: both sides, B rows.
      groups: the batch is split into so many runs of consecutive rows; rows are compared within a
        group only, and texts are passed within a group's devices (M2-Encoder's grouped ITC). The
        loss is the mean over the rows of all groups. Groups are as random as the sampler.

    Raises:
      ContrastError: devices, groups and rows are not divisible.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sharded = not mesh.empty and set(BATCH_AXES) <= set(mesh.axis_names)
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES) if sharded else 1
    rows = images.valid.shape[0]
    if groups < 1 or (devices % groups and groups % devices) or rows % math.lcm(devices, groups):
        raise ContrastError(
            f"groups={groups} with {devices} device(s) and {rows} rows: devices are a multiple of "
            "groups or groups of devices, and both divide the rows"
        )
    local_groups = max(groups // devices, 1)
    run = functools.partial(device_sums, loss, similarity, groups=local_groups)
    if devices > 1:
        ring = max(devices // groups, 1)
        run = jax.shard_map(
            functools.partial(run, ring=ring, devices=devices),
            in_specs=(P(), P(BATCH_AXES), P(BATCH_AXES)),
            out_specs=P(),
        )
    return conclude(loss, *run(coefficients, images, texts))


def device_sums(
    loss: Loss,
    similarity: Similarity,
    coefficients: Coefficients,
    images: Modality,
    texts: Modality,
    *,
    groups: int = 1,
    ring: int = 1,
    devices: int = 1,
) -> tuple[Stats, Stats, jax.Array]:
    """Sums over the whole batch, from the rows of one device: images, texts, matching pairs."""
    round_trip = functools.partial(ring_sums, loss, similarity, coefficients)
    if groups == 1:
        sums = round_trip(images, texts, ring=ring, devices=devices)
    else:
        parts = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), (images, texts))
        sums = jax.tree.map(lambda x: jnp.sum(x, 0), jax.lax.map(lambda p: round_trip(*p), parts))
    return jax.lax.psum(sums, BATCH_AXES) if devices > 1 else sums


def ring_sums(
    loss: Loss,
    similarity: Similarity,
    coefficients: Coefficients,
    images: Modality,
    texts: Modality,
    *,
    ring: int = 1,
    devices: int = 1,
) -> tuple[Stats, Stats, jax.Array]:
    """Sums over one device's rows, after texts were passed around a ring of ``ring`` devices."""
    image_features, text_features = similarity.prepare(images.features, texts.features)
    images = dataclasses.replace(images, features=image_features)
    texts = dataclasses.replace(texts, features=text_features)
    own_pairs = own_scores(similarity, images, texts)
    scale, bias = coefficients
    # A select on a device-varying value tells shard_map that the statistics vary between devices.
    image_stats, text_stats = (
        jax.tree.map(lambda x: jnp.where(images.valid, x, x), begin(loss, scale * s + bias))
        for s in own_pairs
    )
    block = functools.partial(compare_block, loss, similarity, coefficients, images)
    if ring == 1:
        image_stats, text_stats = block(image_stats, text_stats, texts)
    else:
        permutation = [(d, d - d % ring + (d + 1) % ring) for d in range(devices)]

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            image_stats, text_stats, visiting_texts = carry
            image_stats, text_stats = block(image_stats, text_stats, visiting_texts)
            return (
                image_stats,
                *jax.lax.ppermute((text_stats, visiting_texts), BATCH_AXES, permutation),
            ), None

        start = (image_stats, text_stats, texts)
        (image_stats, text_stats, _), _ = jax.lax.scan(step, start, None, length=ring)
    counted = jnp.where(images.valid & texts.valid, jax.lax.stop_gradient(own_pairs[0]), 0.0)
    return finish(loss, image_stats), finish(loss, text_stats), jnp.sum(counted)


def compare_block(
    loss: Loss,
    similarity: Similarity,
    coefficients: Coefficients,
    images: Modality,
    image_stats: Stats,
    text_stats: Stats,
    texts: Modality,
) -> tuple[Stats, Stats]:
    """Statistics after comparing ``images`` with ``texts``, a chunk of texts at a time."""

    def step(image_stats: Stats, chunk_of_texts: tuple[Stats, Modality]) -> tuple[Stats, Stats]:
        return visit(
            loss,
            coefficients,
            image_stats,
            chunk_of_texts[0],
            pairs_of(similarity, images, chunk_of_texts[1]),
        )

    # Recomputed in the backward pass: otherwise all blocks would be kept in memory until then.
    step = jax.checkpoint(step, prevent_cse=False)
    size, rows = similarity.chunk, texts.valid.shape[0]
    if size is None or size >= rows:
        return step(image_stats, (text_stats, texts))
    image_stats, text_chunks = jax.lax.scan(step, image_stats, chunks((text_stats, texts), size))
    return image_stats, unchunk(text_chunks, rows)


def pairs_of(similarity: Similarity, images: Modality, texts: Modality) -> Pairs:
    """All pairs of a block of images and a block of texts."""
    to_text, to_image = similarity(images.features, texts.features)
    affinity = affinities(images.key, texts.key)
    keep = images.valid[:, None] & texts.valid[None, :]
    if images.twin is not None and texts.twin is not None:
        keep &= (affinity > 0) | ~share_caption(images.twin, texts.twin)
    return Pairs(to_text, to_image, jnp.where(keep, affinity, 0.0), keep)


def own_scores(
    similarity: Similarity, images: Modality, texts: Modality
) -> tuple[jax.Array, jax.Array]:
    """(n,) similarities of image i and text i, both ways."""

    def score_pair(image: Features, text: Features) -> tuple[jax.Array, jax.Array]:
        single = jax.tree.map(lambda x: x[None], (image, text))
        to_text, to_image = similarity(*single)
        return to_text[0, 0], to_image[0, 0]

    return jax.vmap(score_pair)(images.features, texts.features)


def share_caption(images: jax.Array, texts: jax.Array) -> jax.Array:
    """(n, m) bool: whether rows have a caption in common; (n, C, L) and (m, C, L) integers."""
    equal = jnp.all(images[:, None, :, None] == texts[None, :, None, :], -1)
    return jnp.any(equal, (2, 3))


def fingerprint(ids: jax.Array) -> jax.Array:
    """Two 32-bit hashes (..., 2) uint32 of token ids (..., T); equal texts have equal hashes.

    Among 32,768 different texts, two share both hashes with a probability of about 3e-11.
    """
    position = jnp.arange(ids.shape[-1], dtype=jnp.uint32)
    lanes = []
    for seed in (0x9E3779B1, 0x7FEB352D):
        # The finaliser of MurmurHash3 on id and position, summed over positions.
        x = ids.astype(jnp.uint32) * jnp.uint32(seed) + position * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        lanes.append(jnp.sum(x ^ (x >> 16), -1, dtype=jnp.uint32))
    return jnp.stack(lanes, -1)
