"""Each job of the documents with a clock: their own commands, as a newcomer runs them.

    python -m bench.jobs [--only=WORD]

The commands are read from the pages, in a new folder with the checkout beside it, each in a process
of its own, without programs compiled before. What is changed in them is in the table: lengths of
trainings, since nothing else may take long, and names of folders. ``wall_s`` is what a person
waits, on a machine whose cores other programs use, too; ``cpu_s`` is what the command and its
processes take of them, which depends on that far less. A command that fails is a failure here.

Written to bench/results/jobs.csv and into docs/clock.md. With ``--only`` nothing is written.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import RESULTS, record

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "clock.md"
BEGIN, END = "<!-- clock: written by bench.jobs -->", "<!-- clock: end -->"
BESIDE = ("configs", "papers", "vision", "zoo", "train.py", "evaluate.py")
MOST_S = 600.0  # of processor time, of anything but a training
SHORT = {
    '"20 epochs"': '"2 epochs"',
    "--config=digits_vit": "--config=digits_vit --config.total='60 steps' "
    "--config.optimizer.schedule.warmup='5 steps'",
}
PROGRAMS = {
    "vision-train": "python train.py",
    "vision-evaluate": "python evaluate.py",
    "vision-predict": "python -m vision.predict",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command of a page.

    Attributes:
      name: of the job, as a person would say it.
      page: in ``docs``, without its ending.
      has: text of the command, or of the block of Python, that finds it.
      changes: what stands in the page to what is run instead.
      trains: whether most of it is a training.
      folder: that it is run in, below the job's own; for files of one's own.
    """

    name: str
    page: str
    has: str
    changes: tuple[tuple[str, str], ...] = ()
    trains: bool = False
    folder: str = ""


def _to(*pairs: str) -> tuple[tuple[str, str], ...]:
    return tuple(zip(pairs[::2], pairs[1::2], strict=True))


MINE = _to("images/ ", '"images/digit 3" ')
LINES = (*MINE, *_to("all.parquet", "all.jsonl"))
PUBLISHED = (*MINE, *_to("exported/", "published"))
PETS = (*MINE, *_to("open_clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "zoo:emoji_clip"))
X = _to("workdirs/x", "workdirs/mine")
IMAGE = _to("image.jpg", '"images/digit 3/0003.png"')
DEEPER = _to("workdirs/mine", "workdirs/deeper", "depth=4", "depth=2")
PAIR = _to("workdirs/a,workdirs/b,workdirs/c", "workdirs/mine,workdirs/deeper")
TWO = _to("workdirs/lr", "workdirs/grid", "1e-3,3e-3 --grid seed=0,1,2", "1e-3,3e-3")
SEARCH = _to("--trials=20", "--trials=3", '"5 epochs"', "'20 steps'")
TUNED = _to("workdirs/mine", "workdirs/tuned", "py:images", "py:images --config.total='40 steps'")
FEW = "--config.total='10 steps' --config.optimizer.schedule.warmup='2 steps'"
JOBS = (
    Job("images as folders", "tutorial", "load_digits"),
    Job("a look at the data", "tutorial", "vision.report.dataset"),
    Job("train on a folder", "tutorial", "train.py", trains=True),
    Job("evaluate, with its page", "tutorial", "python evaluate.py"),
    Job("predict, CSV", "tutorial", "vision.predict"),
    Job("predict, Parquet, every class", "predict", "all.parquet", MINE),
    Job("predict, JSON lines", "predict", "all.parquet", LINES),
    Job("embeddings", "predict", "--embeddings", MINE),
    Job("the Python API", "tutorial", "vision.load"),
    Job("export for timm", "tutorial", "--to=timm"),
    Job("predict from these weights", "predict", "--model=exported/", PUBLISHED),
    Job("zero-shot, by names", "predict", "open_clip:", PETS),
    Job("export as StableHLO", "export", "--stablehlo", X),
    Job("run the exported program", "export", "serve_artefact", IMAGE),
    Job("export as ONNX", "export", "--onnx", X),
    Job("explain own images", "tutorial", "vision.report.explain"),
    Job("serve: start, curl, page", "serve", "--workdir=workdirs/mine"),
    Job("train a second run", "tutorial", "train.py", DEEPER, trains=True),
    Job("compare two runs", "evaluation", "--compare", PAIR),
    Job("sweep, a grid of two", "sweep", "optimizer.learning_rate=1e-3", TWO, trains=True),
    Job("search, three trials of Optuna", "sweep", "--trials=20", SEARCH, trains=True),
    Job("fine-tune ImageNet weights", "finetuning", "finetune_folder.py", TUNED, trains=True),
    Job("own table of labels", "data", "own_table:labels", trains=True),
    Job("own pairs of image and text", "data", "own_pairs:pairs.csv", trains=True),
    Job("own code: train", "add_your_own", "vision-train", trains=True, folder="research"),
    Job("own code: evaluate", "add_your_own", "vision-evaluate", folder="research"),
    Job("own code: predict", "add_your_own", "vision-predict", folder="research"),
    Job("catalog", "clock", "vision.catalog"),
    Job("help of a config", "clock", "folder_vit --help"),
    Job("help of a program", "clock", "vision.predict --help"),
)


def text_of(job: Job) -> str:
    """What is run: a line of the shell, or Python."""
    page = (ROOT / "docs" / f"{job.page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", page, re.M | re.S)
    for language, block in blocks:
        lines = [block] if language == "python" else block.replace("\\\n", " ").splitlines()
        for line in lines:
            if job.has in line and not line.startswith("#"):
                return _changed(job, line if language == "python" else line.partition("  #")[0])
    # A cell of a table: --config of a training on one's own files.
    cell = re.search(rf"`({re.escape(job.has)}[^`]*)`", page)
    if cell is None:
        raise SystemExit(f"docs/{job.page}.md has no command with {job.has!r}")
    name = job.name.replace(" ", "_")
    return f"python train.py --config={cell[1]} --workdir=workdirs/{name} {FEW}"


def _changed(job: Job, text: str) -> str:
    for before, after in job.changes:
        assert before in text, f"{job.name}: {before!r} is not in {text!r}"
        text = text.replace(before, after)
    for before, after in (*SHORT.items(), *PROGRAMS.items()):
        text = text.replace(before, after)
    return " ".join(text.split()) if "\n" not in text.strip() else text


def lay_out(folder: Path) -> None:
    """The checkout's files beside each other, and files of one's own for tables and code."""
    for name in BESIDE:
        (folder / name).symlink_to(ROOT / name)
    (folder / "research").mkdir()
    page = (ROOT / "docs" / "add_your_own.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page, re.M | re.S):
        (folder / "research" / name).write_text(text)
    for name in ("train.py", "evaluate.py"):
        (folder / "research" / name).symlink_to(ROOT / name)


def tables(folder: Path) -> None:
    """Tables of the images that the first job wrote."""
    from PIL import Image

    files = sorted((folder / "images").rglob("*.png"))[::6]
    with (
        (folder / "labels.csv").open("w", newline="") as labels,
        (folder / "pairs.csv").open("w", newline="") as pairs,
    ):
        csv.writer(labels).writerows(
            [("image", "label"), *((f.relative_to(folder), f.parent.name) for f in files)]
        )
        csv.writer(pairs).writerows(
            [
                ("image", "caption"),
                *((f.relative_to(folder), f"a written {f.parent.name}") for f in files),
            ]
        )
    Image.open(files[0]).convert("L").resize((8, 8)).save(folder / "research" / "stripe.png")


def run(job: Job, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs a job; a row of the table."""
    text = text_of(job)
    where = folder / job.folder if job.folder else folder
    runnable = re.sub(r"(^|&& )python\b", rf"\1{sys.executable}", text)
    command = [sys.executable, "-c", text] if "import " in text else ["bash", "-ec", runnable]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if "vision.serve" in text:
        said = served(runnable, where, environment)
    else:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
        said = "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if said:
        raise SystemExit(f"{job.name}: {text}\n{said}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shown = text.strip().splitlines()[0] + (" ..." if "\n" in text.strip() else "")
    row = {
        "job": job.name,
        "page": job.page,
        "command": shown,
        "trains": "yes" if job.trains else "",
    }
    return row | {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}


def served(text: str, where: Path, environment: dict[str, str]) -> str:
    """Starts the server, asks it as the page's curl does, and opens its page; what went wrong."""
    server = subprocess.Popen(
        ["bash", "-c", f"exec {text} --port=0"], cwd=where, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    watch = threading.Timer(MOST_S, server.kill)
    watch.start()
    try:
        assert server.stdout is not None
        said = ""
        while not (found := re.search(r"http://[\w.:]+", said)):
            if not (line := server.stdout.readline()):
                return said
            said += line
        picture = next((where / "images" / "digit 5").iterdir())
        for path in ("predict?top=3", "explain"):
            asked = [
                "curl",
                "-sf",
                "-H",
                "Content-Type: image/png",
                "--data-binary",
                f"@{picture}",
                f"{found[0]}/api/{path}",
            ]
            answer = subprocess.run(asked, capture_output=True, text=True, check=False)
            if answer.returncode or "error" in json.loads(answer.stdout):
                return f"{path}: {answer.returncode} {answer.stdout[:500]}"
        with urllib.request.urlopen(found[0], timeout=60) as page:
            return "" if b"<html" in page.read() else "no page"
    finally:
        watch.cancel()
        server.terminate()
        server.wait()


def page_with(text: str, rows: Sequence[dict[str, Any]]) -> str:
    """The page with a table of these rows between its marks."""
    lines = ["| job | command | seconds waited | of a processor |", "| --- | --- | ---: | ---: |"]
    for row in rows:
        command = str(row["command"]).replace("|", "\\|")
        trains = ", trains" if row["trains"] else ""
        where = f"{row['job']} ([page]({row['page']}.md){trains})"
        seconds = " | ".join(f"{float(row[key]):.0f}" for key in ("wall_s", "cpu_s"))
        lines.append(f"| {where} | `{command}` | {seconds} |")
    before, _, rest = text.partition(BEGIN)
    return "\n".join([before + BEGIN, "", *lines, "", END + rest.partition(END)[2]])


def main(arguments: list[str]) -> int:
    """Runs all jobs in their order; returns the exit status."""
    only = next((x.partition("=")[2] for x in arguments if x.startswith("--only=")), "")
    hidden = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    environment = {k: x for k, x in os.environ.items() if k not in hidden}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder)
        environment["PYTHONPATH"] = str(folder)
        for job in JOBS:
            if only and only not in job.name and not job.has.startswith("load_digits"):
                continue
            rows.append(run(job, folder, environment))
            print(json.dumps(rows[-1]), flush=True)
            if job.has == "load_digits":
                tables(folder)
    if only:
        return 0
    record("jobs", rows)
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    slow = [row["job"] for row in rows if not row["trains"] and row["cpu_s"] > MOST_S]
    print(f"longer than ten minutes: {', '.join(slow) or 'none'}; {RESULTS}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
