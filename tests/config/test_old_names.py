"""Old workdirs: one table says what constructors and parameters are called today."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from vision.config import old_names
from vision.config.schema import ConfigError
from vision.config.specs import build, spec, to_json
from vision.run.workdir import open_workdir, read_config


@dataclasses.dataclass(frozen=True)
class Kept:
    extra_state: int = 0
    width: int = 4
    part: Any = None


HERE = Kept.__module__


def imports(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), name)
    return True


def test_every_right_side_is_a_name_of_today():
    for _, new in old_names.PATHS:
        assert imports(new), new
        assert old_names.current_path(new) == new
    for place, old, new in old_names.PARAMETERS:
        assert imports(place), place
        assert old != new


def test_the_longest_line_counts_and_only_whole_names(monkeypatch: pytest.MonkeyPatch):
    lines = (("v.core", "v.train"), ("v.core.schema", "v.config.schema"), ("v.core.a.B", "v.b.C"))
    monkeypatch.setattr(old_names, "PATHS", lines)
    assert old_names.current_path("v.core.step.Step") == "v.train.step.Step"
    assert old_names.current_path("v.core.schema.fits") == "v.config.schema.fits"
    assert old_names.current_path("v.core.a.B") == "v.b.C"
    assert old_names.current_path("v.core.a.Bs") == "v.train.a.Bs"
    assert old_names.current_path("v.core_x.y") == "v.core_x.y"


def test_a_workdir_with_old_names_is_read_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(old_names, "PATHS", (("old.room.Was", f"{HERE}.Kept"),))
    lines = ((HERE, "slots", "extra_state"), (f"{HERE}.Kept", "every", None))
    monkeypatch.setattr(old_names, "PARAMETERS", lines)
    inner = {"_constructor": "old.room.Was", "slots": 3, "every": "2 epochs"}
    old = {"_constructor": "old.room.Was", "slots": 2, "part": inner}
    (tmp_path / "config.json").write_text(json.dumps(old))
    node = read_config(tmp_path)
    assert build(node) == Kept(extra_state=2, part=Kept(extra_state=3))
    today = spec(Kept, extra_state=2, part=spec(Kept, extra_state=3))
    with open_workdir(tmp_path, today):
        pass
    assert (tmp_path / "config.json").read_text() == to_json(today)


def test_a_parameter_that_is_gone_is_read_at_the_value_that_today_still_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(old_names, "DROPPED", ((f"{HERE}.Kept", "gated", False),))
    path = tmp_path / "config.json"
    stored = {"_constructor": f"{HERE}.Kept", "width": 8, "gated": False}
    path.write_text(json.dumps(stored))
    assert build(read_config(tmp_path)) == Kept(width=8)
    path.write_text(json.dumps({**stored, "gated": True}))
    with pytest.raises(ConfigError, match=r"Kept had gated=True .* use the version of the code"):
        read_config(tmp_path)


def test_every_dropped_parameter_is_gone():
    for place, name, _ in old_names.DROPPED:
        assert imports(place), place
        module, _, attribute = place.rpartition(".")
        constructor = getattr(importlib.import_module(module), attribute)
        if inspect.isclass(constructor):
            assert name not in inspect.signature(constructor).parameters, (place, name)
