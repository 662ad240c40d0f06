"""Cost of inference: parameters, FLOPs, memory, latency and throughput on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.parallel.mesh import MeshError, batch_share, check_batch, replicated, to_device
from vision.run.compile import memory
from vision.train.flops import count
from vision.train.objective import Batch, Variables
from vision.train.tower import count_params

_QUANTILES = (50, 90, 99)


@dataclasses.dataclass(frozen=True)
@checked
class Cost:
    """Parameters, FLOPs, activation memory, latency and throughput of ``predict``.

    Yields ``parameters``, ``parameter_bytes`` and ``flops`` (of one image, multiply-accumulates
    counted as two, see ``vision.train.flops``); then for every batch size B ``latency_ms_p50_bB``,
    ``_p90_``, ``_p99_`` (milliseconds per batch), ``images_per_s_bB`` (at the median),
    ``activation_mb_bB`` (10^6 bytes that the compiler reserves on one device beside weights and
    images, where it says) and ``timed_bB`` (how many runs); at last the figure ``throughput``.

    Only what ``outputs`` need is computed. Images are on the device beforehand: reading and
    decoding are not included. Times hold for this machine at this moment: compare models that were
    measured in one run (``evaluate.py --compare``), with nothing else running.

    Attributes:
      data: its first record is repeated to make the batches.
      batch_sizes: global ones. A batch that the devices cannot share runs whole on each.
      outputs: names of the outputs of ``predict`` that are computed.
      seconds: for timing each batch size, after the first run; at least ``min_runs`` runs.
      min_runs: per batch size; the 99th percentile of few runs is their slowest.
    """

    data: EvaluationData
    batch_sizes: NonEmpty[tuple[Positive[int], ...]] = (1, 8)
    outputs: tuple[str, ...] = ("logits",)
    seconds: NonNegative[float] = 2.0
    min_runs: Positive[int] = 10

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads one batch, then compiles and runs once per batch size.

        Raises:
          DataError: no records.
          ValueError: ``predict`` lacks an output.
        """
        record, mesh = _first(ctx, self.data)

        def program(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
            outputs = predict(variables, batch)
            if missing := [name for name in self.outputs if name not in outputs]:
                raise ValueError(
                    f"Cost: predict does not give {missing[0]!r}; it gives "
                    f"{', '.join(sorted(outputs)) or 'nothing'}"
                )
            return {name: outputs[name] for name in self.outputs}

        example = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in record.items()}
        weights = jax.tree.leaves((ctx.variables.params, ctx.variables.model_state))
        yield "parameters", count_params(ctx.variables.params)
        yield "parameter_bytes", sum(x.size * x.dtype.itemsize for x in weights)
        yield "flops", count(program, ctx.variables, example)
        speeds = []
        for size in self.batch_sizes:
            batch = _repeated(record, size, mesh)
            compiled = jax.jit(program).lower(ctx.variables, batch).compile()
            times = self._times(compiled, ctx.variables, batch)
            for q in _QUANTILES:
                yield f"latency_ms_p{q}_b{size}", 1e3 * float(np.percentile(times, q))
            speeds.append(size / float(np.median(times)))
            yield f"images_per_s_b{size}", speeds[-1]
            if reserved := memory(compiled):
                yield f"activation_mb_b{size}", reserved["temporaries"] / 1e6
            yield f"timed_b{size}", len(times)
        if len(speeds) > 1:
            line = Line("images per second", np.array(self.batch_sizes), np.array(speeds))
            yield "throughput", Curve((line,), "batch size", "images per second")

    def _times(self, compiled: Any, variables: Variables, batch: Mapping[str, jax.Array]) -> Any:
        jax.block_until_ready(compiled(variables, batch))
        times, end = [], time.perf_counter() + self.seconds
        while len(times) < self.min_runs or time.perf_counter() < end:
            started = time.perf_counter()
            jax.block_until_ready(compiled(variables, batch))
            times.append(time.perf_counter() - started)
        return np.array(times)


def _first(ctx: EvalContext, data: EvaluationData) -> tuple[dict[str, np.ndarray], Mesh]:
    """The first readable record of this process's rows, on the host, and the mesh."""
    for batch in ctx.batches(data):
        sharding: Any = batch["_mask"].sharding
        # Rows of other processes are not addressable here; any record has the right shapes.
        rows = {name: np.asarray(x.addressable_shards[0].data) for name, x in batch.items()}
        valid = np.flatnonzero(rows["_mask"])
        if len(valid):
            return {name: x[valid[0]] for name, x in rows.items()}, sharding.mesh
    raise DataError(f"{data.source.info.name}: no record that can be read")


def _repeated(record: Mapping[str, np.ndarray], size: int, mesh: Mesh) -> dict[str, jax.Array]:
    """A global batch of ``size`` times the record; replicated where the devices cannot share it."""
    rows = {name: np.broadcast_to(x, (size, *x.shape)) for name, x in record.items()}
    try:
        check_batch(size, mesh)
    except MeshError:
        return jax.device_put(rows, replicated(mesh))
    local_size = size // batch_share(mesh)[1]
    return to_device({name: x[:local_size] for name, x in rows.items()}, mesh)
