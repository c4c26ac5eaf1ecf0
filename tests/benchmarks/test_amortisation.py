"""When amortisation pays: what the benchmark measures, writes and concludes."""

import json

import pytest
import torch
from PIL import Image

from benchmarks.grammar import amortisation
from benchmarks.grammar.amortisation import Comparison, Setting
from benchmarks.throughput.measure import Timing
from tests.benchmarks.runs import stop_after


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run on tiny grammars: the folder and what it printed."""
    folder = tmp_path_factory.mktemp("amortisation") / "run"
    settings = [Setting(parent, labels, words) for parent in (False, True)
                for labels, words in ((2, 4), (3, 4), (3, 5))]  # fmt: skip
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amortisation, "SETTINGS", settings)
        arguments = ["--policies", "chart", "--seconds", "0.01", "--train", "0.1"]
        assert amortisation.main(["--out", str(folder), *arguments]) == 0
    torch.set_num_threads(threads)
    return folder


def test_the_table_says_what_was_measured(small):
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in (small / "table.md").read_text().splitlines()
            if line.startswith("|")][2:]  # fmt: skip
    assert [row[:3] for row in rows[:3]] == [["context-free", "2", "4"], ["context-free", "3", "4"],
                                             ["context-free", "3", "5"]]  # fmt: skip
    found = json.loads((small / "results.json").read_text())["comparisons"]
    for row, one in zip(rows, found, strict=True):
        exact, sample = one["exact"]["milliseconds"], one["sample"]["milliseconds"]
        ratios = [a / b for a, b in zip(exact, sample, strict=True)]
        assert min(ratios) - 0.01 <= float(row[7]) <= max(ratios) + 0.01
        assert float(row[8]) < float(row[7])
    picture = Image.open(small / "amortisation.png")
    assert min(picture.size) > 400


def test_training_is_earned_back_by_what_each_sentence_saves():
    def comparison(exact, sample):
        timings = (Timing([cost] * 3, 1) for cost in (exact, sample, 2 * sample))
        return Comparison(Setting(True, 5, 10), "chart", *timings, untrained=2.0, gap=1.0)

    cheaper = comparison(3.0, 1.0)
    assert cheaper.sampling_ratio == 3
    assert cheaper.learning_ratio == 1
    assert cheaper.sentences_to_earn(10.0) == pytest.approx(5000)  # 2 ms of each
    assert comparison(1.0, 1.5).sentences_to_earn(10.0) is None


def test_mistakes_are_named(capsys, tmp_path):
    for arguments, message in (
        (["--train", "0"], "--seconds and --train must be positive"),
        (["--policies", "chrat"], "There is no tree policy 'chrat'"),
    ):
        assert amortisation.main(["--out", str(tmp_path / "run"), *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"amortisation: error: {message}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    arguments = ["--out", str(tmp_path / "full"), "--policies", "chart", "--quick"]
    assert amortisation.main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err


def test_an_interrupted_run_keeps_what_it_measured(capsys, tmp_path, monkeypatch):
    stop_after(monkeypatch, amortisation, "compare", 1, KeyboardInterrupt)
    settings = [Setting(False, 2, 4), Setting(True, 2, 4)]
    monkeypatch.setattr(amortisation, "SETTINGS", settings)
    arguments = ["--policies", "chart", "--seconds", "0.01", "--train", "0.1"]
    assert amortisation.main(["--out", str(tmp_path / "run"), *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"amortisation: error: interrupted; what was measured is in {tmp_path / 'run'}."
    )
    found = json.loads((tmp_path / "run/results.json").read_text())["comparisons"]
    assert [one["setting"]["parent"] for one in found] == [False]
    assert "context-free" in (tmp_path / "run/table.md").read_text()
