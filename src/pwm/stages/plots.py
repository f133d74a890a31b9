"""Plots of the report, as inline SVG.

Text and axes take the colour of the surrounding page, so that one picture serves light and dark.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

# After Paul Tol's bright scheme (colour-blind safe); legible on white and on dark grey.
BLUE, RED, GREEN, YELLOW, PURPLE, GREY = (
    "#4477aa", "#ee6677", "#2a9d48", "#ccbb44", "#aa3377", "#888888",
)  # fmt: skip
CYCLE = (BLUE, RED, GREEN, YELLOW, PURPLE)
INK = "#010203"  # stands for the page's text colour; no plot may use it otherwise
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pwm",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
}
LEVELS = {"data: mean": RED, "data: best tenth": GREEN, "random policy": GREY}

Series = tuple[Sequence[float], Sequence[float | None]]


def learning_curve(
    curves: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    levels: Mapping[str, float],
    kept: Mapping[str, int],
    steps_of: str = "updates",
) -> str:
    """Real return against updates, or against another count ``steps_of``.

    Args:
        curves: seed -> (updates [N], episode returns of each of the N evaluations). The band is
            the range over seeds, or over the episodes of the only seed.
        levels: label -> return, drawn across; labels of ``LEVELS``.
        kept: seed -> update whose policy the run kept.
    """
    import matplotlib

    means = {s: (x, [float(np.mean(r)) for r in y]) for s, (x, y) in curves.items()}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for label, level in levels.items():
            axes.axhline(level, color=LEVELS[label], linestyle="--", linewidth=1, label=label)
        if len(curves) == 1:
            updates, returns = next(iter(curves.values()))
            low, high = [min(r) for r in returns], [max(r) for r in returns]
            axes.fill_between(updates, low, high, color=BLUE, alpha=0.2, linewidth=0)
        _over_seeds(axes, means, BLUE, "policy", band=True)
        points = [
            (step, mean)
            for seed, (updates, values) in means.items()
            for step, mean in zip(updates, values, strict=True)
            if step == kept.get(seed)
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", markersize=8, markerfacecolor="none",
                      color=BLUE, linestyle="none", label="policy kept")  # fmt: skip
        axes.set(xlabel=steps_of, ylabel="real return")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return _svg(figure, axes, f"Real return against {steps_of}")


def real_against_imagined(real: Mapping[str, Series], imagined: Mapping[str, Series]) -> str:
    """Discounted real return and imagined value of the same start states, by seed."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        _over_seeds(axes, real, BLUE, "real")
        _over_seeds(axes, imagined, RED, "imagined", linestyle="--")
        axes.set(xlabel="updates", ylabel="discounted return")
        return _svg(figure, axes, "Imagined value and real discounted return against updates")


def lines(
    series: Mapping[str, Series],
    ylabel: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """Several quantities of a training run against updates; empty ones are left out."""
    import matplotlib

    known = {label: values for label, values in series.items() if len(values[0])}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for (label, (x, y)), colour in zip(known.items(), CYCLE, strict=False):
            axes.plot(x, _floats(y), color=colour, linewidth=1.3, label=label, marker=_marker(x))
        if log:
            _log_scale(axes)
        if limits:
            axes.set_ylim(limits)
        axes.set(xlabel="updates", ylabel=ylabel)
        return _svg(figure, axes, f"{', '.join(known)}: {ylabel} against updates")


def _over_seeds(
    axes: Any,
    curves: Mapping[str, Series],
    colour: str,
    label: str,
    linestyle: str = "-",
    band: bool = False,
) -> None:
    """One seed: its curve. Several: each thin, their mean where all have a value, the range."""
    if len(curves) == 1:
        x, y = next(iter(curves.values()))
        axes.plot(x, _floats(y), color=colour, linestyle=linestyle, marker=_marker(x), label=label)
        return
    for x, y in curves.values():
        axes.plot(x, _floats(y), color=colour, linestyle=linestyle, linewidth=0.8, alpha=0.5)
    tables = [dict(zip(x, _floats(y), strict=True)) for x, y in curves.values()]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    if not shared:
        return
    values = np.array([[table[step] for step in shared] for table in tables])
    axes.plot(
        shared, values.mean(0), color=colour, linestyle=linestyle, linewidth=2,
        marker=_marker(shared), label=f"{label}, mean of seeds",
    )  # fmt: skip
    if band:
        axes.fill_between(
            shared, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0
        )


def _floats(values: Sequence[float | None]) -> list[float]:
    """Values that were not finite are null in the metrics; a gap in the curve."""
    return [float("nan") if value is None else float(value) for value in values]


def _marker(x: Sequence[float]) -> str | None:
    """A curve of one point is invisible without a mark; many points need none."""
    return "." if len(x) <= 30 else None


def _log_scale(axes: Any) -> None:
    """Plain numbers at the ticks; also between the powers of ten where there are few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    low, high = axes.get_ylim()
    narrow = high < 60 * low
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axes.yaxis.set_minor_formatter(plain if narrow else NullFormatter())


def _figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.8, 2.8), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _svg(figure: Any, axes: Any, description: str) -> str:
    """SVG element without XML header, metadata or fixed size: the page decides how wide it is."""
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", ncols=2)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
