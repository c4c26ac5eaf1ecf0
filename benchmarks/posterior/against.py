"""The report's comparison with earlier results: what differs beyond what seeds explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.posterior.quantities import QUANTITIES
from benchmarks.posterior.results import METRIC, Combination, from_json
from benchmarks.report.document import Block, Bullets, Entry, Notice, Paragraph, Section, Table
from benchmarks.report.numbers import p_value, significant
from benchmarks.report.reference import Reference
from benchmarks.report.statistics import LEVEL, bootstrap_interval, holm, unpaired_p_value

NOT_OF_TRAINING = ("tasks", "objectives", "explorations", "seeds", "every")
"""Options that say which cells there are and when they are measured, not how each is trained."""

HOW = (
    "Runs are compared combination by combination by Welch's t-test on the logarithms of total "
    "variation, each seed a value, with Holm's correction for the number of combinations; where "
    "one side has a single seed, the other's spread serves for both. Bootstrap intervals of three "
    "seeds are too narrow to be held against each other. The same seeds on another processor or "
    "with another version of torch round differently, and are then as good as other seeds."
)


def against(
    found: Sequence[Combination], config: Mapping[str, Any], reference: Reference
) -> Section:
    """Compares a run with earlier results.

    Args:
        found: The run's combinations.
        config: What its `config.json` holds.
        reference: The earlier results.

    Returns:
        A section that says what differs, how much agrees, and what only one side has.
    """
    old = {one.key: one for one in from_json(reference.summary.get("combinations"))}
    new = {one.key: one for one in found}
    both = [key for key in new if key in old]
    p_values = compare([(new[key], old[key]) for key in both])
    tested = [(key, p) for key, p in zip(both, p_values, strict=True) if p is not None]
    differing = sorted((p, key) for key, p in tested if p <= 1 - LEVEL)
    blocks: list[Block] = _conditions(config, reference)
    unknown = (
        f" Too few seeds to tell: {len(both) - len(tested)}." if len(tested) < len(both) else ""
    )
    text = (
        f"Combinations in both: {len(both)}. Not told apart: {len(tested) - len(differing)}. "
        f"Different beyond what their seeds explain: {len(differing)}.{unknown}"
    )
    blocks.append(Paragraph(text))
    if differing:
        blocks.append(_table([(new[key], old[key], p) for p, key in differing], reference.name))
    for what, keys in (
        ("Only in this run", [key for key in new if key not in old]),
        (f"Only in {reference.name}", [key for key in old if key not in new]),
    ):
        if keys:
            blocks.append(Paragraph(f"{what} ({len(keys)}): {_grouped(keys)}."))
    blocks.append(Paragraph(HOW))
    return Section(f"Against {reference.name}", blocks)


def _grouped(keys: Sequence[tuple[str, str, str]]) -> str:
    """Names combinations, those of one task and objective together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for task, objective, exploration in keys:
        groups.setdefault((task, objective), []).append(exploration)
    return "; ".join(
        f"{task}, {objective} with {', '.join(names)}"
        for (task, objective), names in groups.items()
    )


def compare(pairs: Sequence[tuple[Combination, Combination]]) -> list[float | None]:
    """Tests whether combinations differ between two runs.

    Returns:
        Holm's adjusted p-value of each pair, None of two single seeds.
    """
    logarithmic = QUANTITIES[METRIC].logarithmic
    raw = [unpaired_p_value(a.values, b.values, logarithmic) for a, b in pairs]
    return holm(raw)


def _conditions(config: Mapping[str, Any], reference: Reference) -> list[Block]:
    """Names what the two runs were made with, where that differs."""
    other = reference.summary["config"]
    settings = [name for name in config["options"] if name not in NOT_OF_TRAINING]
    changed = [
        f"{name.replace('_', ' ')} is {config['options'][name]} here and "
        f"{other.get('options', {}).get(name, 'unknown')} there"
        for name in settings
        if config["options"][name] != other.get("options", {}).get(name)
    ]
    blocks: list[Block] = []
    if changed:
        text = f"The settings differ: {'; '.join(changed)}. What follows may come from that alone."
        blocks.append(Notice(Paragraph(text)))
    made = []
    for name, label in (("git_commit", "git commit"), ("versions", ""), ("machine", "")):
        here, there = config.get(name) or "unknown", other.get(name) or "unknown"
        if isinstance(here, dict) and isinstance(there, dict):
            made += [
                f"{part}: {value} here, {there.get(part, 'unknown')} there"
                for part, value in here.items()
                if there.get(part, "unknown") != value
            ]
        elif here != there:
            made.append(f"{label or name}: {here} here, {there} there")
    if made:
        blocks += [Paragraph("Made with:"), Bullets([Paragraph(line) for line in made])]
    return blocks


def _table(rows: Sequence[tuple[Combination, Combination, float]], name: str) -> Table:
    """Lists what differs, the surest first."""
    headers = ["task", "objective", "exploration", "total variation", f"in {name}",
               "times as large", "p, corrected"]  # fmt: skip
    return Table(
        headers,
        [
            [
                *map(Entry, new.key),
                _mean(new),
                _mean(old),
                Entry(f"{new.mean / old.mean:.2f}", new.mean / old.mean),
                Entry(p_value(p), p),
            ]
            for new, old, p in rows
        ],
        "Means over seeds, with bootstrap 95 % intervals below them.",
    )


def _mean(one: Combination) -> Entry:
    """Shows a mean with its interval."""
    interval = bootstrap_interval(one.values)
    note = f"{len(one.seeds)} seed" if interval is None else " to ".join(map(significant, interval))
    return Entry(significant(float(np.mean(one.values))), one.mean, note=note)
