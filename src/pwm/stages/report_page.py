"""The report's page: figures and facts of the runs, put into the template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pwm.models.pretrained import slug
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_folder import RunFolder
from pwm.stages import plots
from pwm.stages.scores import TaskResult

DEPTHS = (1, 4, 8, 16)


def render(
    summary: dict[str, Any],
    results: Sequence[TaskResult],
    models: Sequence[RunFolder],
    policies: Sequence[RunFolder],
) -> str:
    """The whole page; everything is inline, nothing is fetched."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pwm.stages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tasks = [
        {"row": row, **task_figures(result), "videos": videos(result)}
        for row, result in zip(summary["tasks"], results, strict=True)
    ]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        tasks=tasks,
        models=[{"run": run_facts(run), "figures": model_figures(run)} for run in models],
        runs=[run_facts(run) for run in [*models, *policies]],
    )


def task_figures(result: TaskResult) -> dict[str, str | None]:
    """Learning curve and real-against-imagined plot of one task; None without evaluations."""
    curves, gaps = {}, {}
    for folder in result.folders:
        records = [
            r
            for r in read_metrics(folder.metrics_path)
            if r.get("kind") == "evaluation" and r.get("task") == result.task
        ]
        if not records:
            continue
        seed, steps = str(folder.config["seed"]), [r["step"] for r in records]
        curves[seed] = (steps, np.array([r["returns"] for r in records], float))
        real, imagined = (
            (steps, [r[name] for r in records]) for name in ("real_discounted", "imagined_value")
        )
        gaps[seed] = (real, imagined)
    if not curves:
        return {"curve": None, "gap": None}
    levels: dict[str, float] = {}
    data, random = result.baselines.get("data"), result.baselines.get("random")
    if data:
        levels |= {"data: mean": data["mean"], "data: best tenth": data["best_tenth"]}
    if random:
        levels["random policy"] = float(np.mean(random))
    return {
        "curve": plots.learning_curve(curves, levels),
        "gap": plots.real_against_imagined(gaps),
    }


def model_figures(folder: RunFolder) -> list[tuple[str, str]]:
    """(caption, SVG) of a world model's training."""
    records = list(read_metrics(folder.metrics_path))
    train = [r for r in records if r.get("kind") == "train"]
    held_out = [r for r in records if r.get("kind") == "evaluation"]

    def series(source: list[dict[str, Any]], name: str) -> plots.Series:
        known = [r for r in source if r.get(name) is not None]
        return [r["step"] for r in known], [r[name] for r in known]

    figures = []
    if train:
        losses = {n: series(train, f"{n}_loss") for n in ("consistency", "reward")}
        figures.append(("Training losses", plots.lines(losses, "loss", log=True)))
    if held_out:
        latent = {f"after {k} steps": series(held_out, f"latent_error_{k}") for k in DEPTHS}
        reward = {f"after {k} steps": series(held_out, f"reward_error_{k}") for k in DEPTHS}
        figures += [
            (
                "Open-loop latent error on held-out episodes (1: no better than the mean)",
                plots.lines(latent, "relative error", log=True),
            ),
            (
                "Reward error on held-out episodes, in reward units",
                plots.lines(reward, "mean absolute error"),
            ),
            (
                "Entropy of the latent groups (near 1: collapsed)",
                plots.lines({"entropy": series(held_out, "latent_entropy")}, "share of maximum"),
            ),
        ]
    if train:
        norm = {"gradient norm": series(train, "grad_norm")}
        figures.append(("Gradient norm before clipping", plots.lines(norm, "norm", log=True)))
    return figures


def videos(result: TaskResult) -> list[dict[str, str]]:
    """Recorded episodes as data URIs, one for each seed that has one."""
    found = []
    for folder in result.folders:
        path = folder.path / "videos" / f"{slug(result.task)}.mp4"
        if path.exists():
            encoded = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append(
                {"seed": str(folder.config["seed"]), "uri": f"data:video/mp4;base64,{encoded}"}
            )
    return found


def run_facts(folder: RunFolder) -> dict[str, Any]:
    """What is needed to judge and repeat a run."""
    config, summary = folder.config, folder.summary()
    return {
        "path": str(folder.path),
        "stage": folder.stage,
        "command": config["command"],
        "created": config["created"],
        "seed": config["seed"],
        "git_revision": config["git_revision"],
        "versions": config["versions"],
        "hardware": config["hardware"],
        "precision": config["precision"],
        "settings": config["config"],
        "parameters": config.get("parameters"),
        "complete": summary is not None,
        "seconds": summary["wall_seconds"] if summary else None,
        "task_seconds": (summary or {}).get("task_seconds", {}),
        "peak_memory": summary["peak_memory_bytes"] if summary else None,
        "resumed": bool((summary or {}).get("resumed", False)),
    }
