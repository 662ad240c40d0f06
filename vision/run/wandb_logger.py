"""Weights & Biases as a logger; the extra ``wandb``."""

from __future__ import annotations

import dataclasses
import io
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vision.evaluate.figures import Figure
from vision.run.loggers import LoggerError, Session, caption, galleries, need, tables


@dataclasses.dataclass(frozen=True)
class Wandb:
    """Sends rows, pictures and tables to Weights & Biases.

    Who is logged in, and where the server is, are matters of ``wandb login`` and its environment
    variables. Offline runs lie in ``wandb`` in the workdir; ``wandb sync`` sends them.

    Attributes:
      project: name of it.
      name: of the run; empty for that of the workdir.
      entity: team or user; empty for the default one.
      group: that the run is shown in; empty for none.
      mode: ``offline`` writes files only. A WANDB_MODE in the environment goes before it.
    """

    project: str
    name: str = ""
    entity: str = ""
    group: str = ""
    mode: Literal["online", "offline"] = "online"

    def check(self) -> None:
        """Raises ConfigError without the package."""
        need("wandb", "wandb")

    def open(
        self, workdir: Path, config: Mapping[str, Any], run_id: str | None
    ) -> tuple[Session, str]:
        """See ``vision.run.loggers.Logger``."""
        import os

        import wandb  # pyright: ignore[reportMissingImports]

        run_id = run_id or uuid.uuid4().hex[:8]
        try:
            run = wandb.init(
                project=self.project,
                name=self.name or workdir.resolve().name,
                entity=self.entity or None,
                group=self.group or None,
                id=run_id,
                resume="allow",
                dir=str(workdir),
                mode=os.environ.get("WANDB_MODE", self.mode),  # type: ignore[arg-type]
                config=dict(config),
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise LoggerError(
                f"Weights & Biases cannot be reached: {said}; log in, or "
                "--config.loggers[0].mode=offline"
            ) from error
        # The run's own count of steps; that of wandb counts calls and cannot go back.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return _Run(wandb, run), run_id


class _Run:
    def __init__(self, wandb: Any, run: Any):
        self._wandb, self._run = wandb, run

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        from PIL import Image

        row: dict[str, Any] = {}
        for name, figure in tables(figures).items():
            data = [list(cells) for cells in figure.rows]
            row[f"{evaluator}/{name}"] = self._wandb.Table(columns=list(figure.columns), data=data)
        for name, gallery in galleries(figures).items():
            row[f"{evaluator}/{name}"] = [
                self._wandb.Image(
                    Image.open(io.BytesIO(item.png)),
                    caption=f"{item.key}: {caption(item.label, item.prediction, item.score)}",
                )
                for item in gallery.items
                if item.png
            ]
        if row:
            self._run.log({"step": step, **row})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
