"""The README's picture: frames and learning curves of a finished demo.

python benchmarks/demo_figure.py demo docs/images/demo.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from matplotlib.figure import Figure

from pwm.models.pretrained import slug
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics

MOMENTS = (20, 60, 250)  # agent steps of the frames


def strip(video: Path) -> np.ndarray:
    """Three frames of an episode side by side."""
    frames: Any = imageio.get_reader(video)
    with frames:
        return np.concatenate([np.asarray(frames.get_data(t)) for t in MOMENTS], axis=1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("demo", type=Path)
    p.add_argument("out", type=Path)
    options = p.parse_args()
    policy = options.demo / "policy"
    returns = read_json(policy / "evaluation.json")
    baselines = read_json(policy / "baselines.json")
    records = [r for r in read_metrics(policy / "metrics.jsonl") if r["kind"] == "evaluation"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(2, len(returns), height_ratios=(1, 1.6))
    for (top, bottom), (task, seeds) in zip(axes.T, returns.items(), strict=True):
        top.imshow(strip(policy / "videos" / f"{slug(task)}.mp4"))
        top.set_axis_off()
        mean = np.mean([value for values in seeds.values() for value in values])
        top.set_title(f"{task}: {mean:.0f}", fontsize=11)
        mine = [r for r in records if r["task"] == task]
        steps, values = [r["step"] for r in mine], np.array([r["returns"] for r in mine])
        bottom.plot(steps, values.mean(1), color="#4477aa", marker="o", label="policy")
        bottom.fill_between(steps, values.min(1), values.max(1), color="#4477aa", alpha=0.15)
        data = baselines[task]["data"]
        bottom.axhline(data["mean"], color="#ee6677", linestyle="--", label="data: mean")
        bottom.axhline(
            data["best_tenth"], color="#228833", linestyle="--", label="data: best tenth"
        )
        bottom.axhline(
            np.mean(baselines[task]["random"]), color="#777777", linestyle=":", label="random"
        )
        bottom.set(xlabel="extraction updates", ylim=(0, 1000))
        bottom.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("return in the real environment")
    axes[1, -1].legend(frameon=False, fontsize=8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
