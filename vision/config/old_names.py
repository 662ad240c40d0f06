"""Names that stand in old workdirs, and what they are called today.

Workdirs keep the import paths and the parameters of constructors, and checkpoints the names of
arrays. When code moves, or a parameter or an array gets another name, a line here keeps what was
written before readable and resumable; nothing else in the code knows old names. The right side is
always today's name: when it changes again, change it here too, in the same line
(``tests/config/test_old_names.py`` imports every constructor).
"""

from __future__ import annotations

# (old, new): a package, a module, or something in one, with all that lies below it.
PATHS: tuple[tuple[str, str], ...] = ()

# (constructors, old, new): a parameter of whatever lies at or below a path of today. None: it is
# gone, and what it said is not read.
PARAMETERS: tuple[tuple[str, str, str | None], ...] = (
    ("vision.run.experiment.Experiment", "batch_form", "batch_shapes"),
)

# (old, new): an array of a checkpoint, or the beginning of the names of several, up to a dot.
ARRAYS: tuple[tuple[str, str], ...] = (("slots", "extra_state"),)


def current_path(path: str) -> str:
    """Today's path of a constructor; of several lines that fit, the longest counts."""
    for old, new in sorted(PATHS, key=lambda line: -len(line[0])):
        if _below(path, old):
            return new + path[len(old) :]
    return path


def current_parameter(constructor: str, name: str) -> str | None:
    """Today's name of a parameter of a constructor (its path of today); None when it is gone."""
    for place, old, new in sorted(PARAMETERS, key=lambda line: -len(line[0])):
        if old == name and _below(constructor, place):
            return new
    return name


def current_array(name: str) -> str:
    """Today's name of an array such as ``params.model.head.kernel``."""
    for old, new in ARRAYS:
        if _below(name, old):
            return new + name[len(old) :]
    return name


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + ".")
