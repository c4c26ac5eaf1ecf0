"""The discrete-VAE task: every method learns and is judged, exactly repeatably, image by image."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from algorithms.minibatch_learner import MinibatchLearner
from algorithms.sleep_phase import SleepPhase
from benchmarks import cli, runner
from benchmarks.discrete_vae import learner as learner_module
from benchmarks.discrete_vae import report
from benchmarks.discrete_vae.judgement import is_collapsed
from benchmarks.discrete_vae.lines import LINES
from benchmarks.discrete_vae.methods import dvae_methods
from benchmarks.discrete_vae.pictures import draw_curves
from benchmarks.discrete_vae.report import HEADERS, make_rows
from benchmarks.discrete_vae.results import DVAEResult
from benchmarks.discrete_vae.sweep import Options, presets
from benchmarks.discrete_vae.task import DiscreteVAETask
from benchmarks.held_out import task as task_module
from benchmarks.held_out import timing
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.results import stand
from benchmarks.held_out.timing import updates_within
from benchmarks.report.command import write_report
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run, run_task
from gfn_envs.errors import UserError
from lvms.model import LatentVariableModel
from tests.benchmarks.dvae_runs import (
    NAME,
    numbers,
    resume,
    start,
    table,
    tiny_task,
    words,
    write_bars,
)
from tests.benchmarks.reports import run_report
from tests.benchmarks.runs import stop_after, stray_files

pytestmark = pytest.mark.xdist_group("discrete_vae")  # they share undisturbed runs

METHODS = tuple(dvae_methods)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, data):
    """A run of every method, carried out in one process."""
    task, folder = start(tmp_path_factory.mktemp("whole") / "run", data, methods=METHODS)
    run_task(task, folder)
    return folder.path


@pytest.fixture
def empty_pictures(monkeypatch):
    """Drawing is most of the time of a tiny run; others look at the real pictures."""
    for name in ("draw_curves", "draw_reconstructions", "draw_samples"):
        monkeypatch.setattr(report, name, lambda *_: Figure(figsize=(1, 1)))


# -- what is measured -----------------------------------------------------------------------------


def test_every_method_is_measured_and_saved_image_by_image(whole_run, data):
    task = tiny_task(data, methods=METHODS)
    marginal = None
    for cell in task.cells:
        folder = RunFolder(whole_run / cell.folder)
        lines, metrics = folder.read_metrics(), folder.read_json("summary.json")["metrics"]
        assert [line["update"] for line in lines] == [2, 4]
        assert [line["minibatches"] for line in lines] == [6, 12]
        images = folder.read_json("per-image.json")
        for name, values in images.items():
            assert len(values) == 40
            assert metrics[name]["mean"] == pytest.approx(np.mean(values), rel=1e-5)
        nll, few, one = (np.mean(images[k]) for k in ("nll", "few_nll", "negative_elbo"))
        # Tighter bounds are higher in expectation; 40 images' noise is far smaller than a nat.
        assert nll < few + 0.5 < one + 1
        assert np.allclose(np.add(images["nll"], images["below_marginal"]), images["marginal_nll"])
        marginal = marginal or images["marginal_nll"]
        assert images["marginal_nll"] == marginal  # of the training images, whatever was learned
        assert 1 <= metrics["code_perplexity"]["mean"] <= 3.0001


def test_independent_pixels_are_those_of_the_training_images(whole_run, data):
    task = tiny_task(data)
    on = (task.images.train.sum(0) + 0.5) / (len(task.images.train) + 1)
    x = task.images.test
    expected = -(x * on.log() + (1 - x) * (1 - on).log()).flatten(1).sum(1)
    images = RunFolder(whole_run / task.cells[0].folder).read_json("per-image.json")
    assert np.allclose(images["marginal_nll"], expected, rtol=1e-4)


def test_importance_samples_find_the_exact_nll(data):
    task = tiny_task(data, samples=3000)  # of 81 structures
    learner = task.make_learner(MethodCell("gflownet-em", 0))
    for _ in range(task.num_updates):
        learner.update(task.images.train)
    judged = learner.judge()
    off = (judged["nll"] - judged["exact_nll"]).abs()
    # 40 images: the largest of 40 normal numbers is beyond 5 in 1 of 40,000 cases.
    assert (off < 5 * judged["nll_error"] + 1e-4).all()
    assert off.mean() < 0.05
    with torch.no_grad():
        model, _ = learner.best()
        z = model.env.enumerate(model.context(task.images.test)[0])
        x = task.images.test[:1].expand(len(z), -1, -1, -1)
        assert judged["exact_nll"][0].item() == pytest.approx(
            -model.log_joint(x, z).logsumexp(0).item(), abs=1e-3
        )


def test_a_bar_shows_how_many_test_images_are_judged(data, monkeypatch):
    shown = []

    class Bar(learner_module.tqdm):
        def update(self, n=1):
            shown.append(n)

    monkeypatch.setattr(learner_module, "tqdm", Bar)
    task = tiny_task(data)
    learner = task.make_learner(task.cells[0])
    learner.judge()
    assert sum(shown) == len(task.images.test)
    learner.judge()  # what is known is not measured again
    assert sum(shown) == len(task.images.test)


def test_there_is_no_exact_nll_of_many_structures(data):
    task = tiny_task(data, grid=(3, 3), codes=4)
    assert "exact_nll" not in task.make_learner(task.cells[0]).judge()


def test_methods_share_their_start_and_seeds_differ(data):
    task = tiny_task(data, methods=METHODS, seeds=2)
    starts = {}
    for cell in task.cells:
        model = task.make_learner(cell).model
        weights = tuple(torch.cat([p.flatten() for p in model.parameters()]).tolist())
        assert starts.setdefault(cell.seed, weights) == weights
    assert starts[0] != starts[1]


def test_the_weights_that_were_best_are_judged(data, monkeypatch):
    task = tiny_task(data)
    learner = task.make_learner(task.cells[0])
    learner.update(task.images.train)
    best = learner.validate()
    expected = learner.judge()["nll"]
    with torch.no_grad():
        learner.model.pixel_bias.fill_(-5.0)
    assert learner.validate()["nll"] > best["nll"] + 10
    learner.update(task.images.train)
    saved = learner.state_dict()
    assert torch.equal(learner.judge()["nll"], expected)
    resumed = task.make_learner(task.cells[0])
    resumed.load_state_dict(saved)
    assert torch.equal(resumed.judge()["nll"], expected)
    assert resumed.validate()["nll"] > best["nll"] + 1
    assert torch.equal(resumed.judge()["nll"], expected)


def test_measuring_again_finds_and_costs_the_same(data):
    task = tiny_task(data)
    learner = task.make_learner(task.cells[0])
    learner.update(task.images.train)
    before = learner.likelihood_evaluations
    assert learner.validate() == learner.validate()
    learner.judge()
    assert learner.likelihood_evaluations == before > 0


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
        (LatentVariableModel, "mark_updated", 8),  # in the middle of a round
        (DiscreteVAETask, "final_metrics", 0),
        (DiscreteVAETask, "save_details", 0),
        (RunFolder, "write_json", 0),  # the cell's summary
        (RunFolder, "write_figure", 1),
    ],
)
def test_resumes_from_anywhere(tmp_path, monkeypatch, whole_run, data, owner, name, calls):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    task, folder = start(tmp_path / "run", data, methods=("gflownet-em-tb",))
    # The cell has its config already, so that the first JSON written is its summary.
    RunFolder.create(folder.path / task.cells[0].folder, {"method": "gflownet-em-tb", "seed": 0})
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, folder)
    resume(folder.path)
    cell = task.cells[0].folder
    assert numbers(folder.path)[cell] == numbers(whole_run)[cell]


@pytest.mark.usefixtures("empty_pictures")
def test_two_workers_find_what_one_finds_and_warn_as_it_does(tmp_path, whole_run, data, capfd):
    task, folder = start(tmp_path / "run", data, methods=("gflownet-em", "mean-field"))
    run_task(task, folder, workers=2)
    found, expected = numbers(folder.path), numbers(whole_run)
    errors, warned = capfd.readouterr().err, []
    for cell in task.cells:
        assert found[cell.folder] == expected[cell.folder]
        line = RunFolder(folder.path / cell.folder).read_metrics()[0]
        collapsed = is_collapsed(line["below_marginal"], line["nll"] + line["below_marginal"])
        assert errors.count(f"{cell.title}: after 2 of 4 rounds its NLL of ") == collapsed
        warned.append(collapsed)
    assert any(warned)


# -- collapse, and learning -----------------------------------------------------------------------


@pytest.mark.usefixtures("empty_pictures")
def test_what_is_learned_is_seen_and_collapse_is_warned_of_once(tmp_path, data, capfd):
    common = {"methods": ("gflownet-em", "gflownet-em-equal"), "rounds": 10, "channels": 16,
              "hidden": 16, "updates": (800, 10)}  # fmt: skip
    task, folder = start(tmp_path / "run", data, **common)
    run_task(task, folder)
    learned, collapsed = table(folder.path).values()
    assert learned["method"] == "gflownet-em"
    assert float(learned["below pixels"]) > 5  # of about 37 nats
    assert learned["above the best"] == "best"
    assert collapsed["method"] == "gflownet-em-equal (collapsed)"
    errors = capfd.readouterr().err
    assert errors.count("only ") == 1
    assert "gflownet-em-equal, seed 0: after 4 of 10 rounds its NLL of " in errors
    page, _ = write_report(folder.path)
    assert "Of gflownet-em-equal at least one run has collapsed" in page.read_text()


def test_a_percent_is_the_border_of_collapse():
    assert is_collapsed(1.9, 200.0)
    assert is_collapsed(-3.0, 200.0)
    assert not is_collapsed(2.1, 200.0)


# -- how many updates -----------------------------------------------------------------------------


class Clocked:
    """A learner whose first half of updates takes longer than the rest."""

    def __init__(self, count, clock):
        self.count, self.clock = count, clock

    def update(self, x):
        self.clock[0] += (self.count + 1) // 2 * 0.03 + self.count // 2 * 0.01
        self.clock[1].append(self.count)


def test_updates_are_counted_from_a_whole_run_in_miniature(monkeypatch):
    clock = [0.0, []]
    monkeypatch.setattr(timing.time, "process_time", lambda: clock[0])
    found = updates_within(60.0, lambda count: Clocked(count, clock), None)
    assert found == pytest.approx(60 / 0.02, rel=0.02)
    assert clock[1] == [8, 75]


def test_measured_updates_are_part_of_the_settings(tmp_path, data, monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.05)
    methods = ("gflownet-em", "gflownet-em-alternating")
    task, folder = start(tmp_path / "run", data, methods=methods, updates=(), cpu_minutes=0.01)
    updates = folder.read_json("config.json")["options"]["updates"]
    assert tuple(updates) == task.options.updates
    assert len(updates) == 2
    assert all(4 <= count < 2000 for count in updates)

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(task_module, "updates_within", again)
    _, opened = open_run(NAME, folder.path)
    assert opened.options == task.options
    for cell, count in zip(opened.cells, updates, strict=True):
        assert opened.make_learner(cell).learner.num_updates == count


def test_updates_are_one_number_for_all_or_one_for_each(data):
    task = tiny_task(data, methods=("paper", "reinforce"), updates=(12,))
    assert [task.num_minibatches(method) for method in task.options.methods] == [12, 12]
    task = tiny_task(data, methods=("paper", "reinforce"), updates=(12, 20))
    assert [task.num_minibatches(method) for method in task.options.methods] == [12, 20]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "--samples must be at least 1; got 0."),
        ({"validation_samples": 0}, "--validation-samples must be at least 1"),
        ({"validation_images": 0}, "--validation-images must be at least 1"),
        ({"test_images": -1}, "--test-images must be at least 0; got -1."),
        ({"rounds": 0}, "--rounds must be at least 1"),
        ({"every": 0}, "--every must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"channels": 0}, "--channels must be at least 1"),
        ({"code_dim": 0}, "--code-dim must be at least 1"),
        ({"codes": 0}, "--codes must be at least 1"),
        ({"hidden": 0}, "--hidden must be at least 1"),
        ({"first_seed": -1}, "--first-seed must be at least 0; got -1."),
        ({"methods": ("gflownet-me",)}, "no discrete VAE method 'gflownet-me'. Did you mean"),
        ({"methods": ("paper", "paper")}, "--methods names paper twice"),
        ({"prior": "pixelcnn"}, "no prior over codes 'pixelcnn'. Did you mean pixel-cnn"),
        ({"grid": (2,)}, "--grid takes two numbers"),
        ({"grid": (2, 0)}, "--grid takes two numbers, rows and columns of at least 1"),
        ({"grid": (9, 2)}, "A grid of 9 x 2 codes is larger than the image of 8 x 8 pixels."),
        ({"updates": (3,)}, "--updates must be at least --rounds, 4; got 3."),
        ({"updates": (8, 8)}, "--updates takes one number, or one for each of the 7 methods"),
        ({"cpu_minutes": 0}, "--cpu-minutes must be a positive number"),
        ({"cpu_minutes": "nan"}, "--cpu-minutes must be a positive number"),
        ({"data": "mnist-6k"}, "'mnist-6k'. Did you mean mnist-5k"),
    ],
)
def test_wrong_words(changes, message, capsys, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", NAME, *words(**{"data": data, **changes})]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gfnem: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_and_images_of_two_sizes_give_one_line(tmp_path, capsys):
    damaged = tmp_path / "damaged"
    write_bars(damaged)
    file = damaged / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    packed = tmp_path / "packed"
    write_bars(packed)
    whole = gzip.compress((packed / "train-images-idx3-ubyte").read_bytes())
    (packed / "train-images-idx3-ubyte").unlink()
    (packed / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    mixed = tmp_path / "mixed"
    write_bars(mixed)
    larger = write_bars(tmp_path / "larger", side=10)
    shutil.copy(f"{larger}/t10k-images-idx3-ubyte", mixed)
    for folder, message in (
        (damaged, "damaged"), (packed, "damaged"), (mixed, "differ in size"),
    ):  # fmt: skip
        assert cli.main(["run", NAME, *words(str(folder), out=str(tmp_path / "run"))]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert str(folder) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["train", "t10k"])
def test_images_that_changed_since_the_start_are_refused(tmp_path, capsys, name):
    images = tmp_path / "bars"
    _, folder = start(tmp_path / "run", write_bars(images), methods=("reinforce",))
    file = images / f"{name}-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[16:80] = bytes(64)  # the first image is black now
    file.write_bytes(content)
    assert cli.main(["run", NAME, "--resume", str(folder.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "The data are not those that the run" in line


# -- comparisons ----------------------------------------------------------------------------------


def found(method, nll):
    """A result of which only the NLL, `[runs, images]`, matters."""
    cells = [MethodCell(method, seed) for seed in range(len(nll))]
    images = {"nll": nll, "marginal_nll": nll + 9.0, "below_marginal": np.full_like(nll, 9.0)}
    images |= dict.fromkeys(("negative_elbo", "few_nll", "effective_samples"), np.ones_like(nll))
    means = dict.fromkeys(("code_perplexity", "cpu_seconds"), np.ones(len(nll)))
    return DVAEResult(cells, images, means, {"minibatches": np.ones((len(nll), 1))})


def test_methods_are_compared_image_by_image():
    random = np.random.default_rng(0)
    hard = random.normal(90, 20, 400)  # some images are harder than others, for all methods
    best = found("best", hard + random.normal(0, 1, (1, 400)))
    worse = found("worse", hard + 0.4 + random.normal(0, 1, (2, 400)))
    same = found("same", best.details["nll"] + random.normal(0, 1, (1, 400)).round(12))
    same.details["nll"][:] += 0.02 - (same.score - best.score).mean()
    first, second, third = stand([worse, best, same])
    assert [one.behind == 0 for one in (first, second, third)] == [False, True, False]
    # Differences have a standard deviation of 1.22 = (1 + 1 / 2)^0.5, their mean one of 0.061.
    assert first.behind == pytest.approx(0.4, abs=4 * 0.061)
    low, high = first.behind_interval
    assert low < first.behind < high
    assert high - low == pytest.approx(2 * 1.96 * 0.061, rel=0.2)
    assert not first.tied
    assert third.behind == pytest.approx(0.02)
    assert third.tied
    assert second.behind_interval is None
    low, high = second.interval
    assert high - low == pytest.approx(2 * 1.96 * 20 / 400**0.5, rel=0.2)
    # Unpaired, two intervals that overlap would tell nothing.
    assert first.interval[0] < second.interval[1]


def test_runs_of_a_method_are_averaged_and_collapse_is_counted():
    result = found("some", np.array([[10.0, 20.0], [14.0, 22.0]]))
    assert result.score.tolist() == [12.0, 21.0]
    assert result.mean("nll") == 16.5
    assert result.collapsed == 0
    result.details["below_marginal"][1] = 0.1
    assert result.collapsed == 1
    (row,) = make_rows(stand([result]))
    assert row[0] == "some (1 of 2 runs collapsed)"
    assert row[HEADERS.index("runs")] == "2, ± 2.12"  # of 15 and 18


# -- the report -----------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_method(whole_run):
    rows = table(whole_run)
    assert [name.partition(" ")[0] for name in rows] == list(METHODS)
    nll = {name: float(row["test NLL"].strip("*").partition("*")[0].split()[0])
           for name, row in rows.items()}  # fmt: skip
    (best,) = [name for name, row in rows.items() if row["above the best"] == "best"]
    assert nll[best] == min(nll.values())
    for name, row in rows.items():
        cell = RunFolder(whole_run / "cells" / name.partition(" ")[0] / "00")
        images = cell.read_json("per-image.json")
        assert nll[name] == pytest.approx(np.mean(images["nll"]), abs=0.0051)
        assert float(row["exact NLL"]) == pytest.approx(np.mean(images["exact_nll"]), abs=0.0051)
        assert float(row["below pixels"]) == pytest.approx(
            np.mean(images["below_marginal"]), abs=0.0051
        )
        assert row["updates"] == "12"


@pytest.mark.parametrize("name", ["learning-curves", "reconstructions", "samples"])
def test_the_pictures_are_not_blank(whole_run, name):
    with Image.open(whole_run / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    drawn = (pixels != pixels[0, 0]).any(-1)
    assert min(pixels.shape[:2]) > 400
    assert 0.003 < drawn.mean() < 0.9


def test_curves_fill_the_picture_after_their_steep_start():
    nll = np.array([[200.0, 84.0, 82.0, 81.0, 80.0]])
    result = found("gflownet-em", nll)
    curves = {"nll": nll, "below_marginal": 212.0 - nll, "minibatches": np.arange(1.0, 6.0)[None]}
    figure = draw_curves([replace(result, curves=curves | {"cpu_seconds": curves["minibatches"]})])
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert 79.0 < low < 80.0
        assert 84.0 < high < 85.0
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "gflownet-em", "independent pixels: 212.0",
    ]  # fmt: skip


def test_every_method_has_a_line_of_its_own():
    assert set(LINES) == set(METHODS)
    for part in ("colour", "dashes", "marker"):
        assert len({getattr(line, part) for line in LINES.values()}) == len(LINES)


def test_the_page_of_a_finished_run(capsys, whole_run, tmp_path):
    page, markdown = run_report(capsys, whole_run, "--out", tmp_path, out=tmp_path)
    for method in METHODS:
        assert method in page
        assert f"| {method}" in markdown
    assert "There is one run a method" in page
    names = {file.name for file in (tmp_path / "report-files").iterdir()}
    assert names == {"learning-curves.svg", "reconstructions.png", "samples.png"}


def test_the_page_of_a_run_that_was_stopped_or_lost_checkpoints(
    capsys, tmp_path, monkeypatch, data
):
    task, folder = start(tmp_path / "run", data, methods=("reinforce", "mean-field"))
    assert "Nothing is finished" in run_report(capsys, folder.path)
    with monkeypatch.context() as patch:
        stop_after(patch, DiscreteVAETask, "final_metrics", 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, folder)
    cell = folder.path / task.cells[0].folder
    (cell / "checkpoint.pt").unlink()
    page, _ = run_report(capsys, folder.path)
    assert "1 cell is not finished" in page
    assert "have no summary to compare" in run_report(capsys, folder.path, "--against", folder.path)
    lists = json.loads((cell / "per-image.json").read_text())
    for content in ("{", json.dumps({**lists, "nll": lists["nll"][1:]}), json.dumps({"nll": [1]})):
        (cell / "per-image.json").write_text(content)
        assert "per-image.json is damaged; delete" in run_report(capsys, folder.path)


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, data, capfd):
    monkeypatch.setattr(dvae_methods, "_entries", dict(dvae_methods._entries))
    dvae_methods.register("wild", "benchmarks.discrete_vae.methods:reinforce", rate=1e30)
    task, folder = start(tmp_path / "run", data, methods=("wild", "reinforce"))
    text, files = run_task(task, folder)
    assert "- wild, seed 0: " in text
    assert [name.partition(" ")[0] for name in table(folder.path)] == ["reinforce"]
    assert all(file.is_file() for file in files)
    assert folder.read_json("summary.json")["status"] == "some cells failed"
    task, folder = start(tmp_path / "alone", data, methods=("wild",))
    text, files = run_task(task, folder)
    assert "- wild, seed 0: " in text
    assert [file.name for file in files] == ["table.md"]


# -- settings -------------------------------------------------------------------------------------


def test_presets_can_be_served():
    for preset in presets.values():
        Options(**preset).check()
    assert Options(**presets["paper"]).methods == ("paper",)


@pytest.mark.parametrize(
    ("method", "sleep"),
    [
        ("gflownet-em-dreams", SleepPhase(1.0, 30.0)),
        ("gflownet-em-warm", SleepPhase(1.0, 10.0)),
        ("reweighted-wake-sleep-dreams", SleepPhase(1.0, 10.0)),
        ("gflownet-em", SleepPhase(0.5, 3.0)),
        ("gflownet-em-no-sleep", None),
        ("reweighted-wake-sleep", None),
    ],
)
def test_how_often_and_how_heavily_methods_dream(data, method, sleep):
    task = tiny_task(data, methods=(method,))
    assert task.make_learner(task.cells[0]).learner.sleep == sleep


def test_the_default_run_has_exact_likelihoods():
    task = DiscreteVAETask(Options(updates=(100,), samples=2))
    assert len(task.judges.test) == 179
    assert "exact_nll" in task.make_learner(task.cells[0]).judge()


# -- VQ-VAE, whose policy is fitted last -----------------------------------------------------------


def test_a_vq_vae_is_measured_by_its_own_bound_until_its_policy_learns(data):
    task = tiny_task(data, methods=("vq-vae",), rounds=10, updates=(200,))
    learner = task.make_learner(task.cells[0])
    x = task.judges.validation
    for _ in range(5):  # of 7 that learn the decoder
        learner.update(task.images.train)
    early = learner.validate()
    assert early["nll"] == pytest.approx(-learner.learner.own_bound(x).mean().item())
    assert early["effective_samples"] == 0
    assert not learner.state_dict()["best"]
    for _ in range(5):
        learner.update(task.images.train)
    late = learner.validate()
    assert late["effective_samples"] > 0
    assert late["nll"] == learner.state_dict()["best"]["nll"]
    judged = learner.judge()
    assert (judged["own_nll"] >= judged["exact_nll"] - 1e-3).all()  # one term of the sum


def test_the_table_says_what_a_vq_vaes_own_bound_is(whole_run):
    assert "By its own bound vq-vae has " in (whole_run / "table.md").read_text()


def test_codes_can_be_put_in_any_order(data):
    task = tiny_task(data, methods=("gflownet-em", "paper"), order="any", samples=3000)
    learner = task.make_learner(task.cells[0])
    for _ in range(task.num_updates):
        learner.update(task.images.train)
    judged = learner.judge()
    off = (judged["nll"] - judged["exact_nll"]).abs()
    assert (off < 5 * judged["nll_error"] + 1e-4).all()
    with pytest.raises(UserError, match="fixed order"):
        tiny_task(data, methods=("gumbel-softmax",), order="any")
