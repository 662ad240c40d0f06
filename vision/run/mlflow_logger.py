"""MLflow as a logger; the extra ``mlflow``."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.evaluate.figures import Figure, Table
from vision.run.loggers import LoggerError, Session, galleries, need, tables

_LONGEST = 500  # of a parameter's text, which every store of MLflow takes
_AT_ONCE = 100  # parameters in a request


@dataclasses.dataclass(frozen=True)
class MLflow:
    """Sends rows, pictures and tables to MLflow.

    The config's values become parameters; figures become artifacts,
    ``test/mistakes/00000450/*.png`` and ``test/confusion/00000450.csv``.

    Attributes:
      experiment: name of it, made where there is none.
      tracking_uri: of the server or store, such as ``http://host:5000`` or ``sqlite:///mlflow.db``
        (which needs SQLAlchemy and alembic); empty for what MLFLOW_TRACKING_URI says.
      name: of the run; empty for that of the workdir.
      artifact_location: folder or URI of the artifacts of an experiment that is made; empty for the
        store's own.
    """

    experiment: str
    tracking_uri: str = ""
    name: str = ""
    artifact_location: str = ""

    def check(self) -> None:
        """Raises ConfigError without the package."""
        need("mlflow", "mlflow")

    def open(
        self, workdir: Path, config: Mapping[str, Any], run_id: str | None
    ) -> tuple[Session, str]:
        """See ``vision.run.loggers.Logger``."""
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        where = self.tracking_uri or "MLFLOW_TRACKING_URI"
        try:
            client = MlflowClient(tracking_uri=self.tracking_uri or None)
            if run_id is not None:
                client.update_run(run_id, status="RUNNING")
                return _Run(client, run_id), run_id
            found = client.get_experiment_by_name(self.experiment)
            made = found.experiment_id if found else None
            if made is None:
                place = self.artifact_location or None
                made = client.create_experiment(self.experiment, artifact_location=place)
            run = client.create_run(made, run_name=self.name or workdir.resolve().name)
            run_id = str(run.info.run_id)
            params = [Param(key, text[:_LONGEST]) for key, text in flat(config).items()]
            for i in range(0, len(params), _AT_ONCE):
                client.log_batch(run_id, params=params[i : i + _AT_ONCE])
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise LoggerError(f"MLflow at {where} cannot be used: {said}") from error
        return _Run(client, run_id), run_id


class _Run:
    def __init__(self, client: Any, run_id: str):
        self._client, self._id = client, run_id

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        from PIL import Image

        for name, table in tables(figures).items():
            place = _allowed(f"{evaluator}/{name}/{step:08d}.csv")
            self._client.log_text(self._id, _csv(table), place)
        for name, gallery in galleries(figures).items():
            for i, item in enumerate(gallery.items):
                if item.png:
                    words = _allowed(f"{item.label}, said {item.prediction}").replace("/", "_")
                    place = _allowed(f"{evaluator}/{name}/{step:08d}/{i:03d} {words}.png")
                    self._client.log_image(self._id, Image.open(io.BytesIO(item.png)), place)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Path to text of every value of a config, in the characters that names may have."""
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        parts = [(f"{path}.{i}", item) for i, item in enumerate(value)]
    else:
        return {_allowed(path): value if isinstance(value, str) else json.dumps(value)}
    return {key: text for each, item in parts for key, text in flat(item, each).items()}


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()
