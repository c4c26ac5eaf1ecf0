"""What tests of reports share: one carried out by the command line, and made-up results."""

from benchmarks import cli
from benchmarks.report.results import Combination
from tests.benchmarks.test_report_pages import assert_self_contained

EMPTY = '<svg viewBox="0 0 1 1"></svg>'


def run_report(capsys, path, *more, out=None):
    """Runs `gfnem report`; returns the page and the Markdown, or the line that says why not."""
    capsys.readouterr()
    status = cli.main(["report", str(path), *map(str, more)])
    output, errors = capsys.readouterr()
    if status:
        assert (status, output) == (2, "")
        (line,) = errors.splitlines()
        return line
    assert errors == ""
    page = ((out or path) / "report.html").read_text()
    return assert_self_contained(page).text, ((out or path) / "report.md").read_text()


def combination(contest, values, task, *choice, seeds=None):
    """A combination of which only the ranking metric matters."""
    seeds = tuple(range(len(values))) if seeds is None else seeds
    ones = (1.0,) * len(values)
    return Combination(contest, task, choice, seeds, {contest.metric: tuple(values)}, 1, ones, ones)
