"""`gfnem report` of an EM suite: gaps in nats, paired by seed, and what policies have learned."""

import dataclasses
import functools
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from benchmarks.em import document
from benchmarks.em.contest import CONTEST, ROUNDING
from benchmarks.em.suite import EMSuite
from benchmarks.em.sweep import EMCell, Options
from benchmarks.report import learning_curves
from benchmarks.report.against import compare
from benchmarks.report.command import write_report
from benchmarks.report.glance import at_a_glance
from benchmarks.report.numbers import significant
from benchmarks.report.ranking import placings, standings
from benchmarks.report.ranking_tables import metrics_table, ranking_table
from benchmarks.report.results import from_json, read, to_json
from benchmarks.run_folder import RunFolder
from benchmarks.runner import run_task, start_run
from tests.benchmarks.reports import EMPTY, run_report
from tests.benchmarks.reports import combination as made_up

pytestmark = pytest.mark.xdist_group("em_report")  # they share a run

GRID = {
    "tasks": ("mixture-tiny", "sbn-tiny"),
    "methods": ("exact-em", "monte-carlo-em", "gflownet-em"), "seeds": 3, "iterations": 4,
    "every": 2, "points": 40, "test_points": 30, "e_updates": 2, "first_e_updates": 3,
}  # fmt: skip


def carry_out(path, **options):
    suite = EMSuite(Options(**options))
    run_task(suite, start_run("em", suite, path))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run; nobody writes into it."""
    return carry_out(tmp_path_factory.mktemp("whole") / "run", **GRID)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it that a test may spoil."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def real_pictures():
    """Asked for by the tests that look at pictures: drawing them is most of a report's time."""


@pytest.fixture(autouse=True)
def empty_pictures(request, monkeypatch):
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(learning_curves, "draw_curves", lambda *_: EMPTY)
        monkeypatch.setattr(document, "draw_posteriors", lambda *_: EMPTY)


@pytest.fixture
def report(capsys):
    return functools.partial(run_report, capsys)


def combination(values, method="m", task="t", seeds=None):
    return made_up(CONTEST, values, task, method, seeds=seeds)


def found_in(path):
    return read(CONTEST, RunFolder(path), EMSuite(Options(**GRID)).cells)


# -- whole runs -----------------------------------------------------------------------------------


def test_a_report_of_a_whole_run(whole, tmp_path, report, real_pictures):
    page, markdown = report(whole, "--out", tmp_path / "there", out=tmp_path / "there")
    config = RunFolder(whole).read_json("config.json")
    for text in (page, markdown):
        for word in (*GRID["tasks"], *GRID["methods"], "18 of 18 cells finished", "gap to truth",
                     "test log-likelihood", "train log-likelihood", "p(x, z) evaluations",
                     "All methods share the observations and the start of a seed", "closed-form",
                     config["machine"]["platform"], config["versions"]["torch"],
                     "Over all tasks"):  # fmt: skip
            assert word in text, word
    assert "not finished" not in page
    pictures = {file.name for file in (tmp_path / "there/report-files").iterdir()}
    assert pictures == {
        f"{name}.svg"
        for task in GRID["tasks"]
        for name in (f"posteriors-{task}", f"curves-{task}-update",
                     f"curves-{task}-likelihood-evaluations", f"curves-{task}-cpu-seconds")
    }  # fmt: skip
    assert all(f"(report-files/{name})" in markdown for name in pictures)
    words = re.findall(
        r"<text[^>]*>([^<]+)</text>",
        (tmp_path / "there/report-files/curves-sbn-tiny-update.svg").read_text(),
    )
    for method in GRID["methods"]:  # a panel each, and exact EM in the legend
        assert words.count(method) == (2 if method == "exact-em" else 1)
    assert words.count("the panel's method") == words.count("EM iterations") / 3 == 1
    assert "gap to truth, nats a point" in words


def test_a_report_changes_nothing_and_is_the_same_again(run, report):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    first = report(run)
    assert all(file.read_bytes() == content for file, content in before.items())
    assert report(run) == first


def test_the_best_is_named_with_its_gap_and_the_others_by_their_differences(
    whole, tmp_path, report
):
    page, markdown = report(whole, "--out", tmp_path, out=tmp_path)
    for task in GRID["tasks"]:
        best, *others = standings([one for one in found_in(whole) if one.task == task])
        values = best.combination.values
        gap, low, high = (significant(v, 2) for v in (np.mean(values), min(values), max(values)))
        sentence = (
            f"{best.combination.name} learns best, with a gap to truth of "
            f"{gap} nats a point (95 % interval {low} to {high}) over 3 seeds, after 4 EM "
            "iterations"
        )
        assert sentence in page
        section = markdown.partition(f"### {task}\n")[2].partition("\n#")[0]
        rows = [[cell.strip() for cell in line.split("|")[1:-1]]
                for line in section.splitlines() if line.startswith("| ")][1:]  # fmt: skip
        assert [row[1] for row in rows] == [best.combination.name] + [
            other.combination.name for other in others
        ]
        for row, other in zip(rows[1:], others, strict=True):
            mine, theirs = other.combination.by_seed(), best.combination.by_seed()
            differences = [mine[seed] - theirs[seed] for seed in range(3)]
            mean, low, high = (
                significant(v, 2)
                for v in (np.mean(differences), min(differences), max(differences))
            )
            assert row[3] == f"{mean} ({low} to {high})"


def test_one_seed_has_no_intervals_and_says_so(tmp_path, report):
    options = {**GRID, "tasks": ("sbn-tiny",), "methods": ("gflownet-em",), "seeds": 1,
               "iterations": 1, "every": 1}  # fmt: skip
    page, markdown = report(carry_out(tmp_path / "run", **options))
    assert "There is one seed: no intervals, no tests." in page
    assert "95 % interval " not in markdown.partition("## Rankings")[0]
    assert "1 of 1 cell finished" in page
    assert "over 1 seed, after 1 EM iteration, " in page
    assert "This run has 1 seed. " in page
    for text in (page, markdown, (tmp_path / "run/table.md").read_text()):
        assert (
            re.findall(r"(?<![\d.,])1 (?:cell|seed|update|EM iteration|observation)s", text) == []
        )


# -- runs that are not whole ----------------------------------------------------------------------


def test_what_is_missing_failed_or_left_out_is_named(run, report):
    shutil.rmtree(run / "cells/sbn-tiny/exact-em")
    (run / "cells/mixture-tiny/exact-em/02/summary.json").unlink()
    summary = json.loads((run / "summary.json").read_text())
    wanted = {"task": "mixture-tiny", "method": "exact-em", "seed": 2}
    (record,) = (cell for cell in summary["cells"] if wanted.items() <= cell.items())
    record |= {"status": "failed", "error": "log_likelihood became <nan> at update 3"}
    (run / "summary.json").write_text(json.dumps(summary))
    page, _ = report(run)
    assert "3 cells are not finished; this report is of the others." in page
    assert "sbn-tiny, exact-em, seed 1" in page
    assert "1 cell failed; this report is of the others." in page
    assert "mixture-tiny, exact-em, seed 2: log_likelihood became <nan> at update 3" in page
    assert "14 of 18 cells finished" in page
    # Without exact EM curves are held against the task's best.
    best = standings([one for one in found_finished(run) if one.task == "sbn-tiny"])[0]
    assert f"The dotted line is where {best.combination.name} ends." in page


def found_finished(path):
    cells = EMSuite(Options(**GRID)).cells
    return read(CONTEST, RunFolder(path),
                [cell for cell in cells if RunFolder(path / cell.folder).finished])  # fmt: skip


def test_without_gflownet_em_nothing_is_drawn(run, report):
    shutil.rmtree(run / "cells/sbn-tiny/gflownet-em")
    (run / "cells/mixture-tiny/gflownet-em/00/checkpoint.pt").unlink()
    page, _ = report(run)
    assert "No run of gflownet-em is finished, so there is nothing to draw." in page
    assert "The checkpoint of mixture-tiny, gflownet-em, seed 0 is gone" in page


def test_a_task_without_tables_is_reported_without_drawings(tmp_path, report, real_pictures):
    options = {**GRID, "tasks": ("hmm-medium",), "methods": ("exact-em", "gflownet-em"),
               "seeds": 2, "iterations": 1, "every": 1}  # fmt: skip
    page, _ = report(carry_out(tmp_path / "run", **options))
    assert "hmm-medium has too many structures to draw their probabilities." in page
    assert "Left out, because it does not fit together" in page
    assert "hmm-medium, exact-em: " in page


def test_a_damaged_file_of_a_cell_is_named(run, report):
    cell = run / "cells/sbn-tiny/gflownet-em/00"
    (cell / "checkpoint.pt").write_bytes(b"PK")
    assert "gflownet-em/00/checkpoint.pt is damaged; delete" in report(run)
    (cell / "metrics.jsonl").write_text('{"update": 2, "log_likelihood": -1.0}\n')
    assert "gflownet-em/00/metrics.jsonl is damaged; delete" in report(run)
    (cell / "summary.json").write_text('{"metrics": {}, "cost": {}}')
    assert "gflownet-em/00/summary.json is damaged; delete" in report(run)


# -- ranking --------------------------------------------------------------------------------------


def test_standings_are_of_differences_and_may_be_negative():
    a = combination([-0.01, 0.02, 0.05], "a")
    b = combination([0.02, 0.06, 0.08], "b")
    c = combination([0.3, -0.1, 0.0], "c")
    ranked = standings([c, b, a])
    assert [one.combination for one in ranked] == [a, b, c]
    raw = [stats.ttest_rel(one.values, a.values).pvalue for one in (b, c)]
    assert [one.p_value for one in ranked[1:]] == pytest.approx([2 * raw[0], raw[1]])
    assert [one.tied for one in ranked] == [False, False, True]
    assert ranked[0].behind == 0
    assert ranked[0].behind_interval is None
    assert ranked[1].behind == pytest.approx(0.1 / 3)
    # Seed by seed 0.03, 0.04, 0.03: much narrower than either mean's interval.
    assert ranked[1].behind_interval == pytest.approx((0.03, 0.04))


def test_differences_are_of_the_seeds_that_both_finished():
    a = combination([0.0, 0.9], "a", seeds=(0, 1))
    b = combination([0.1, 3.0], "b", seeds=(0, 2))
    c = combination([5.0], "c", seeds=(7,))
    ranked = standings([a, b, c])
    assert ranked[1].behind == pytest.approx(0.1)
    assert ranked[2].behind == pytest.approx(5.0 - 0.45)
    assert [one.p_value for one in ranked] == [None, None, None]


def test_rounding_is_no_difference():
    values = np.array([0.01, 0.02, 0.03])
    a, b = combination(values, "a"), combination(values + 0.9 * ROUNDING, "b")
    assert standings([a, b])[1].p_value == 1.0
    assert compare([(a, b)]) == [1.0]
    apart = combination(values + ROUNDING * np.array([1.1, 2.0, 3.0]), "b")
    assert standings([a, apart])[1].p_value < 0.2


def test_placings_are_mean_differences_over_tasks():
    found = [
        combination([0.1, 0.3], "a", "s"), combination([0.2, 0.2], "b", "s"),
        combination([-0.1, 0.1], "a", "t"), combination([0.5, 0.6], "b", "t"),
    ]  # fmt: skip
    placed = placings(found, lambda one: one.name, lambda one: (one.task,))
    assert [one.name for one in placed] == ["a", "b"]
    assert [one.behind for one in placed] == pytest.approx([0.0, 0.275])
    # b behind a by seed: 0.1 and 0.6, then -0.1 and 0.5
    assert [one.interval for one in placed] == [(0.0, 0.0), pytest.approx((0.2, 0.35))]
    expected = stats.ttest_rel([0.0, 0.2], [0.35, 0.4]).pvalue
    assert placed[1].p_value == pytest.approx(expected)


def test_sentences_about_two_methods():
    def sentence(*found):
        (bullets,) = at_a_glance({"t": standings(found)}, [])
        return "".join(getattr(word, "text", word) for word in bullets.items[0].words)

    a, b = combination([0.01, 0.02, 0.03], "a"), combination([0.11, 0.121, 0.13], "b")
    assert sentence(a, b).endswith(
        " The other can be told apart from it, b, 0.10 nats a point above."
    )
    same = combination([0.02, 0.01, 0.04], "c")
    assert sentence(a, same).endswith(" The other, c, cannot be told apart from it.")
    assert "2 others, 1 cannot be told apart from it: c. The rest can" in sentence(a, b, same)
    single = [combination([value], name) for name, value in (("a", 0.25), ("b", 0.5))]
    assert sentence(*single).endswith(" Next comes b, 0.25 nats a point behind.")


def test_methods_without_a_metric_have_a_dash():
    a = combination([0.1, 0.2], "a")
    b = dataclasses.replace(
        combination([0.3, 0.5], "b"), metrics={"gap": (0.3, 0.5), "total_variation": (0.1, 0.2)}
    )
    table = metrics_table([a, b], "")
    assert [[entry.text for entry in row][-1] for row in table.rows] == ["-", "0.150"]
    ranked = ranking_table(standings([a, b]), "", ["total_variation"])
    column = ranked.headers.index("total\nvariation")
    assert [row[column].text for row in ranked.rows] == ["-", "0.150"]
    assert not ranked.logarithmic


# -- against earlier results ----------------------------------------------------------------------


def test_a_run_agrees_with_itself_and_a_planted_difference_is_found(whole, tmp_path, report):
    stored, out = tmp_path / "stored.json", tmp_path / "out"
    report(whole, "--out", out, "--summary-out", stored, out=out)
    for other in (stored, whole):
        page, _ = report(whole, "--out", out, "--against", other, out=out)
        assert "Combinations in both: 6. Not told apart: 6." in page
    content = json.loads(stored.read_text())
    planted = content["combinations"][1]
    # Half a standard deviation: Welch's test, which knows of no pairs, would not see it.
    planted["metrics"]["gap"] = [
        value + np.std(planted["metrics"]["gap"]) / 2 + shift
        for value, shift in zip(planted["metrics"]["gap"], (0.0, 1e-4, -1e-4), strict=True)
    ]
    content["config"]["options"]["points"] = 41
    stored.write_text(json.dumps(content))
    page, markdown = report(whole, "--out", out, "--against", stored, out=out)
    assert "The settings differ: points is 40 here and 41 there." in page
    assert "Not told apart: 5. Different beyond what their seeds explain: 1." in page
    assert "paired by seed where they have two seeds or more in common" in page
    section = markdown.partition("## Against")[2].partition("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert [cell.strip() for cell in row.split("|")][1:3] == [planted["task"], planted["method"]]


def test_other_seeds_are_compared_as_wholes():
    a = combination([0.1, 0.2, 0.4], "a")
    b = combination([0.6, 0.7, 0.5], "a", seeds=(10, 11, 12))
    expected = stats.ttest_ind(a.values, b.values, equal_var=False).pvalue
    assert compare([(a, b)]) == [pytest.approx(expected)]


def test_results_survive_being_stored(whole):
    found = found_in(whole)
    back = from_json(CONTEST, json.loads(json.dumps(to_json(found))))
    assert [one.key for one in back] == [one.key for one in found]
    for one, other in zip(found, back, strict=True):
        assert set(other.metrics) == set(one.metrics)
        for name, values in one.metrics.items():
            assert other.metrics[name] == pytest.approx(values, rel=1e-5)
        assert (other.seeds, other.updates) == (one.seeds, one.updates)


def test_the_stored_reference_is_of_the_default_run():
    content = json.loads(EMSuite.reference.read_text())
    assert content["config"]["options"] == json.loads(json.dumps(dataclasses.asdict(Options())))
    found = from_json(CONTEST, content["combinations"])
    cells = {EMCell(*one.key, seed) for one in found for seed in one.seeds}
    assert cells == set(EMSuite(Options()).cells)


def test_the_smallest_cells_are_as_the_stored_reference_has_them(tmp_path):
    """Exact EM has no randomness but the data's: machines differ by rounding alone."""
    options = {"tasks": ("mixture-tiny",), "methods": ("exact-em",)}
    path, out = carry_out(tmp_path / "run", **options), tmp_path / "summary.json"
    write_report(path, against="reference", summary_out=out)
    (new,) = from_json(CONTEST, json.loads(out.read_text())["combinations"])
    stored = from_json(CONTEST, json.loads(EMSuite.reference.read_text())["combinations"])
    (old,) = (one for one in stored if one.key == new.key)
    assert new.values == pytest.approx(old.values, abs=1e-4)
    assert new.likelihood_evaluations == old.likelihood_evaluations
