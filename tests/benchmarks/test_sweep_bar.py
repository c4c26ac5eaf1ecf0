"""The progress bar of a run: what it says, and what is left of it on a narrow terminal."""

import os
import re
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from benchmarks.sweep_bar import SweepBar


@dataclass(frozen=True)
class LongCell:
    number: int

    @property
    def title(self):
        return f"mixture-small, fl-subtb, back-and-forth, seed {self.number}"


TASK = SimpleNamespace(
    cells=[LongCell(number) for number in range(4)], num_updates=10_000, shown_metrics=()
)

METRICS = {"total_variation": 0.25, "jensen_shannon": 0.125, "forward_kl": 3.0, "elbo": -7.0}


@pytest.fixture
def drawn(capfd, monkeypatch):
    """Draws a bar as wide as is asked for; returns the states that it has been in."""

    def draw(columns, steps, finished=0):
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
        with SweepBar(TASK, finished) as bar:
            steps(bar)
        return capfd.readouterr().err.replace("\n", "\r").split("\r")

    return draw


def two_failures(bar):
    bar.show(0, 2500, METRICS)
    bar.fail(1, "loss became nan")
    bar.show(2, 5000, METRICS)
    bar.fail(2, "loss became inf")
    bar.show(0, 5000, METRICS)


def test_failed_cells_are_named_and_counted(drawn):
    lines = drawn(300, two_failures)
    assert f"{TASK.cells[1].title}: loss became nan" in [line.strip() for line in lines]
    assert not any("failed" in line for line in lines[:2])
    assert any(", 1 failed] " in line for line in lines)
    assert ", 2 failed] " in lines[-2]


def test_failed_cells_are_no_longer_waited_for(drawn):
    lines = drawn(300, two_failures)
    counts = [tuple(map(int, found)) for found in re.findall(r"(\d+)/(\d+) \[", "\n".join(lines))]
    assert counts[0] == (0, 40_000)
    assert (2500, 30_000) in counts  # the second cell is gone
    assert (7500, 25_000) in counts  # and half of the third
    assert counts[-1] == (10_000, 25_000)


def test_the_time_left_and_the_failures_fit_into_80_columns(drawn):
    lines = [line for line in drawn(80, two_failures) if "update/s" in line]
    assert max(map(len, lines)) <= 80
    assert re.match(
        r" 40%\|.{10}\| 10000/25000 \[00:0\d<00:0\d, .*update/s, 2 failed\] mix", lines[-1]
    )


def test_a_wide_terminal_shows_the_cell_and_its_first_metrics(drawn):
    lines = drawn(300, two_failures)
    shown = "total_variation=0.2500, jensen_shannon=0.1250, forward_kl=3.0000"
    assert any(line.rstrip().endswith(f"] {TASK.cells[0].title}, {shown}") for line in lines)


def test_metrics_that_a_task_names_are_shown_and_stay_until_they_are_measured_again(
    drawn, monkeypatch
):
    def steps(bar):
        bar.show(0, 100, {"loss": 2.0, "elbo": -9.0})
        bar.show(0, 200, {"loss": 1.0, "elbo": -8.0, "nll": 7.0, "below": 3.0})
        bar.show(1, 300, {"loss": 4.0})
        bar.show(0, 3000, {"loss": 0.5, "elbo": -7.5})

    monkeypatch.setattr(TASK, "shown_metrics", ("loss", "nll", "below"))
    last = drawn(300, steps)[-2].rstrip()
    assert last.endswith(f"] {TASK.cells[0].title}, loss=0.5000, nll=7.0000, below=3.0000")


def test_finished_cells_and_cells_begun_again_count_once(drawn):
    def steps(bar):
        bar.show(1, 8000, {})
        bar.show(1, 4000, {})  # from its last checkpoint

    assert "14000/40000 [" in drawn(300, steps, finished=1)[-2]


def test_a_run_of_which_every_cell_fails_has_a_bar_too(drawn):
    def steps(bar):
        for job in range(4):
            bar.fail(job, "no")

    assert ", 4 failed]" in drawn(80, steps)[-2]
