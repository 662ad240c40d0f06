"""A replaced file is there whole or not at all, and on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vision.config.files import replace_file


def half_written(path: Path) -> None:
    with replace_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.json"
    with replace_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(KeyError):
        half_written(path)
    with pytest.raises(OSError), replace_file(path):
        pass  # nothing was written
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]
    with replace_file(path, unique=True) as one, replace_file(path, unique=True) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer one ended last


@pytest.mark.parametrize("sync", [True, False])
def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
):
    calls: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("name"), replace(a, b)))

    def noted(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with replace_file(tmp_path / "a.json", sync=sync) as temporary:
        temporary.write_text("x")
    assert calls == (["a.json.tmp", "name", tmp_path.name] if sync else ["name"])
