"""The grammar task: every method learns and is judged exactly, repeatably, sentence by sentence."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from algorithms.minibatch_learner import MinibatchLearner
from benchmarks import cli, runner
from benchmarks.grammar import report
from benchmarks.grammar.corpus import spans_of
from benchmarks.grammar.judgement import log_prob_of_lengths, parse
from benchmarks.grammar.lines import LINES
from benchmarks.grammar.methods import grammar_methods
from benchmarks.grammar.report import HEADERS
from benchmarks.grammar.results import GrammarResult
from benchmarks.grammar.sweep import Options, presets
from benchmarks.grammar.task import GrammarTask
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.results import read_results
from benchmarks.run_folder import RunFolder
from benchmarks.runner import run_task
from lvms import EnumeratedPosterior, WeightedSamples
from lvms.grammars.built_in import built_in_grammars, make_grammar
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.energy_parses import mbr_of
from lvms.grammars.parse_scores import score_trees
from lvms.grammars.rules import same_words
from lvms.grammars.table_grammar import without_words
from tests.benchmarks.grammar_runs import (
    NAME,
    SIZES,
    numbers,
    resume,
    start,
    tables,
    tiny_task,
    words,
    write_treebank,
)
from tests.benchmarks.reports import run_report
from tests.benchmarks.runs import stop_after, stray_files, without_time

pytestmark = pytest.mark.xdist_group("grammar")  # they share undisturbed runs

METHODS = tuple(grammar_methods)
ESTIMATED = tuple(name for name in METHODS if "energy" in name)
TRIVIAL = ("left-branching", "right-branching", "random trees", "best binary trees")
BUILT_IN = next(iter(built_in_grammars))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, data):
    """A run of every method, carried out in one process."""
    task, folder = start(tmp_path_factory.mktemp("whole") / "run", data, methods=METHODS)
    run_task(task, folder)
    return folder.path


@pytest.fixture
def empty_pictures(monkeypatch):
    """Drawing is most of the time of a tiny run; others look at the real pictures."""
    for name in ("draw_learning_curves", "draw_parses"):
        monkeypatch.setattr(report, name, lambda *_: Figure(figsize=(1, 1)))


# -- what is measured -----------------------------------------------------------------------------


def test_every_method_is_measured_and_saved_sentence_by_sentence(whole_run, data):
    task = tiny_task(data, methods=METHODS)
    test = task.corpus.test
    for cell in task.cells:
        folder = RunFolder(whole_run / cell.folder)
        lines, metrics = folder.read_metrics(), folder.read_json("summary.json")["metrics"]
        assert [line["update"] for line in lines] == [2, 4]
        assert [line["minibatches"] for line in lines] == [6, 12]
        assert all(line["perplexity"] == pytest.approx(np.exp(line["nll"])) for line in lines)
        assert all(0 <= line["f1"] <= 100 for line in lines)
        sentences = folder.read_json("per-sentence.json")
        more = {"nll_error", "effective_samples"} if cell.method in ESTIMATED else set()
        more |= {"kl"} if "gflownet" in cell.method else set()
        assert set(sentences) == {"nll", "words", "f1"} | more
        assert ("sampling_error" in metrics) == (cell.method in ESTIMATED)
        for name, values in sentences.items():
            assert len(values) == SIZES["test"]
            assert metrics[name]["mean"] == pytest.approx(np.mean(values))
        assert sentences["words"] == test.lengths.tolist()
        a_word = sum(sentences["nll"]) / sum(sentences["words"])
        assert metrics["nll_a_word"]["mean"] == pytest.approx(a_word)
        assert metrics["perplexity"]["mean"] == pytest.approx(np.exp(a_word))
        assert metrics["recall NP"]["n"] > metrics["recall VP"]["n"] > 0


@pytest.mark.parametrize("parser", ["mbr", "viterbi"])
def test_what_is_judged_are_the_parses_and_the_exact_nll_of_the_best_weights(data, parser):
    task = tiny_task(data, methods=("table-marginalisation",), parser=parser)
    learner = task.make_learner(task.cells[0])
    learner.update(task.corpus.train.words)
    metrics = learner.validate()
    model, validation, test = learner.best(), task.judges.validation, task.judges.test
    assert len(validation) == 15
    with torch.no_grad():
        total = -model.log_marginal(validation.words).double().sum()
        assert metrics["nll"] == pytest.approx((total / validation.lengths.sum()).item())
        z = model.viterbi(test.words)[0] if parser == "viterbi" else model.mbr(test.words)
    judged = learner.judge()
    assert torch.equal(judged["f1"], score_trees(z, test.spans).each)
    assert torch.allclose(judged["nll"].float(), -model.log_marginal(test.words), rtol=1e-5)


@pytest.mark.parametrize("parser", ["mbr", "viterbi"])
def test_what_is_estimated_is_what_enumeration_finds(data, parser):
    task = tiny_task(
        data, methods=("energy-gibbs",), parser=parser, max_words=4, nonterminals=2, samples=2000
    )
    learner = task.make_learner(task.cells[0])
    generator = torch.Generator().manual_seed(0)
    model, test = learner.model, task.judges.test
    with torch.no_grad():
        model.energy.contribution.weight.normal_(std=4.0, generator=generator)
        for parameter in model.grammar.parameters():
            parameter.mul_(2)  # a new network's trees hardly depend on the words
        model.mark_updated()
    judged, x = learner.judge(), test.words
    # Of all sentences of as many words together: the same energies beside trees without words.
    alone = EnergyGrammar(without_words(model.grammar), model.temperature)
    alone.energy = model.energy
    f1, log_prob = [], []
    with torch.no_grad():
        for row, spans in zip(x, test.spans, strict=True):
            exact, length = EnumeratedPosterior(model), same_words((row >= 0).sum()[None], 4)
            scores, z = exact.log_joint_table(row[None]), exact.structures(row[None])
            posterior = WeightedSamples(z[None], scores.log_softmax(1))
            best = mbr_of(posterior, row[None], 2) if parser == "mbr" else z[scores.argmax(1)]
            f1.append(score_trees(best, [spans]).each)
            of_length = EnumeratedPosterior(alone).log_marginal(length)
            of_length = of_length - alone.grammar.log_marginal(length)
            log_prob.append(scores.logsumexp(1) - of_length)
    assert torch.equal(judged["f1"], torch.cat(f1))
    away = judged["nll"] + torch.cat(log_prob)
    assert (away.abs() < 4.5 * judged["nll_error"] + 1e-5).all()
    assert (model.grammar.log_marginal(x) - torch.cat(log_prob)).abs().max() > 0.1


def test_the_weights_that_were_best_are_judged(data):
    task = tiny_task(data, methods=("table-marginalisation",))
    learner = task.make_learner(task.cells[0])
    learner.update(task.corpus.train.words)
    best = learner.validate()["nll"]
    expected = learner.judge()["nll"]
    with torch.no_grad():
        learner.model.emission_logits.normal_(0, 20, generator=torch.Generator().manual_seed(0))
    assert learner.validate()["nll"] > best + 1
    learner.update(task.corpus.train.words)
    saved = learner.state_dict()
    assert torch.equal(learner.judge()["nll"], expected)
    resumed = task.make_learner(task.cells[0])
    resumed.load_state_dict(saved)
    assert torch.equal(resumed.judge()["nll"], expected)


def test_methods_share_the_start_of_their_kind_of_grammar_and_seeds_differ(data):
    task = tiny_task(data, methods=METHODS, seeds=2)
    starts = {}
    for cell in task.cells:
        learner = task.make_learner(cell)
        model = learner.model
        weights = tuple(torch.cat([p.detach().flatten() for p in model.parameters()]).tolist())
        kind = type(model), learner.grammar.rules().conditioned_on_parent
        assert starts.setdefault((kind, cell.seed), weights) == weights
    assert len(set(starts.values())) == len(starts) == 10


def test_sentences_of_a_built_in_grammar_come_with_their_truth():
    task = tiny_task(BUILT_IN, sentences=40, methods=("table-marginalisation",))
    corpus = task.corpus
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [40, 10, 10]
    again = tiny_task(BUILT_IN, sentences=40, methods=("table-marginalisation",)).corpus
    other = tiny_task(BUILT_IN, sentences=40, methods=("table-marginalisation",), data_seed=1)
    assert torch.equal(corpus.test.words, again.test.words)
    assert not torch.equal(corpus.test.words, other.corpus.test.words)
    learner = task.make_learner(task.cells[0])
    learner.update(corpus.train.words)
    judged = learner.judge()
    with torch.no_grad():
        truth = -corpus.truth.log_marginal(corpus.test.words).double()
    truth += log_prob_of_lengths(corpus.truth)
    assert torch.allclose(judged["above_truth"], judged["nll"] - truth, atol=1e-4)


@pytest.mark.parametrize("name", built_in_grammars)
def test_how_probable_a_grammars_lengths_are(name):
    long = make_grammar(name, max_words=20).grammar
    short = make_grammar(name, max_words=7, min_words=3).grammar
    x, _ = long.sample(4000, torch.Generator().manual_seed(0))
    lengths = long.context(x)
    share = ((lengths >= 3) & (lengths <= 7)).float().mean().item()
    expected = (log_prob_of_lengths(short) - log_prob_of_lengths(long)).exp().item()
    # Of 4000 draws a share is known to 0.008.
    assert share == pytest.approx(expected, abs=4 * 0.008)


def test_the_oracle_agrees_with_binary_gold_trees_and_the_truth_is_a_line(tmp_path):
    methods = ("table-marginalisation",)
    task, folder = start(tmp_path / "run", BUILT_IN, sentences=40, methods=methods)
    run_task(task, folder)
    rows, _ = tables(folder.path)
    assert list(rows) == [*methods, *TRIVIAL, "the truth"]
    assert rows["best binary trees"]["F1"] == rows["best binary trees"]["corpus F1"] == "100.0"
    above = float(rows[methods[0]]["above the truth"].split()[0])
    nll = float(rows[methods[0]]["NLL a word"].strip("*").split("*")[0])
    assert float(rows["the truth"]["NLL a word"]) == pytest.approx(nll - above, abs=0.0011)


def test_spans_are_read_off_trees(data):
    task = tiny_task(data, methods=("table-marginalisation",))
    test = task.corpus.test
    z = parse(task.make_learner(task.cells[0]).inference(), test.words, "mbr")
    found = spans_of(z, "ABC")
    for spans, length in zip(found, test.lengths.tolist(), strict=True):
        assert len(spans) == length - 1
        assert (0, length) in [span[:2] for span in spans]
        assert {label for _, _, label in spans} <= set("ABC")
    assert (score_trees(z, found).each == 100).all()


# -- the same numbers -----------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_exactly(tmp_path, monkeypatch, whole_run, data, method):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    task, folder = start(tmp_path / "run", data, methods=(method,))
    with monkeypatch.context() as patch:
        # In the middle of the third of four rounds, after the first measurement.
        stop_after(patch, MinibatchLearner, "update", 2, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, folder)
    cell = RunFolder(folder.path / task.cells[0].folder)
    assert cell.read_checkpoint()["updates"] == 2
    resume(folder.path)
    found, expected = numbers(folder.path), numbers(whole_run)
    assert found[task.cells[0].folder] == expected[task.cells[0].folder]
    assert stray_files(folder.path) == []


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (MinibatchLearner, "step", 7),  # in the middle of a round
        (GrammarTask, "save_details", 0),
        (RunFolder, "write_figure", 1),
    ],
)
def test_resumes_from_anywhere(tmp_path, monkeypatch, whole_run, data, owner, name, calls):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    task, folder = start(tmp_path / "run", data, methods=("exact-sampling",))
    owner = type(task.make_learner(task.cells[0]).learner) if name == "step" else owner
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, folder)
    resume(folder.path)
    cell = task.cells[0].folder
    assert numbers(folder.path)[cell] == numbers(whole_run)[cell]


@pytest.mark.usefixtures("empty_pictures")
def test_two_workers_find_what_one_finds(tmp_path, whole_run, data):
    task, folder = start(tmp_path / "run", data, methods=("marginalisation", "monte-carlo"))
    run_task(task, folder, workers=2)
    found, expected = numbers(folder.path), numbers(whole_run)
    assert found.items() <= expected.items()


# -- ending early ---------------------------------------------------------------------------------

RESTLESS = {
    "methods": ("marginalisation",), "rate": 0.1, "rounds": 15, "every": 1, "updates": (60,),
    "patience": 3,
}  # fmt: skip
"""At this learning rate the validation NLL goes up and down."""


def metric_lines(path, cell):
    return without_time(RunFolder(path / cell.folder).read_metrics())


@pytest.mark.usefixtures("empty_pictures")
def test_patience_ends_a_run_and_changes_nothing_before(tmp_path, data):
    task, whole = start(tmp_path / "whole", data, **{**RESTLESS, "patience": 0}, first_seed=2)
    run_task(task, whole)
    task, ended = start(tmp_path / "ended", data, **RESTLESS, first_seed=2)
    table, _ = run_task(task, ended)
    (cell,) = task.cells
    lines, all_lines = metric_lines(ended.path, cell), metric_lines(whole.path, cell)
    assert 4 <= len(lines) < len(all_lines) == 15
    assert lines == all_lines[: len(lines)]
    nll = [line["nll"] for line in lines]
    assert nll.index(min(nll)) == len(nll) - 4
    summary = RunFolder(ended.path / cell.folder).read_json("summary.json")
    assert summary["cost"]["updates"] == len(lines)
    assert "1 of 1 run ended early, as 3 measurements in a row found no lower" in table
    (result,) = read_results(GrammarResult, ended, task.cells)
    assert result.minibatches == 4 * len(lines)
    assert min(line["nll"] for line in all_lines) == min(nll)  # so that both judge the same weights
    details = [(path / cell.folder / task.details).read_text() for path in (ended.path, whole.path)]
    assert details[0] == details[1]


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize(
    ("owner", "name", "calls"), [(MinibatchLearner, "update", 4), (GrammarTask, "save_details", 0)]
)
def test_a_run_that_ends_early_goes_on_exactly(tmp_path, monkeypatch, data, owner, name, calls):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    task, folder = start(tmp_path / "whole", data, **RESTLESS, first_seed=2)
    run_task(task, folder)
    task, stopped = start(tmp_path / "stopped", data, **RESTLESS, first_seed=2)
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, stopped)
    resume(stopped.path)
    assert numbers(stopped.path) == numbers(folder.path)


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize("workers", [1, 2])
def test_runs_that_end_at_different_times_share_a_table_and_a_bar(tmp_path, capsys, data, workers):
    task, folder = start(tmp_path / "run", data, **RESTLESS, seeds=3)
    run_task(task, folder, workers=workers)
    lengths = [len(metric_lines(folder.path, cell)) for cell in task.cells]
    assert len(set(lengths)) > 1
    assert "45/45" in capsys.readouterr().err
    (result,) = read_results(GrammarResult, folder, task.cells)
    assert result.curves["minibatches"][:, -1].tolist() == [4 * length for length in lengths]
    shortest = lengths.index(min(lengths))
    kept = result.curves["nll"][shortest, min(lengths) - 1 :]
    assert len(kept) == max(lengths) - min(lengths) + 1
    assert (kept == kept[0]).all()
    rows, _ = tables(folder.path)
    assert rows["marginalisation"]["updates"] == str(round(np.mean(lengths) * 4))


# -- learning -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_pictures")
def test_a_grammar_learns_phrases_from_words_alone(tmp_path, data):
    methods = ("table-marginalisation",)
    task, folder = start(
        tmp_path / "run", data, methods=methods, rounds=10, updates=(300,), preterminals=6
    )
    run_task(task, folder)
    (result,) = [GrammarResult.read(folder, task.cells)]
    nll = result.curves["nll"][0]
    assert nll.min() < nll[0] - 0.1
    rows, recalls = tables(folder.path)
    train, test = (part.words[part.words >= 0] for part in (task.corpus.train, task.corpus.test))
    unigram = -(train.bincount() / len(train))[test].log().mean().item()
    assert float(rows[methods[0]]["NLL a word"].strip("*").split("*")[0]) < unigram - 0.5
    assert set(recalls["best binary trees"].values()) == {"best binary trees", "100.0"}


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("marginalization",)}, "'marginalization'. Did you mean marginalisation"),
        ({"methods": ("monte-carlo", "monte-carlo")}, "--methods names monte-carlo twice"),
        ({"updates": (3,)}, "--updates must be at least --rounds, 4; got 3."),
        ({"updates": (8, 8, 8, 8)}, "--updates takes one number, or one for each of the"),
        ({"cpu_minutes": 0}, "--cpu-minutes must be a positive number"),
        ({"max_words": 101}, "--max-words at most 100"),
        ({"min_words": 1}, "--min-words must be at least 2"),
        ({"min_words": 7}, "got 7 and 6"),
        ({"nonterminals": 0}, "--nonterminals must be at least 1; got 0."),
        ({"samples": 0}, "--samples must be at least 1; got 0."),
        ({"rate": 0}, "--rate must be a positive number; got 0.0."),
        ({"dim": 0}, "--dim must be at least 1; got 0."),
        ({"validation_sentences": 0}, "--validation-sentences must be at least 1"),
        ({"test_sentences": -1}, "--test-sentences must be at least 0; got -1."),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"data": "ptb-txt"}, "'ptb-txt'. Did you mean ptb-text"),
        ({"data": "no/such/place"}, "There is no built-in grammar or treebank 'no/such/place'"),
        ({"min_words": 6, "max_words": 6}, "no training sentence of 6 to 6 words"),
        ({"min_count": 1000}, "No word occurs 1000 times"),
    ],
)
def test_wrong_words(changes, message, capsys, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", NAME, *words(**{"data": data, **changes})]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gfnem: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_the_preset_for_treebanks_asks_for_one(refusal):
    assert "--data is missing: name a treebank" in refusal("--preset", "treebank-10")


@pytest.fixture
def refusal(capsys):
    """Runs the task; returns the one line that says why it was refused."""

    def run(*arguments):
        assert cli.main(["run", NAME, *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_unbalanced_brackets_are_named_by_file_and_line(refusal, tmp_path):
    folder = tmp_path / "animals"
    write_treebank(folder)
    file = folder / "train.mrg"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:11], lines[11][:-1], *lines[12:]]) + "\n")
    line = refusal(*words(str(folder), out=str(tmp_path / "run")))
    assert str(file) in line
    assert "line 12" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["train", "test"])
def test_trees_that_changed_since_the_start_are_refused(refusal, tmp_path, part):
    folder = tmp_path / "animals"
    _, run = start(tmp_path / "run", write_treebank(folder), methods=("marginalisation",))
    file = folder / f"{part}.mrg"
    old, new = ("cat", "dog") if part == "train" else ("(VP", "(X (VP")
    text = file.read_text()
    text = text.replace(old, new) if part == "train" else _bracket_otherwise(text)
    file.write_text(text)
    assert "The data are not those that the run" in refusal("--resume", str(run.path))


def _bracket_otherwise(text):
    """The same words in other trees: noun phrases are no constituents any more."""
    return text.replace("(NP (D a)", "(D a)").replace("fly))", "fly)").replace("mouse))", "mouse)")


# -- the report -----------------------------------------------------------------------------------


def test_the_tables_have_a_row_for_each_method_and_trivial_tree(whole_run):
    rows, recalls = tables(whole_run)
    assert list(rows) == list(recalls) == [*METHODS, *TRIVIAL]
    shown = [name for name in HEADERS if name not in ("above the truth", "CPU s")]
    assert list(rows[METHODS[0]]) == shown  # no truth is known
    nll = {name: float(rows[name]["NLL a word"].strip("*").split()[0].strip("*"))
           for name in METHODS}  # fmt: skip
    (best,) = [name for name, row in rows.items() if row["above the best"] == "best"]
    assert nll[best] == min(nll.values())
    for name in METHODS:
        sentences = RunFolder(whole_run / "cells" / name / "00").read_json("per-sentence.json")
        a_word = sum(sentences["nll"]) / sum(sentences["words"])
        assert nll[name] == pytest.approx(a_word, abs=0.00051)
        f1 = float(rows[name]["F1"].strip("*"))
        assert f1 == pytest.approx(np.mean(sentences["f1"]), abs=0.051)
        assert f1 <= float(rows["best binary trees"]["F1"])
        assert rows[name]["updates"] == "12"
    for name in TRIVIAL:
        assert rows[name]["NLL a word"] == "-"


def test_ratios_of_sums_have_the_spread_of_the_delta_method():
    random = np.random.default_rng(0)
    lengths = random.integers(2, 20, (1, 4000)).astype(float)
    nll = 3.0 * lengths + random.normal(0, 2, lengths.shape)
    details = {"nll": nll, "words": lengths}
    result = GrammarResult([MethodCell("some", 0)], details, {}, {})
    assert result.score.mean() == pytest.approx(nll.sum() / lengths.sum())
    # Long sentences have large NLLs, but as many nats a word: what remains is the noise.
    assert result.score.std() == pytest.approx(2 / lengths.mean(), rel=0.05)
    draws = random.integers(4000, size=(2000, 4000))
    ratios = nll[0][draws].sum(1) / lengths[0][draws].sum(1)
    # Of 2000 resamples the standard deviation is known to 1.6 %.
    assert result.score.std() / 4000**0.5 == pytest.approx(ratios.std(), rel=0.07)


def test_seeds_are_averaged_and_spread(tmp_path, data):
    methods = ("table-marginalisation",)
    task, folder = start(tmp_path / "run", data, methods=methods, seeds=2)
    run_task(task, folder)
    rows, _ = tables(folder.path)
    runs = [RunFolder(folder.path / c.folder).read_json("per-sentence.json") for c in task.cells]
    f1 = [np.mean(run["f1"]) for run in runs]
    assert rows[methods[0]]["F1"] == f"**{np.mean(f1):.1f}** ± {np.std(f1, ddof=1):.1f}"
    assert rows[methods[0]]["runs"].startswith("2, ± ")


@pytest.mark.parametrize("name", ["learning-curves", "parses"])
def test_the_pictures_are_not_blank(whole_run, name):
    with Image.open(whole_run / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    drawn = (pixels != pixels[0, 0]).any(-1)
    assert min(pixels.shape[:2]) > 400
    assert 0.003 < drawn.mean() < 0.5


def test_every_method_has_a_line_of_its_own():
    assert set(LINES) == set(METHODS)
    for part in ("colour", "dashes", "marker"):
        assert len({getattr(line, part) for line in LINES.values()}) == len(LINES)


def test_the_page_of_a_finished_run(capsys, whole_run, tmp_path):
    page, markdown = run_report(capsys, whole_run, "--out", tmp_path, out=tmp_path)
    for name in (*METHODS, *TRIVIAL):
        assert name in page
        assert f"| {name}" in markdown
    assert "gold trees" in page
    assert "There is one run a method" in page
    names = {file.name for file in (tmp_path / "report-files").iterdir()}
    assert names == {"learning-curves.svg", "parses.svg"}


def test_the_page_of_a_run_that_was_stopped_or_lost_checkpoints(
    capsys, tmp_path, monkeypatch, data
):
    methods = ("table-marginalisation", "marginalisation")
    task, folder = start(tmp_path / "run", data, methods=methods)
    assert "Nothing is finished" in run_report(capsys, folder.path)
    with monkeypatch.context() as patch:
        stop_after(patch, GrammarTask, "final_metrics", 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, folder)
    (folder.path / task.cells[0].folder / "checkpoint.pt").unlink()
    page, _ = run_report(capsys, folder.path)
    assert "1 cell is not finished" in page
    assert "its checkpoint is gone" in page


@pytest.mark.usefixtures("empty_pictures")
def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, data):
    monkeypatch.setattr(grammar_methods, "_entries", dict(grammar_methods._entries))
    grammar_methods.register(
        "wild", "benchmarks.grammar.methods:marginalisation", kind="table", rate=1e30
    )
    task, folder = start(tmp_path / "run", data, methods=("wild", "table-marginalisation"))
    text, files = run_task(task, folder)
    assert "- wild, seed 0: " in text
    assert all(file.is_file() for file in files)
    task, folder = start(tmp_path / "alone", data, methods=("wild",))
    _, files = run_task(task, folder)
    assert [file.name for file in files] == ["table.md"]


def test_text_without_trees_is_judged_by_its_nll_alone(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name, size in (("train", 40), ("test", 10)):
        (folder / f"{name}.src").write_text("the cat sees a dog\nshe sees it\n" * size)
    task, run = start(tmp_path / "run", str(folder), methods=("table-marginalisation",))
    run_task(task, run)
    (rows,) = tables(run.path)
    assert "F1" not in rows["table-marginalisation"]
    assert list(rows) == ["table-marginalisation"]
    assert (run.path / "parses.png").is_file()


# -- settings -------------------------------------------------------------------------------------


def test_presets_can_be_served():
    for preset in presets.values():
        Options(**{**preset, "data": preset["data"] or "somewhere"}).check()


def test_updates_are_measured_where_none_are_given(data):
    methods = ("table-marginalisation", "monte-carlo")
    task = tiny_task(data, methods=methods, updates=(), cpu_minutes=0.01)
    fast, slow = task.options.updates
    assert fast > slow >= 4


def test_both_environments_end_in_the_same_trees(data):
    found = []
    for tree in ("bottom-up", "top-down"):
        task = tiny_task(data, methods=("exact-sampling",), tree=tree)
        learner = task.make_learner(task.cells[0])
        learner.update(task.corpus.train.words)
        found.append(learner.validate())
    assert found[0] == found[1]
