"""The cost of the inside algorithm: what the benchmark prints, and a bound on memory."""

import sys

import pytest
import torch

from benchmarks.grammar import inside_cost
from benchmarks.grammar.inside_cost import LARGEST, Size, log_marginal, problem
from benchmarks.throughput.measure import peak_memory


def test_it_prints_both_sides_and_their_ratio(monkeypatch, capsys):
    pytest.importorskip("torch_struct")
    threads = torch.get_num_threads()
    monkeypatch.setattr(inside_cost, "SIZES", [Size(2, 3, 2, 4)])
    monkeypatch.setattr(inside_cost, "LARGEST", Size(2, 3, 4, 5))
    try:
        assert inside_cost.main(["--repeats", "2", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    header, _, first, largest, *_ = capsys.readouterr().out.splitlines()
    columns = [column.strip() for column in header.strip("|").split("|")]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert columns[:4] == ["NT", "PT", "batch", "words"]
    assert cells[:4] == ["2", "3", "2", "4"]
    ours, theirs = (float(cells[place].split(" / ")[0]) for place in (4, 7))
    # What is printed is rounded to a tenth of a millisecond.
    assert (theirs - 0.1) / (ours + 0.1) < float(cells[10]) < (theirs + 0.1) / (ours - 0.1)
    assert "over 23 GB" in largest


def test_sides_that_differ_are_an_error():
    def wrong(rules, x):
        return log_marginal(rules, x) + 1

    with pytest.raises(RuntimeError, match="differ"):
        inside_cost.measure([log_marginal, wrong], Size(2, 3, 2, 4), repeats=1)


def test_without_torch_struct_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch_struct", None)
    assert inside_cost.main([]) == 2
    assert capsys.readouterr().err == (
        "inside_cost: error: This needs torch-struct: pip install torch-struct==0.5\n"
    )
    assert inside_cost.main(["--repeats", "0"]) == 2


def test_the_largest_size_needs_little_memory():
    """Where torch-struct needs over 23 GB."""
    rules, x = problem(LARGEST)
    tables = rules.root, rules.binary, rules.emission
    held = peak_memory(lambda: torch.autograd.grad(log_marginal(rules, x).sum(), tables))
    assert held < 200e6
