"""docs/clock.md: its table is the last run of bench.jobs, whose commands are those of the pages."""

from __future__ import annotations

import csv

from bench import jobs
from bench.common import RESULTS


def rows() -> list[dict[str, str]]:
    with (RESULTS / "jobs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_has_the_last_run():
    text = jobs.PAGE.read_text(encoding="utf-8")
    assert jobs.page_with(text, rows()) == text
    assert [row["job"] for row in rows()] == [job.name for job in jobs.JOBS]


def test_nothing_but_training_takes_ten_minutes():
    assert [row["job"] for row in rows() if row["trains"]]
    for row in rows():
        assert row["trains"] or float(row["cpu_s"]) < jobs.MOST_S, row["job"]


def test_the_commands_stand_in_the_pages():
    """A page that changes changes what is timed; a job that is in no page is an error."""
    for row, job in zip(rows(), jobs.JOBS, strict=True):
        text = jobs.text_of(job).strip()
        assert text.splitlines()[0] == row["command"].removesuffix(" ..."), job.name
