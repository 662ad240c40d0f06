"""Config files with classes of their own, wherever they lie, and the workdirs made with them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vision.config import config_files, own_modules
from vision.config import specs as config
from vision.config.schema import ConfigError, public_path
from vision.run.workdir import MODULES, WorkdirError, open_workdir, read_config

ROOT = Path(__file__).resolve().parents[2]
NET = """
import dataclasses
{more}

@dataclasses.dataclass(frozen=True)
class Net:
    width: int = {width}
    name: str = "{name}"
"""
CONFIG = """
from vision.config.specs import spec
from {module} import Net

def get_config():
    return spec(Net{arguments})
"""


def write(folder: Path, width: int = 1, module: str = "mynet", arguments: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mynet.py").write_text(NET.format(width=width, name=folder.name, more=""))
    file = folder / "config.py"
    file.write_text(CONFIG.format(module=module, arguments=arguments))
    return file


def make(workdir: Path, node: Any, **options: Any) -> None:
    open_workdir(workdir, node, **options).__exit__(None, None, None)


def in_a_new_process(*workdirs: Path) -> str:
    """What ``build(read_config(workdir))`` is to a process that never saw the config files, a line
    for each; or its error."""
    code = (
        "import sys; from pathlib import Path\n"
        "from vision.config import specs as config\n"
        "from vision.run.workdir import read_config\n"
        "for each in sys.argv[1:]: print(config.build(read_config(Path(each))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, workdirs)],
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
    )
    return ran.stdout.strip() if ran.returncode == 0 else ran.stderr.strip()


def test_a_class_in_the_config_file_itself(tmp_path: Path):
    file = tmp_path / "one-file.py"
    text = NET.format(width=3, name="own", more="from vision.config.specs import spec")
    file.write_text(
        "from __future__ import annotations\n" + text + "\ndef get_config(): return spec(Net)\n"
    )
    node = config.load(str(file))
    built = config.build(node)
    assert (built.width, built.name) == (3, "own")
    assert config.to_plain(node)["_constructor"] == "one_file.Net"
    make(tmp_path / "w", node)
    assert (
        json.loads((tmp_path / "w" / "config.json").read_text())["_constructor"] == "one_file.Net"
    )
    row = json.loads((tmp_path / "w" / MODULES).read_text())["one_file"]
    assert row["file"] == str(file)
    assert row["sha256"] == own_modules.digest(file)
    assert config.build(read_config(tmp_path / "w")) == built
    assert in_a_new_process(tmp_path / "w") == "Net(width=3, name='own')"


def test_a_changed_bit_of_modules_json_is_named(tmp_path: Path):
    make(tmp_path / "w", config.load(str(write(tmp_path / "a"))))
    path = tmp_path / "w" / MODULES
    for changed in (
        path.read_text().replace('"sha256": "', '"sha256": "0'),
        path.read_text().replace('"folder"', '"fnlder"'),
        json.dumps({"one_file": {"folder": "a"}}),  # of before it had a checksum
        "{",
    ):
        path.write_text(changed)
        with pytest.raises(WorkdirError, match=r"modules.json is damaged .* delete it and run"):
            read_config(tmp_path / "w")


def test_two_folders_with_modules_of_one_name(tmp_path: Path):
    a, b = (config.load(str(write(tmp_path / x, width=i))) for i, x in enumerate("ab"))
    made = [config.build(node) for node in (a, b)]
    assert [each.name for each in made] == ["a", "b"]
    assert [each.width for each in made] == [0, 1]
    make(tmp_path / "wa", a)
    make(tmp_path / "wb", b)
    again = [config.build(read_config(tmp_path / w)) for w in ("wa", "wb")]
    assert again == made


def test_a_package_beside_the_config_and_imports_inside_it(tmp_path: Path):
    package = tmp_path / "nets"
    package.mkdir()
    (package / "sizes.py").write_text("from scale import TIMES\nWIDTH = TIMES * 7\n")
    (tmp_path / "scale.py").write_text("TIMES = 1\n")
    more = "from nets.sizes import WIDTH\nfrom .sizes import WIDTH as same\nassert same == 7\n"
    (package / "small.py").write_text(NET.format(width="WIDTH", name="nets", more=more))
    file = tmp_path / "config.py"
    file.write_text(CONFIG.format(module="nets.small", arguments=""))
    node = config.load(str(file))
    assert config.build(node).width == 7
    make(tmp_path / "w", node)
    assert set(json.loads((tmp_path / "w" / MODULES).read_text())) == {
        "nets.small",
        "nets.sizes",
        "scale",
        "_crc32",
    }
    assert in_a_new_process(tmp_path / "w") == "Net(width=7, name='nets')"


def test_a_folder_that_is_a_package(tmp_path: Path):
    workdirs = []
    for number, module in enumerate(("mynet", ".mynet", "paper.mynet")):
        place = tmp_path / str(number)
        file = write(place / "paper", width=number, module=module)
        (file.parent / "__init__.py").write_text("")
        node = config.load(str(file))
        assert config.to_plain(node)["_constructor"] == "paper.mynet.Net"
        workdirs.append(place / "w")
        make(workdirs[-1], node)
    lines = in_a_new_process(*workdirs).splitlines()
    assert lines == [f"Net(width={number}, name='paper')" for number in range(3)]


def test_a_changed_neighbour_is_read_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = write(tmp_path / "exp", width=1)
    make(tmp_path / "w", config.load(str(file), {"width": "1"}))
    write(tmp_path / "exp", width=22)
    node = config.load(str(file), {"width": "1"})
    assert config.build(config.load(str(file))).width == 22
    with caplog.at_level(logging.WARNING):
        make(tmp_path / "w", node)
    assert "mynet.py is not what it was" in caplog.text
    write(tmp_path / "exp", width=333)
    assert "mynet.py has changed since" in subprocess_stderr(tmp_path / "w")


def subprocess_stderr(workdir: Path) -> str:
    code = "import sys; from pathlib import Path; from vision.run.workdir import read_config; "
    code += "read_config(Path(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(workdir)], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def test_a_module_that_is_gone_is_named(tmp_path: Path):
    file = write(tmp_path / "exp")
    make(tmp_path / "w", config.load(str(file)))
    (tmp_path / "exp").rename(tmp_path / "moved")
    said = in_a_new_process(tmp_path / "w")
    assert f"{tmp_path}/exp/mynet.py and is gone; put it back" in said
    # Training goes on with the config at its new place, and evaluation then finds it there.
    make(tmp_path / "w", config.load(str(tmp_path / "moved" / "config.py")))
    assert in_a_new_process(tmp_path / "w") == "Net(width=1, name='exp')"


def test_nothing_in_a_workdir_is_run(tmp_path: Path):
    inside = write(tmp_path / "w" / "exp")
    with pytest.raises(WorkdirError, match="no program is run from there"):
        make(tmp_path / "w", config.load(str(inside)))
    make(tmp_path / "v", config.load(str(write(tmp_path / "exp"))))
    evil = tmp_path / "v" / "mynet.py"
    evil.write_text("raise SystemExit('run')\n")
    row = {"folder": str(evil.parent), "file": str(evil), "sha256": own_modules.digest(evil)}
    (tmp_path / "v" / MODULES).write_text(json.dumps({"mynet": row}))
    with pytest.raises(config_files.ModuleError, match="no program is run from there"):
        read_config(tmp_path / "v")


def test_one_name_from_two_folders_in_one_config_is_refused(tmp_path: Path):
    other = write(tmp_path / "b")
    file = write(tmp_path / "a")
    file.write_text(
        "from vision.config.specs import load, spec\nimport dataclasses\nfrom typing import Any\n"
        "from mynet import Net\n@dataclasses.dataclass\nclass Both:\n    x: Any\n    y: Any\n"
        f"def get_config():\n    other = load({str(other)!r})\n    from mynet import Net as same\n"
        "    assert same is Net\n    return spec(Both, x=spec(Net), y=other)\n"
    )
    node = config.load(str(file))
    assert [config.build(node).x.name, config.build(node).y.name] == ["a", "b"]
    with pytest.raises(WorkdirError, match="both called mynet"):
        make(tmp_path / "w", node)


def test_a_workdir_without_modules_of_its_own_has_no_file_for_them(tmp_path: Path):
    node = config.load(str(ROOT / "configs" / "digits_vit.py"))
    make(tmp_path, node)
    assert not (tmp_path / MODULES).exists()


def test_an_error_in_a_config_file_names_its_line(tmp_path: Path):
    file = tmp_path / "broken.py"
    file.write_text("import mynet\n")
    with pytest.raises(ConfigError, match=r"broken.py:1: ModuleNotFoundError"):
        config.load(str(file))
    (tmp_path / "mynet.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"no function get_config"):
        config.load(str(file))


def test_local_classes_are_refused():
    class Local:
        pass

    with pytest.raises(ConfigError, match="not importable"):
        public_path(Local)


@pytest.mark.slow
def test_worker_processes_run_ops_of_a_config_file(tmp_path: Path):
    (tmp_path / "helper.py").write_text("def half(image):\n    return image // 2\n")
    file = tmp_path / "config.py"
    file.write_text(
        "import dataclasses\nimport helper\nimport vision as v\nfrom vision import spec\n"
        "@dataclasses.dataclass(frozen=True)\nclass Half:\n"
        "    def __call__(self, example, rng):\n"
        "        return {**example, 'image': helper.half(example['image'])}\n"
        "def get_config(workers: int = 0):\n"
        "    source = spec(v.Digits, split='train')\n"
        "    return spec(v.TrainData, source=source, batch_size=4, ops=[spec(Half)],\n"
        "                workers=workers, threads=1)\n"
    )
    images = []
    for reference in (str(file), f"{file}:workers=1"):
        data = config.build(config.load(reference))
        loader = data.loader(seed=0, first_batch=0, process_index=0, process_count=1)
        images.append(next(loader)["image"])
        loader.close()
    assert images[0].max() > 0
    assert (images[0] == images[1]).all()
