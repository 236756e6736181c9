"""Door to matplotlib: the charts of a report as SVG, readable on a light and on a dark page, the same each time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.figure import Figure

# Read on white and on near-black alike (contrast above 4.5 on both is not to be had: text is in the middle).
_INK, _BLUE, _GREEN, _RED = "#7d858f", "#2f81f7", "#2da44e", "#d1242f"
_COLOURS = {"promoted": _GREEN, "refused": _RED}
_NOT_NEEDED = re.compile(r"<metadata>.*?</metadata>|\s(?:xmlns|xmlns:xlink)=\"[^\"]*\"", re.DOTALL)
_STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NightPoint:
    """One night: its name, what it decided, and how far the candidate's bits are from the base model's (share)."""

    night: str
    outcome: Literal["promoted", "refused"]
    change: float


@rc_context(_STYLE)
def loss_chart(losses: Sequence[float], before: float | None, after: float | None) -> str:
    """Training loss by step, its mean over ten steps, and the held-out losses where they were measured."""
    figure, axes = _figure(7.0, 2.8)
    steps = range(1, len(losses) + 1)
    has_mean = len(losses) >= 20
    axes.plot(steps, losses, color=_BLUE, alpha=0.35 if has_mean else 1, linewidth=1, label="training, each step")
    if has_mean:
        means = [sum(losses[max(0, i - 9) : i + 1]) / len(losses[max(0, i - 9) : i + 1]) for i in range(len(losses))]
        axes.plot(steps, means, color=_BLUE, linewidth=1.8, label="mean of ten steps")
    for value, name, style in ((before, "held-out files before", ":"), (after, "held-out files after", "--")):
        if value is not None:
            axes.axhline(value, color=_INK, linestyle=style, linewidth=1.2, label=f"{name}: {value:.3f}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure, "loss")


@rc_context(_STYLE)
def mix_chart(tokens: Mapping[str, int]) -> str:
    """Tokens by kind of example, the most first."""
    kinds = sorted(tokens.items(), key=lambda item: item[1])
    figure, axes = _figure(7.0, 0.7 + 0.28 * len(kinds))
    bars = axes.barh([kind for kind, _ in kinds], [count for _, count in kinds], color=_BLUE, height=0.6)
    total = max(1, sum(tokens.values()))
    axes.bar_label(bars, [f"{count:,} ({count / total:.0%})" for _, count in kinds], padding=4, color=_INK)
    axes.margins(x=0.2)
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return _svg(figure, "mix")


@rc_context(_STYLE)
def history_chart(nights: Sequence[NightPoint]) -> str:
    """The change of bits per byte on newer code by night, coloured by what was decided."""
    figure, axes = _figure(7.0, 2.6)
    places = range(len(nights))
    changes = [night.change * 100 for night in nights]
    axes.plot(places, changes, color=_INK, linewidth=1, zorder=1)
    for outcome, colour in _COLOURS.items():
        chosen = [i for i in places if nights[i].outcome == outcome]
        if chosen:
            axes.scatter(chosen, [changes[i] for i in chosen], color=colour, s=36, zorder=2, label=outcome)
    axes.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
    # At most a dozen dates are readable.
    shown = list(places)[:: max(1, -(-len(nights) // 12))]
    axes.set_xticks(shown, [nights[i].night[:10] for i in shown], rotation=30, ha="right")
    axes.set_ylabel("bits per byte\nagainst the base model, %")
    axes.margins(x=0.05, y=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure, "history")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Figure by itself, not pyplot: nothing global is kept, and no display is asked for.
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _svg(figure: Any, name: str) -> str:
    text = io.StringIO()
    # The salt keeps the ids of two charts on one page apart, and the same from one run to the next.
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # Text stays text: the reader's fonts show what ours only measures.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    whole = text.getvalue()
    # In a page of HTML names need no namespaces; without them nothing in it is an address.
    return _NOT_NEEDED.sub("", whole[whole.index("<svg") :])
