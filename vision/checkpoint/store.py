"""Checkpoints: saved beside the training, restored onto any mesh, never trusted blindly.

A state is stored as one flat dictionary, path to array, so that its files say what they hold and
any part of it can be read without the code that made it. Beside it lies a manifest with the
checksum of every array; what does not match is set aside, and an older checkpoint is used.

    python -m vision.checkpoint.store verify WORKDIR    reads all of it; exit 1 if any is damaged
    python -m vision.checkpoint.store list WORKDIR      steps, and which of them are complete
    python -m vision.checkpoint.store digest WORKDIR    SHA-256 over the newest valid state
    python -m vision.checkpoint.store export WORKDIR    parameters as safetensors; see --help
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vision.checkpoint.usage import FLAGS, USAGE
from vision.config.cli import help_first

if __name__ == "__main__":
    help_first(USAGE, FLAGS)

import jax

from vision.checkpoint.checksum import checksum
from vision.checkpoint.detached import Copies
from vision.checkpoint.evaluations import StepEvaluation, read_evaluations, write_evaluations
from vision.checkpoint.identity import check_identity, identity_of_run
from vision.checkpoint.manifest import (
    ITEM,
    CheckpointError,
    CheckpointManifest,
    DamagedError,
    NoValidCheckpointError,
)
from vision.checkpoint.quarantine import Quarantine
from vision.checkpoint.reading import (
    STATE,
    compare,
    complete,
    first_line,
    flatten,
    read,
    refused_by_file_system,
)
from vision.checkpoint.retention import BestCheckpoints
from vision.config.ranges import Positive, checked
from vision.parallel.cluster import agree, barrier, gather, is_main, raise_together

if TYPE_CHECKING:  # imported where they are used: see manifest_save
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as managers

    from vision.checkpoint.manifest_save import ManifestSave

Tree = Any
T = TypeVar("T")
log = logging.getLogger(__name__)

# Deleting begins with a rename into this folder, so that no half of a checkpoint stays behind.
_TRASH = "trash"


@dataclasses.dataclass(frozen=True)
@checked
class Checkpoints:
    """How often states are saved and which are kept.

    Attributes:
      every: distance in steps, epochs or examples; None for 1000 steps, or a tenth of the run
        where that is less.
      every_s: save as well when this many seconds have passed since the last save.
      keep: number of newest checkpoints kept.
      keep_every: keep every state at a multiple of this many steps for good; None for none.
      best: a metric of an evaluator such as ``test/top1``; the ``keep_best`` checkpoints best by
        it are kept as well, of those that were saved at a step at which it was measured.
      best_mode: whether the largest or the smallest value is best.
      keep_best: number of best checkpoints kept.
    """

    every: str | None = None
    every_s: Positive[float] = 600.0
    keep: Positive[int] = 2
    keep_every: Positive[int] | None = None
    best: str | None = None
    best_mode: Literal["max", "min"] = "max"
    keep_best: Positive[int] = 1


class CheckpointStore:
    """The checkpoints of one workdir. All processes of a run make one and call it alike."""

    def __init__(self, workdir: Path, options: Checkpoints):
        self.workdir = workdir.resolve()
        self.folder = self.workdir / "checkpoints"
        self._quarantine = Quarantine(workdir)
        self._run = identity_of_run(workdir)
        self._leader = is_main()
        self._emptying: threading.Thread | None = None
        self._copies = Copies()
        self._saves = 0
        self._reads = itertools.count()
        # Orbax starts a save with threads and files of its own, which take longer than the copy
        # of a state: with one process they need not be waited for.
        self._starter: concurrent.futures.ThreadPoolExecutor | None = None
        self._starting: concurrent.futures.Future[None] | None = None
        if jax.process_count() == 1:
            self._starter = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
            self._starter.submit(lambda: None)  # a thread is slow to start beside a training step
        if self._leader:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._empty_trash()
            self._quarantine.set_aside_unusable()
        barrier("checkpoints: looked through")
        from vision.checkpoint.orbax_internals import stop_leaks, write_small_arrays_whole

        stop_leaks()
        write_small_arrays_whole()
        self._manager = self._open(options)

    def _open(self, options: Checkpoints) -> ocp.CheckpointManager:
        import orbax.checkpoint as ocp

        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation_policy(self.folder, options),
                todelete_subdir=_TRASH,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], *, wait: bool = False) -> bool:
        """Saves ``state`` at ``step`` in the background; ``wait`` until it is on disk.

        The caller may donate ``state`` to its next step at once.

        Args:
          step: number of the checkpoint; a step that is there already is left as it is.
          state: tree of arrays.
          meta: JSON beside it.
          wait: return when the checkpoint is on disk.

        Returns:
          False where it is known already that the save failed; with ``wait``, whether it did. A
          failure is logged, at the next call where it comes later. The checkpoints that stand
          are kept, and training can go on.
        """
        from vision.checkpoint.manifest_save import ManifestSave

        self.finish_save()  # an earlier one, whose failure is not this one's
        try:
            if step not in self._manager.all_steps():
                arrays, detached = self._detached(flatten(state))
                self._saves += 1
                name = f"manifest/{step}/{self._saves}"
                manifest = ManifestSave.of(arrays, meta, name, step, self._run)
                if detached and self._starter and not wait:
                    self._starting = self._starter.submit(self._start, step, arrays, manifest)
                else:
                    self._start(step, arrays, manifest)
            if wait:
                self._manager.wait_until_finished()
            if self._starting is None:
                self._manager.check_for_errors()
        except Exception as error:  # orbax raises whatever the file system raised
            log.error(
                "checkpoint %d could not be written to %s: %s", step, self.folder, first_line(error)
            )
            self._start_over()
            return False
        return True

    def _start(self, step: int, arrays: dict[str, Any], manifest: ManifestSave) -> None:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(**{STATE: ocp.args.StandardSave(arrays), ITEM: manifest})
        try:
            self._manager.save(step, args=args, force=True)
            # Last, so that copying to the host does not wait for them.
            manifest.sums.set_result({name: checksum(x) for name, x in arrays.items()})
        finally:
            manifest.sums.cancel()  # no effect once they are there
        self._empty_trash_beside()

    def restore(self, abstract: T) -> tuple[T, dict[str, Any]] | None:
        """The newest valid state, laid out like ``abstract``, and its meta data.

        Waits for a save under way, which counts once it is complete. Every array is compared with
        its checksum. A checkpoint that fails is set aside, which is logged as a warning, and the
        one before it is used.

        Args:
          abstract: tree of ``jax.ShapeDtypeStruct``, with shardings.

        Returns:
          None when there is no valid checkpoint.

        Raises:
          CheckpointError: the newest checkpoint holds other arrays than ``abstract``: it belongs
            to another config; or the file system refuses to give it out.
          NoValidCheckpointError: there were checkpoints and none is valid.
        """
        self.finish_save()
        target = flatten(abstract)
        while (step := agree(max(complete(self.folder), default=-1))) >= 0:
            path, problem = self.folder / str(step), ""
            arrays: dict[str, Any] = {}
            manifest = self._read_manifest(path)
            if isinstance(manifest, DamagedError):
                manifest, problem = None, str(manifest)
            if not any(gather(problem)) and manifest is not None:
                compare(manifest.leaves, target, path)
                refused = None
                try:
                    arrays = read(path, target, manifest.stored_names)
                except Exception as error:
                    problem = f"unreadable ({first_line(error)})"
                    refused = refused_by_file_system(path)
                raise_together(refused)
                # Checksums of sharded arrays are made by all processes, or by none.
                if not any(gather(problem)):
                    if not (differing := manifest.differing(arrays)):
                        leaves = [arrays[name] for name in target]
                        self._stage(target)
                        state = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
                        return state, dict(manifest.meta)
                    problem = f"{', '.join(differing)} not what was saved"
            if self._leader:
                self._quarantine.set_aside(step, problem or "unreadable for another process")
            barrier(f"checkpoints: {step} set aside")
            self._manager.reload()
        if lost := agree(self._quarantine.checkpoints()):
            raise NoValidCheckpointError(
                f"{self.folder} holds no valid checkpoint, but had some: {', '.join(lost)} in "
                f"{self._quarantine.folder}. Put a good copy into {self.folder} to go on from it; "
                f"to begin at step 0, delete {self._quarantine.folder} or take another --workdir"
            )
        self._stage(target)
        return None

    def _read_manifest(self, path: Path) -> CheckpointManifest | DamagedError:
        """Raises CheckpointError on all processes where one of them cannot read it, or it is that
        of another step or run."""
        refused = None
        manifest: CheckpointManifest | DamagedError = DamagedError("")
        try:
            manifest = CheckpointManifest.read(path)
            check_identity(manifest, path, self.workdir)
        except DamagedError as error:
            manifest = error
        except CheckpointError as error:
            refused = error
        raise_together(refused)
        return manifest

    def evaluation(self, step: int) -> StepEvaluation | None:
        """What the evaluators due at a step gave; None where they have not all run.

        Evaluations of later steps are forgotten: a run that goes on from ``step`` makes them anew.
        """
        if self._leader:
            evaluations = read_evaluations(self.folder)
            kept = {number: row for number, row in evaluations.items() if number <= step}
            if kept != evaluations:
                write_evaluations(self.folder, kept)
        barrier(f"evaluations: read at {step}/{next(self._reads)}")
        return read_evaluations(self.folder).get(step)

    def set_evaluation(self, step: int, evaluation: StepEvaluation) -> None:
        """Notes what the evaluators due at a step gave, after it was saved."""
        if self._leader:
            evaluations = read_evaluations(self.folder)
            write_evaluations(self.folder, {**evaluations, step: evaluation})

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are complete or being written, oldest first."""
        self._settle()
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Waits for saves under way."""
        self._settle()
        if self._starter:
            self._starter.shutdown()
        try:
            self._manager.close()
        except Exception as error:  # of a save under way; it must not hide why the run ends
            log.error("a checkpoint could not be written to %s: %s", self.folder, first_line(error))
        if self._emptying:
            self._emptying.join()
        if self._leader:
            self._empty_trash()

    def finish_save(self) -> None:
        """Waits until no save is under way; logs the error of one that failed."""
        self._settle()
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # orbax raises whatever the file system raised
            log.error("a checkpoint could not be written to %s: %s", self.folder, first_line(error))
            self._start_over()

    def _settle(self) -> None:
        """Waits until the last save has been started; logs what went wrong with that."""
        starting, self._starting = self._starting, None
        try:
            if starting is not None:
                starting.result()
        except Exception as error:
            log.error("a checkpoint could not be written to %s: %s", self.folder, first_line(error))
            self._start_over()

    def _start_over(self) -> None:
        """After a failed save, whose error may hold on to the arrays it was given."""
        self._copies.forget()
        self._manager.reload()

    def _stage(self, target: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """On a CPU, gets the memory of ``_detached`` ready in the background."""
        if jax.default_backend() == "cpu":
            self._copies.prepare(target)

    def _detached(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Arrays that the next step of training does not touch, and whether they are copies.

        An accelerator's are copied to the host before ``save`` returns. A CPU's are read where
        they lie, and a step that would overwrite them waits until the save is over: hence copies.
        """
        on_cpu = all(
            isinstance(x, jax.Array) and next(iter(x.sharding.device_set)).platform == "cpu"
            for x in arrays.values()
        )
        return (self._copies.of(arrays), True) if on_cpu else (arrays, False)

    def _empty_trash(self) -> None:
        shutil.rmtree(self.folder / _TRASH, ignore_errors=True)

    def _empty_trash_beside(self) -> None:
        if not self._leader or (self._emptying and self._emptying.is_alive()):
            return
        waste = list((self.folder / _TRASH).glob("*"))
        self._emptying = threading.Thread(
            target=lambda: [shutil.rmtree(path, ignore_errors=True) for path in waste],
            name="empty checkpoint trash",
        )
        self._emptying.start()


def _preservation_policy(folder: Path, options: Checkpoints) -> managers.PreservationPolicy:
    """What Orbax asks which checkpoints in ``folder`` to keep."""
    from orbax.checkpoint import checkpoint_managers as managers

    policies: list[managers.PreservationPolicy] = [managers.LatestN(options.keep)]
    if options.keep_every:
        policies.append(managers.EveryNSteps(options.keep_every))
    if options.best:
        policies.append(BestCheckpoints(folder, options.best, options.best_mode, options.keep_best))
    return managers.AnyPreservationPolicy(policies)


if __name__ == "__main__":
    import sys

    from vision.checkpoint.commands import main

    sys.exit(main(sys.argv[1:]))
