"""What the demo's settings bring: each is switched off alone, on the data that ships.

python benchmarks/ablations.py --out runs/ablations

Pre-trains the demo's world model with one setting changed at equal computing time (short windows
cost less, so a model without them gets fewer updates), and extracts policies from the unchanged
one with one setting changed. Every run is an ordinary `pwm` run folder under --out; finished ones
are skipped, so that a killed command can be repeated. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pwm.demo import demo_data
from pwm.presets import demo_extract, pretrain_preset
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.stages import evaluate, extract, pretrain

PRETRAIN: dict[str, dict[str, Any]] = {
    "demo": {},
    "observations as they are": {"normalize_observations": False},
    "all windows of 16 steps": {"short_fraction": 0.0},
}
EXTRACT: dict[str, dict[str, Any]] = {
    "demo": {},
    "no behaviour prior": {"behavior_weight": 0.0},
    "horizon 16": {"horizon": 16},
}


def cost(short_fraction: float, short: int, horizon: int) -> float:
    """Steps of all windows, relative to windows of full length."""
    return short_fraction * short / horizon + 1 - short_fraction


def pretrained(name: str, changes: dict[str, Any], out: Path, updates: int) -> Path:
    settings = replace(pretrain_preset("demo"), updates=updates, seed=0)
    full = cost(settings.short_fraction, settings.short_horizon, settings.horizon)
    settings = replace(settings, **changes)
    now = cost(settings.short_fraction, settings.short_horizon, settings.horizon)
    run = out / "models" / name.replace(" ", "-")
    settings = replace(
        settings, updates=round(updates * full / now), data=(str(demo_data()),), out=str(run),
        resume=(run / "config.json").exists(), eval_every=100, device="cpu",
    )  # fmt: skip
    if not (run / "summary.json").exists():
        pretrain.run(settings)
    return run


def extracted(
    name: str,
    changes: dict[str, Any],
    model: Path,
    out: Path,
    tasks: tuple[str, ...],
    seed: int,
    updates: int,
) -> Path:
    run = out / "policies" / f"{name.replace(' ', '-')}-{seed}"
    settings = replace(
        demo_extract(), world_model=str(model), data=(str(demo_data()),), out=str(run),
        tasks=tasks, seed=seed, updates=updates, select="last",
        resume=(run / "config.json").exists(), device="cpu",
    )  # fmt: skip
    if not (run / "summary.json").exists():
        extract.run(replace(settings, **changes))
    if not (run / "evaluation.json").exists():
        evaluate.run(evaluate.EvaluateConfig(run=str(run), episodes=10, device="cpu"))
    return run


def print_models(runs: dict[str, Path]) -> None:
    names = [f"{kind}_error_{k}" for kind in ("latent", "reward") for k in (1, 16)]
    print("\n| pre-training | updates | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for label, run in runs.items():
        last = [r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "evaluation"][-1]
        updates = read_json(run / "summary.json")["updates"]
        print(f"| {label} | {updates} | " + " | ".join(f"{last[n]:.3f}" for n in names) + " |")


def print_policies(runs: dict[str, list[Path]], tasks: tuple[str, ...]) -> None:
    print("\n| extraction | " + " | ".join(f"{t}: return (imagined/real)" for t in tasks) + " |")
    print("|---|" + "---|" * len(tasks))
    for label, folders in runs.items():
        cells = []
        for task in tasks:
            returns = [np.mean(v) for f in folders
                       for v in read_json(f / "evaluation.json")[task].values()]  # fmt: skip
            gaps = [
                [r for r in read_metrics(f / "metrics.jsonl")
                 if r["kind"] == "evaluation" and r["task"] == task][-1] for f in folders
            ]  # fmt: skip
            imagined = np.mean([r["imagined_value"] for r in gaps])
            real = np.mean([r["real_discounted"] for r in gaps])
            cells.append(f"{np.mean(returns):.0f} ({imagined:.0f}/{real:.0f})")
        print(f"| {label} | " + " | ".join(cells) + " |")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--updates", type=int, default=2000, help="updates of the demo's model")
    p.add_argument("--extract-updates", type=int, default=demo_extract().updates)
    p.add_argument("--seeds", type=int, default=1, help="extractions of each kind")
    p.add_argument("--tasks", nargs="+", default=["dmc/cartpole-swingup", "dmc/walker-stand"])
    p.add_argument("--model", type=Path, help="extract from this run, not from a new one")
    options = p.parse_args()
    tasks = tuple(options.tasks)
    models = {name: pretrained(name, changes, options.out, options.updates)
              for name, changes in PRETRAIN.items()}  # fmt: skip
    model = options.model or models["demo"]
    policies = {
        name: [extracted(name, changes, model, options.out, tasks, seed, options.extract_updates)
               for seed in range(options.seeds)]
        for name, changes in EXTRACT.items()
    }  # fmt: skip
    print_models(models)
    print_policies(policies, tasks)


if __name__ == "__main__":
    main()
