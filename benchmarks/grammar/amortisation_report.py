"""The table and the picture of exact inference beside policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from tabulate import tabulate

from benchmarks.report.numbers import significant
from benchmarks.report.svg import INK, MARKERS, PAGE_WIDTH, SERIES
from benchmarks.report.ticks import plain_ticks
from benchmarks.run_folder import RunFolder
from benchmarks.throughput.measure import Timing

if TYPE_CHECKING:
    from benchmarks.grammar.amortisation import Comparison


def write(found: Sequence[Comparison], folder: RunFolder, cpu_seconds: float) -> str:
    """Writes `table.md` and `amortisation.png`.

    Args:
        found: What was measured.
        folder: Where to write.
        cpu_seconds: The time that each policy was trained for.

    Returns:
        The table.
    """
    table = make_table(found, cpu_seconds)
    folder.write_text("table.md", table + "\n")
    folder.write_figure("amortisation.png", draw(found))
    return table


def make_table(found: Sequence[Comparison], cpu_seconds: float) -> str:
    """Lays out what each policy costs and is worth, a line for each setting and policy."""
    rows = [
        [
            one.setting.grammar,
            one.setting.nonterminals,
            one.setting.words,
            one.policy,
            _per_sentence(one.exact),
            _per_sentence(one.sample),
            _per_sentence(one.update),
            f"{one.sampling_ratio:.2f}",
            f"{one.learning_ratio:.2f}",
            f"{one.untrained:.2f}",
            f"{one.gap:.2f}",
            _earned(one.sentences_to_earn(cpu_seconds)),
        ]
        for one in found
    ]
    headers = [
        "grammar", "NT", "words", "policy", "exact, ms", "policy's sample, ms", "update, ms",
        "exact / sample", "exact / (sample + update)", "KL(q‖p) untrained",
        f"after {cpu_seconds:g} s", "earned back after",
    ]  # fmt: skip
    legend = (
        "CPU milliseconds a sentence, median, one thread, batches of 32 sentences of that length; "
        "all sides in turns within each repeat, ratios the median of those within a repeat. "
        "exact: inside algorithm and a tree. Policy's sample: encoder and a tree; update: "
        "of detailed balance over nodes, four trees a sentence. exact / sample: what a trained "
        "policy gains; with the update: what it gains inside EM, where it is trained all along. "
        f"KL(q‖p): nats a held-out sentence, before and after {cpu_seconds:g} CPU-seconds of "
        "training, which are earned back after so many sentences, if ever. Exact inference has a "
        "KL of 0."
    )
    return f"{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n\n{legend}"


def draw(found: Sequence[Comparison]) -> Figure:
    """Draws milliseconds a sentence by grammar size and by length, a row for each kind."""
    kinds = list(dict.fromkeys(one.setting.grammar for one in found))
    figure = Figure(figsize=(PAGE_WIDTH, 1 + 3 * len(kinds)), dpi=110, layout="constrained")
    panels = figure.subplots(len(kinds), 2, squeeze=False, sharey="row")
    for row, kind in zip(panels, kinds, strict=True):
        here = [one for one in found if one.setting.grammar == kind]
        words = _commonest([one.setting.words for one in here])
        labels = max(one.setting.nonterminals for one in here if one.setting.words == words)
        by_length = [one for one in here if one.setting.words != words]
        if by_length:
            labels = by_length[0].setting.nonterminals
        _plot(
            row[0],
            [one for one in here if one.setting.words == words],
            lambda one: one.setting.nonterminals,
            f"{kind}: nonterminals, {words} words",
        )
        _plot(
            row[1],
            [one for one in here if one.setting.nonterminals == labels],
            lambda one: one.setting.words,
            f"{kind}: words, {labels} nonterminals",
        )
        row[0].set_ylabel("CPU ms a sentence")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _plot(axes: Any, found: list[Comparison], size: Callable[[Comparison], int], text: str) -> None:
    """Plots every side against one size, with bands from quartile to quartile."""
    policies = list(dict.fromkeys(one.policy for one in found))
    sides: list[tuple[str, str, str, str, list[tuple[int, Timing]]]] = [
        ("exact", INK, "x", "-", [(size(o), o.exact) for o in found if o.policy == policies[0]])
    ]
    for i, policy in enumerate(policies):
        own = [one for one in found if one.policy == policy]
        look = SERIES[i], MARKERS[i]
        sides.append((f"{policy}, sample", *look, "-", [(size(o), o.sample) for o in own]))
        sides.append((f"{policy}, update", *look, "--", [(size(o), o.update) for o in own]))
    for name, colour, marker, dashes, points in sides:
        at, timings = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        axes.plot(at, [timing.median for timing in timings], label=name,
                  color=colour, marker=marker, linestyle=dashes, markersize=5)  # fmt: skip
        low, high = zip(*(timing.quartiles for timing in timings), strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel=text)
    axes.set_xticks(sorted({size(one) for one in found}))
    plain_ticks(axes.xaxis)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_ticks(axes.yaxis)
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _per_sentence(timing: Timing) -> str:
    return significant(timing.median, 2)


def _earned(sentences: float | None) -> str:
    return "never" if sentences is None else f"{significant(sentences, 2)} sentences"


def _commonest(numbers: list[int]) -> int:
    return max(numbers, key=numbers.count)
