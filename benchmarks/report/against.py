"""The report's comparison with earlier results: what differs beyond what seeds explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.report.contest import Contest
from benchmarks.report.document import Block, Bullets, Entry, Notice, Paragraph, Section, Table
from benchmarks.report.numbers import p_value, significant
from benchmarks.report.ranking import behind
from benchmarks.report.reference import Reference
from benchmarks.report.results import Combination, from_json
from benchmarks.report.statistics import (
    LEVEL,
    bootstrap_interval,
    holm,
    paired_p_value,
    unpaired_p_value,
)

NOT_OF_TRAINING = ("tasks", "seeds", "first_seed", "every")
"""Options that say which cells there are and when they are measured, not how each is trained; those
that name the choices are others."""

CORRECTED = (
    "with Holm's correction for the number of combinations; where one side has a single seed, the "
    "other's spread serves for both."
)


def against(
    found: Sequence[Combination], config: Mapping[str, Any], reference: Reference
) -> Section:
    """Compares a run with earlier results.

    Args:
        found: The run's combinations, at least one.
        config: What its `config.json` holds.
        reference: The earlier results.

    Returns:
        A section that says what differs, how much agrees, and what only one side has.
    """
    contest = found[0].contest
    old = {one.key: one for one in from_json(contest, reference.summary.get("combinations"))}
    new = {one.key: one for one in found}
    both = [key for key in new if key in old]
    p_values = compare([(new[key], old[key]) for key in both])
    tested = [(key, p) for key, p in zip(both, p_values, strict=True) if p is not None]
    differing = sorted((p, key) for key, p in tested if p <= 1 - LEVEL)
    blocks: list[Block] = _conditions(contest, config, reference)
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
    blocks.append(Paragraph(_how(contest)))
    return Section(f"Against {reference.name}", blocks)


def _grouped(keys: Sequence[tuple[str, ...]]) -> str:
    """Names combinations, those that differ in the last choice alone together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for *shared, last in keys:
        groups.setdefault(tuple(shared), []).append(last)
    return "; ".join(
        f"{', '.join(shared)} with {', '.join(names)}" for shared, names in groups.items()
    )


def compare(pairs: Sequence[tuple[Combination, Combination]]) -> list[float | None]:
    """Tests whether combinations differ between two runs.

    Returns:
        Holm's adjusted p-value of each pair, None of two single seeds.
    """
    return holm([_compare(new, old) for new, old in pairs])


def _compare(new: Combination, old: Combination) -> float | None:
    """Tests whether a combination differs."""
    quantity = new.contest.quantity
    seeds = _paired_seeds(new, old)
    if not seeds:
        return unpaired_p_value(new.values, old.values, quantity.logarithmic, quantity.rounding)
    here, there = ([one.by_seed()[seed] for seed in seeds] for one in (new, old))
    return paired_p_value(here, there, quantity.logarithmic, quantity.rounding)


def _paired_seeds(new: Combination, old: Combination) -> list[int]:
    """Finds the seeds to compare one by one, none where seeds have no data of their own."""
    both = [seed for seed in new.seeds if seed in old.seeds]
    return both if new.contest.seeds_share and len(both) > 1 else []


def _how(contest: Contest) -> str:
    """Explains how runs are compared."""
    label = contest.quantity.label
    scale = f"the logarithms of {label}" if contest.quantity.logarithmic else f"the {label}"
    if contest.seeds_share:
        return (
            f"Runs are compared combination by combination on {scale}: by a t-test paired by seed "
            "where they have two seeds or more in common, for the same seed draws the same data "
            f"and start, and by Welch's t-test, each seed a value, otherwise; {CORRECTED}"
        )
    return (
        f"Runs are compared combination by combination by Welch's t-test on {scale}, each seed a "
        f"value, {CORRECTED} Bootstrap intervals of three seeds are too narrow to be held against "
        "each other. The same seeds on another processor or with another version of torch round "
        "differently, and are then as good as other seeds."
    )


def _conditions(contest: Contest, config: Mapping[str, Any], reference: Reference) -> list[Block]:
    """Names what the two runs were made with, where that differs."""
    other = reference.summary["config"]
    which = {*NOT_OF_TRAINING, *(f"{choice}s" for choice in contest.choices)}
    settings = [name for name in config["options"] if name not in which]
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
    contest = rows[0][0].contest
    quantity = contest.quantity
    headers = ["task", *contest.choices, quantity.label, f"in {name}",
               "times as large" if quantity.logarithmic else "difference",
               "p, corrected"]  # fmt: skip
    return Table(
        headers,
        [
            [*map(Entry, new.key), _mean(new), _mean(old), _difference(new, old),
             Entry(p_value(p), p)]
            for new, old, p in rows
        ],
        "Means over seeds, with bootstrap 95 % intervals below them.",
    )  # fmt: skip


def _mean(one: Combination) -> Entry:
    """Shows a mean with its interval."""
    interval = bootstrap_interval(one.values)
    note = "1 seed" if interval is None else " to ".join(map(significant, interval))
    return Entry(significant(one.mean), one.mean, note=note)


def _difference(new: Combination, old: Combination) -> Entry:
    """Shows how many times as large an error is as it was, or by how much it differs."""
    quantity = new.contest.quantity
    if quantity.logarithmic:
        ratio = behind(quantity, new.mean, old.mean)
        return Entry(f"{ratio:.2f}", ratio)
    here, there = new.by_seed(), old.by_seed()
    seeds = _paired_seeds(new, old)
    differences = [here[seed] - there[seed] for seed in seeds] or [new.mean - old.mean]
    mean = float(np.mean(differences))
    return Entry(significant(mean, 2), mean)
