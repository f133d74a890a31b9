"""Learning curves of `pwm tdmpc2` runs: returns of the training's episodes and of its evaluations.

python benchmarks/tdmpc2_figure.py runs/balance runs/swingup docs/images/tdmpc2.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("runs", type=Path, nargs="+")
    p.add_argument("out", type=Path)
    options = p.parse_args()
    figure = Figure(figsize=(4.6 * len(options.runs), 3.2), layout="constrained")
    panels = figure.subplots(1, len(options.runs), squeeze=False)[0]
    for axes, run in zip(panels, options.runs, strict=True):
        records = list(read_metrics(run / "metrics.jsonl"))
        episodes = [r for r in records if r["kind"] == "episode"]
        checks = [r for r in records if r["kind"] == "evaluation"]
        axes.plot(
            [r["step"] for r in episodes], [r["return"] for r in episodes], color="#4477aa",
            marker=".", linewidth=1, label="training, with exploration",
        )  # fmt: skip
        axes.plot(
            [r["step"] for r in checks], [r["real_return"] for r in checks], "o",
            color="#ee6677", label="evaluation",
        )  # fmt: skip
        config = read_json(run / "config.json")["config"]
        axes.set(title=f"{config['task']}: {run.name}", xlabel="agent steps", ylim=(0, 1000))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("return of an episode")
    panels[0].legend(frameon=False, fontsize=8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
