"""Wall time of a run by activity, as a table with bars."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from vision.report.numbers import percent
from vision.report.page import share_bar, table
from vision.run.log import duration

PREFIX = "seconds/"
_MEANING = {
    "step": "the device computes an update",
    "data": "the device waits for a batch",
    "compile": "tracing and compiling the step",
    "start": "imports, opening data, building the model",
    "restore": "reading a checkpoint, or making the first state",
    "evaluate": "evaluators, while training",
    "checkpoint": "training waits for a save",
    "lost": "work after the last checkpoint, done again",
    "down": "no process ran",
}


def time_table(seconds: Mapping[str, float]) -> Markup:
    """Seconds by activity, the largest first; shares leave out the time when nothing ran."""
    running = sum(s for name, s in seconds.items() if name != "down")
    parts = sorted(seconds.items(), key=lambda item: (item[0] == "down", -item[1]))
    rows = [
        (
            name,
            duration(s),
            "" if name == "down" else percent(s / max(running, 1e-9)),
            "" if name == "down" else share_bar(s / max(running, 1e-9)),
            _MEANING.get(name, ""),
        )
        for name, s in parts
        if s >= 0.05 or name == "step"
    ]
    return table(
        ("activity", "time", "share", "", "what it is"),
        rows,
        caption="Wall time at the last checkpoint, summed over restarts.",
        numeric=(1, 2),
    )
