"""A tree over a sentence as a picture, binary or not, its wrong constituents marked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.report.svg import INK, PAPER, SERIES
from lvms.data.parsed_sentence import Spans

WRONG = SERIES[1]
"""The colour of a constituent that the gold tree does not have; its lines are dashed."""

FONT_SIZE = 7.5


class _Node(NamedTuple):
    """A constituent or word: where it is drawn, and how high above the words."""

    x: float
    y: float


def draw_tree(axes: Any, words: Sequence[str], spans: Spans, gold: Spans | None = None) -> None:
    """Draws the tree that spans make.

    Args:
        axes: Of a matplotlib figure, for this tree alone.
        words: The sentence, n words.
        spans: Constituents of two words or more, none of which cross. The whole sentence is one
            even if it is not among them.
        gold: Those of the gold tree: others are drawn in another colour. All are right if None.
    """
    labels: dict[tuple[int, int], list[str]] = {(0, len(words)): []}
    for left, right, label in spans:
        labels.setdefault((left, right), []).append(label)
    known = {span[:2] for span in gold} if gold is not None else set(labels)
    known.add((0, len(words)))
    nodes = {(i, i + 1): _Node(i + 0.5, 0.0) for i in range(len(words))}
    roots = dict(nodes)  # what has no parent yet, from left to right
    for span in sorted(labels, key=lambda span: span[1] - span[0]):
        inside = {part: node for part, node in roots.items() if _is_in(part, span)}
        parts = list(inside.values())
        node = _Node((parts[0].x + parts[-1].x) / 2, 1 + max(part.y for part in parts))
        colour, dashes = (INK, "-") if span in known else (WRONG, (0, (4, 1.5)))
        for part in parts:
            axes.plot(
                [node.x, part.x], [node.y, part.y], color=colour, linestyle=dashes, linewidth=0.9,
                zorder=1,
            )  # fmt: skip
        text = " ".join(labels[span]).strip()
        if text:
            axes.text(
                node.x, node.y, text, color=colour, fontsize=FONT_SIZE, ha="center", va="center",
                zorder=2, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
        roots = {part: node for part, node in roots.items() if part not in inside} | {span: node}
        roots = dict(sorted(roots.items()))
        nodes[span] = node
    for i, word in enumerate(words):
        axes.text(
            i + 0.5, -0.15, word, fontsize=FONT_SIZE, color=INK, ha="right", va="center",
            rotation=35, rotation_mode="anchor",
        )  # fmt: skip
    axes.set(xlim=(-0.6, len(words)), ylim=(-1.4, nodes[0, len(words)].y + 0.5))
    axes.axis("off")


def _is_in(part: tuple[int, int], span: tuple[int, int]) -> bool:
    """Whether a span lies in another."""
    return span[0] <= part[0] and part[1] <= span[1]
