"""Whose a checkpoint is: the config and the seed of the run that saved it, beside its step.

A manifest carries them. What is read from a workdir is compared with the config that lies there and
with those that it held before and that were changed with ``--accept_config_change``, so that a
step of another run, put in by a copy or a rename, is refused and not trained on. Checkpoints from
before manifests carried them are read as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

from vision.checkpoint.manifest import CheckpointError, CheckpointManifest, RunIdentity
from vision.config.files import replace_file

CONFIG, EARLIER_CONFIGS = "config.json", "earlier_configs.json"
log = logging.getLogger(__name__)


def identity_of(text: str | bytes) -> RunIdentity:
    """The identity of the run with this ``config.json``."""
    data = text.encode() if isinstance(text, str) else text
    try:
        seed = json.loads(data).get("seed")
    except (ValueError, AttributeError):
        seed = None
    return RunIdentity(hashlib.sha256(data).hexdigest(), seed if isinstance(seed, int) else None)


def identity_of_run(workdir: Path) -> RunIdentity | None:
    """The identity of the run in a workdir; None without a config there."""
    try:
        return identity_of((workdir / CONFIG).read_bytes())
    except OSError:
        return None


def earlier_identities(workdir: Path) -> list[RunIdentity]:
    """Those of the configs that a workdir held before, oldest first."""
    path = workdir / EARLIER_CONFIGS
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [RunIdentity(str(row["config"]), row["seed"]) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s cannot be read (%s): only the present config counts", path, error)
        return []


def remember_earlier(workdir: Path, text: str | bytes) -> None:
    """Adds the config that ``config.json`` is about to lose.

    Raises:
      OSError: the file cannot be written.
    """
    rows = earlier_identities(workdir)
    if (identity := identity_of(text)) not in rows:
        rows.append(identity)
    path = workdir / EARLIER_CONFIGS
    plain = [dataclasses.asdict(row) for row in rows]
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def check_identity(
    manifest: CheckpointManifest, step_folder: Path, workdir: Path, *, strict: bool = True
) -> None:
    """Refuses a checkpoint that is not what its place in a workdir says.

    Args:
      manifest: of the checkpoint.
      step_folder: where it lies, ``checkpoints/<step>``.
      workdir: folder of the run.
      strict: whether another config is refused; otherwise it is logged. A config that was edited
        by hand for an evaluation is one.

    Raises:
      CheckpointError: another step, another run's seed, or (``strict``) another run's config; or
        the config that lies there is damaged.
    """
    if manifest.step is not None and str(manifest.step) != step_folder.name:
        raise CheckpointError(
            f"{step_folder} holds the checkpoint of step {manifest.step}: it was renamed or "
            "copied there. Give it its own number again, or move it out of the folder"
        )
    present = identity_of_run(workdir)
    if manifest.run is None or present is None:
        return
    known = [present, *earlier_identities(workdir)]
    if manifest.run.config != present.config and not _is_json(workdir / CONFIG):
        raise CheckpointError(
            f"{workdir / CONFIG} is damaged, so whose {step_folder} is cannot be told: put the "
            "config back that it was saved with"
        )
    way_out = f"move it out of {step_folder.parent}, where it does not belong"
    if manifest.run.seed not in [run.seed for run in known]:
        raise CheckpointError(
            f"{step_folder} is a checkpoint of another run: its seed is {manifest.run.seed}, that "
            f"in {workdir / CONFIG} {present.seed}; {way_out}"
        )
    if manifest.run.config not in [run.config for run in known]:
        problem = f"{step_folder} was saved with another config than {workdir / CONFIG}"
        if strict:
            raise CheckpointError(
                f"{problem}; {way_out}, or put the config back that it was saved with"
            )
        log.warning("%s", problem)
