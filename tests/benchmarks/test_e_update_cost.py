"""The cost of an update of a tree policy: what the benchmark prints."""

import torch

from benchmarks.grammar import e_update_cost
from benchmarks.grammar.e_update_cost import Setting


def test_it_prints_a_row_for_each_setting(monkeypatch, capsys):
    threads = torch.get_num_threads()
    settings = (
        Setting("forest", False, 2, 3, 4, 5, 1, "0.217"),
        Setting("chart", True, 2, 3, 4, 5, 2, "-"),
    )
    monkeypatch.setattr(e_update_cost, "SETTINGS", settings)
    try:
        assert e_update_cost.main(["--repeats", "2"]) == 0
    finally:
        torch.set_num_threads(threads)
    header, _, *rows = capsys.readouterr().out.splitlines()[:4]
    columns = [column.strip() for column in header.strip("|").split("|")]
    forest, chart = (
        dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        for row in rows
    )
    assert (forest["policy"], forest["grammar"], forest["trees"]) == ("forest", "context-free", "1")
    assert (chart["policy"], chart["grammar"], chart["trees"]) == ("chart", "NCFG", "2")
    for row in (forest, chart):
        each, update = (
            float(row[name].split(" / ")[0]) for name in ("ms a sentence", "seconds an update")
        )
        # Five sentences; what is printed is rounded to a millisecond an update.
        assert abs(5 * each / 1000 - update) <= 0.0006
        assert update > 0


def test_numbers_below_one_are_refused(capsys):
    assert e_update_cost.main(["--repeats", "0"]) == 2
    assert capsys.readouterr().err == "e_update_cost: error: Every number must be at least 1.\n"
