"""Plots of the report, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Colour-blind safe (Paul Tol's bright scheme).
BLUE, RED, GREEN, YELLOW, PURPLE, GREY = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#777777",
)  # fmt: skip
CYCLE = (BLUE, RED, GREEN, YELLOW, PURPLE)
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pwm",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}

Series = tuple[Sequence[float], Sequence[float]]


def learning_curve(
    curves: Mapping[str, tuple[Sequence[int], NDArray[np.float64]]], lines: Mapping[str, float]
) -> str:
    """Real return against updates.

    Args:
        curves: seed -> (updates [N], returns [N, episodes]); the band is the range of episodes.
        lines: label -> level, drawn across (data mean, best tenth, random).
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for index, (seed, (updates, returns)) in enumerate(curves.items()):
            colour = CYCLE[index % len(CYCLE)]
            label = "policy" if len(curves) == 1 else f"policy, seed {seed}"
            axes.plot(updates, returns.mean(1), color=colour, marker="o", markersize=3, label=label)
            axes.fill_between(
                updates, returns.min(1), returns.max(1), color=colour, alpha=0.15, linewidth=0
            )
        for (label, level), colour in zip(lines.items(), (RED, GREEN, GREY), strict=False):
            axes.axhline(level, color=colour, linestyle="--", linewidth=1, label=label)
        axes.set(xlabel="updates", ylabel="real return")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.legend(fontsize=8)
        return _svg(figure)


def real_against_imagined(curves: Mapping[str, tuple[Series, Series]]) -> str:
    """Discounted real return and imagined value of the same start states, against updates."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for index, (seed, (real, imagined)) in enumerate(curves.items()):
            suffix = "" if len(curves) == 1 else f", seed {seed}"
            colour = CYCLE[index % len(CYCLE)]
            axes.plot(*real, color=colour, marker="o", markersize=3, label="real" + suffix)
            axes.plot(*imagined, color=colour, linestyle=":", label="imagined" + suffix)
        axes.set(xlabel="updates", ylabel="discounted return")
        axes.legend(fontsize=8)
        return _svg(figure)


def lines(series: Mapping[str, Series], ylabel: str, log: bool = False) -> str:
    """Several quantities of a training run against updates."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for (label, (x, y)), colour in zip(series.items(), CYCLE, strict=False):
            axes.plot(x, y, color=colour, linewidth=1.2, label=label)
        if log:
            axes.set_yscale("log")
        axes.set(xlabel="updates", ylabel=ylabel)
        axes.legend(fontsize=8)
        return _svg(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    """SVG element without XML header, date or fixed size: the page decides how wide it is."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
