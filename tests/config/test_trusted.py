"""Workdirs from anybody: what their files name is not imported, and not called."""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from vision.config.config_files import ModuleError
from vision.config.errors import UserError
from vision.config.schema import ConfigError
from vision.config.trusted import check_constructors, check_modules
from vision.run.workdir import read_config
from vision.scenario.stages import run_folders


def workdir(folder: Path, node: dict[str, Any], modules: dict[str, Any] | None = None) -> Path:
    """A workdir whose config has ``node`` as its model."""
    folder.mkdir(exist_ok=True)
    config = {"_constructor": "vision.run.experiment.Experiment", "model": node}
    (folder / "config.json").write_text(json.dumps(config))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        ("os.system", "neither ours nor the config's own"),
        ("subprocess.Popen", "neither ours"),
        ("builtins.exec", "neither ours"),
        ("antigravity.fly_cat", "neither ours"),
        ("numpy.load", "neither ours"),
        ("cloudpickle.loads", "neither ours"),
        ("jax.numpy.load", "neither ours"),
        ("vision.run.workdir.write_text", "not called"),
        ("vision.config.specs.load", "not called"),
        ("vision.config.config_files.load", "not called"),
        ("vision.run.workdir.Path", "not called"),
        ("vision.run.workdir.os", "not called"),
        ("optax.linear_schedule", "not called"),
        ("vision.programs.launch.Launch", "not called"),
        ("vision.programs.launch._Set", "not called"),
        ("vision.run.log.RowFile", "not called"),
        ("vision.checkpoint.store.CheckpointStore", "not called"),
        ("antigravity.fly__at_00000000.cat", "no name that a config can have"),
    ],
)
def test_other_constructors_are_neither_imported_nor_called(tmp_path, constructor, message):
    touched = tmp_path / "touched"
    node = {"_constructor": constructor, "command": f"touch {touched}", "path": str(touched)}
    before = set(sys.modules)
    with pytest.raises(UserError, match=message) as error:
        read_config(workdir(tmp_path / "run", node))
    assert constructor in str(error.value)
    assert str(tmp_path / "run" / "config.json") in str(error.value)
    assert not touched.exists()
    assert not {"antigravity"} & (set(sys.modules) - before)


def test_a_module_in_the_workdir_is_not_found_by_its_name(tmp_path, monkeypatch):
    folder = workdir(tmp_path / "run", {"_constructor": "planted.Net"})
    (folder / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: ...\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ConfigError, match="allow_modules=planted"):
        read_config(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_above_the_workdir_gives_it_no_names(tmp_path, monkeypatch):
    """From a checkout ``workdirs/x/evil.py`` could be imported as ``workdirs.x.evil``."""
    (tmp_path / "workdirs").mkdir()
    folder = workdir(tmp_path / "workdirs" / "x", {"_constructor": "workdirs.x.evil.Net"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="allow_modules=workdirs"):
        read_config(folder)
    assert not (tmp_path / "ran").exists()


def test_modules_json_says_one_place(tmp_path):
    """What is run is the file that was checked, and not a package of that name elsewhere."""
    harmless = tmp_path / "evil.py"
    harmless.write_text("class Net: ...\n")
    package = tmp_path / "run" / "evil"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for file, place in ((harmless, package.parent), (Path("evil.py"), Path("."))):
        row = {"folder": str(place), "file": str(file), "sha256": "0"}
        folder = workdir(tmp_path / "run", {"_constructor": "evil.Net"}, {"evil": row})
        with pytest.raises(ModuleError, match=r"modules\.json of"):
            read_config(folder)
    assert not (tmp_path / "ran").exists()


def test_modules_json_cannot_name_installed_files(tmp_path):
    """Python's own ``os.py`` under another name would give ``popen``."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    row = {"folder": str(stdlib), "file": str(stdlib / "os.py"), "sha256": "0"}
    folder = workdir(tmp_path / "run", {"_constructor": "os.popen"}, {"os": row})
    with pytest.raises(ModuleError, match=r"os\.py as a module beside its config"):
        read_config(folder)
    inside = tmp_path / "run" / "evil.py"
    inside.write_text("class Net: ...\n")
    row = {"folder": str(inside.parent), "file": str(inside), "sha256": "0"}
    folder = workdir(tmp_path / "run", {"_constructor": "evil.Net"}, {"evil": row})
    with pytest.raises(UserError, match="lies in the workdir"):
        read_config(folder)


def test_what_configs_use_is_trusted(tmp_path):
    paths = [
        "vision.models.vit.ViT",
        "vision.train.optim.sgd",
        "vision.train.optim.adamw",
        "vision.data.ops.Decode",
        "vision.data.ops.simclr_views",
        "vision.blocks.attack_rules.fgsm",
        "papers.align.method.lamb",
        "papers.rad_dino.method.film_views",
        "papers.prefix_conditioning.method.prefixed",
        "optax.scale_by_adadelta",
    ]
    check_modules(paths, tmp_path)
    check_constructors(paths, tmp_path)


def test_the_user_can_allow_a_package(tmp_path):
    check_modules(["numpy.float32"], tmp_path, allow=["numpy"])
    check_constructors(["numpy.float32"], tmp_path, allow=["numpy"])
    with pytest.raises(ConfigError, match="numpyx"):
        check_modules(["numpyx.float32"], tmp_path, allow=["numpy"])


def test_a_cached_function_is_judged_by_what_it_returns(tmp_path):
    check_constructors(["configs.parts.small_dual.pairs", "configs.parts.drawn.records"], tmp_path)


def test_every_reader_of_a_workdir_passes_on_what_is_allowed(tmp_path):
    folder = workdir(tmp_path / "run", {"_constructor": "numpy.float32"})
    with pytest.raises(ConfigError, match="allow_modules=numpy"):
        run_folders(folder)
    assert run_folders(folder, ["numpy"]) == []
