"""The report's page: figures and facts of the runs, put into the template."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pwm.data.layout import slug
from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_folder import RunFolder
from pwm.stages import plots
from pwm.stages.scores import TaskResult

DEPTHS = (1, 4, 8, 16)
NAMES = {"actor": "policy", "plan": "planning", "prior": "policy prior"}
WAYS = {
    "actor": "policies extracted from a world model by first-order gradients, without noise",
    "plan": "planning with a world model (MPPI, as TD-MPC2 does)",
    "prior": "the policy prior of a world model, its mean action",
}
Records = Mapping[str, Sequence[dict[str, Any]]]


def render(
    summary: dict[str, Any],
    results: Sequence[TaskResult],
    models: Sequence[RunFolder],
    policies: Sequence[RunFolder],
) -> str:
    """The whole page; everything is inline, nothing is fetched.

    Raises:
        UserError: a damaged metrics file.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pwm.stages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["gigabytes"] = lambda size: f"{size / 1e9:.2f} GB"
    records = {str(run.path): metrics_of(run) for run in [*models, *policies]}
    tasks = [
        {"row": row, **task_figures(result, records), "videos": videos(result)}
        for row, result in zip(summary["tasks"], results, strict=True)
    ]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        names=NAMES,
        ways=[WAYS[policy] for policy in dict.fromkeys(r.policy for r in results)],
        tasks=tasks,
        models=[
            {"run": run_facts(run), "figures": model_figures(records[str(run.path)])}
            for run in models
        ],
        runs=[run_facts(run) for run in [*models, *policies]],
    )


def metrics_of(folder: RunFolder) -> list[dict[str, Any]]:
    """All lines of a run's metrics; empty for a run that was killed before the first."""
    if not folder.metrics_path.exists():
        return []
    try:
        return list(read_metrics(folder.metrics_path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{folder.metrics_path} is damaged ({error}); remove the line that is not JSON"
        ) from None


def task_figures(result: TaskResult, records: Records) -> dict[str, Any]:
    """Learning curve and real-against-imagined plot of one task; None without evaluations."""
    curves, real, imagined, kept = {}, {}, {}, {}
    for source in result.sources:
        folder = source.run
        if source.policy == "prior":
            continue  # what an online agent evaluates in training is its planning
        found = [
            r
            for r in records[str(folder.path)]
            if r.get("kind") == "evaluation" and r.get("task") == result.task and r.get("returns")
        ]
        if not found:
            continue
        seed, steps = str(folder.config["seed"]), [r["step"] for r in found]
        curves[seed] = (steps, [r["returns"] for r in found])
        if "imagined_value" in found[0]:
            real[seed] = (steps, [r["real_discounted"] for r in found])
            imagined[seed] = (steps, [r["imagined_value"] for r in found])
        if found[-1].get("selected_step") is not None:
            kept[seed] = found[-1]["selected_step"]
    if not curves:
        return {"curve": None, "gap": None, "kept": {}}
    levels: dict[str, float] = {}
    if result.data:
        levels |= {"data: mean": result.data["mean"], "data: best tenth": result.data["best_tenth"]}
    if result.random:
        levels["random policy"] = float(np.mean(result.random))
    steps_of = "updates" if real else "agent steps"
    return {
        "curve": plots.learning_curve(curves, levels, kept, steps_of),
        "gap": plots.real_against_imagined(real, imagined) if real else None,
        "kept": kept,
    }


def model_figures(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(caption, SVG) of a world model's training; quantities that it has not logged are absent."""
    train = [r for r in records if r.get("kind") == "train"]
    held_out = [r for r in records if r.get("kind") == "evaluation"]

    def series(source: Sequence[dict[str, Any]], **names: str) -> dict[str, plots.Series]:
        found: dict[str, plots.Series] = {}
        for label, name in names.items():
            known = [r for r in source if r.get(name) is not None]
            if known:
                found[label.replace("_", " ")] = (
                    [r.get("update", r["step"]) for r in known],
                    [r[name] for r in known],
                )
        return found

    def depths(kind: str) -> dict[str, plots.Series]:
        return series(held_out, **{f"{k}_step{'s'[: k > 1]}": f"{kind}_error_{k}" for k in DEPTHS})

    losses = {name: f"{name}_loss" for name in ("consistency", "reward", "termination", "value")}
    values = {"mean_Q": "q_mean", "TD_target": "td_target_mean"}
    figures = [
        ("Training losses, each before its weight.", series(train, **losses), "loss", True, None),
        ("Latent error on held-out episodes after so many steps without looking (1: no better "
         "than predicting the mean latent).", depths("latent"), "relative error", True, None),
        ("Reward error on held-out episodes at the same steps, in reward units.",
         depths("reward"), "mean absolute error", False, None),
        ("Entropy of the latent groups as a share of its maximum (1: the encoder has collapsed).",
         series(held_out, entropy="latent_entropy"), "entropy", False, (0.0, 1.05)),
        ("Action values on training windows, in reward units.", series(train, **values),
         "value", False, None),
        ("Gradient norm before clipping.", series(train, gradient_norm="grad_norm"),
         "norm", True, None),
    ]  # fmt: skip
    return [
        (caption, plots.lines(quantities, ylabel, log, limits))
        for caption, quantities, ylabel, log, limits in figures
        if quantities
    ]


def videos(result: TaskResult) -> list[dict[str, str]]:
    """Recorded episodes as data URIs, one for each seed that has one."""
    found = []
    for source in result.sources:
        path = source.path / "videos" / f"{slug(result.task)}.mp4"
        if path.exists():
            encoded = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append(
                {"seed": str(source.run.config["seed"]), "uri": f"data:video/mp4;base64,{encoded}"}
            )
    return found


def run_facts(folder: RunFolder) -> dict[str, Any]:
    """What is needed to judge and repeat a run."""
    config, summary = folder.config, folder.summary()
    done = summary or {}
    return {
        "path": str(folder.path),
        "stage": folder.stage,
        "command": config.get("command") or "not recorded",
        "evaluations": evaluation_commands(folder),
        "created": config.get("created"),
        "seed": config.get("seed"),
        "git_revision": config.get("git_revision"),
        "versions": config.get("versions") or {},
        "hardware": config.get("hardware") or {},
        "precision": config.get("precision") or {},
        "settings": config["config"],
        "parameters": config.get("parameters"),
        "complete": summary is not None,
        "seconds": done.get("wall_seconds"),
        "task_seconds": done.get("task_seconds", {}),
        "peak_memory": done.get("peak_memory_bytes"),
        "resumed": bool(done.get("resumed", False)),
    }


def evaluation_commands(folder: RunFolder) -> list[str]:
    """The commands that evaluated a run, each once, in order of first use."""
    commands: list[str] = []
    for policy in ("actor", "plan", "prior"):
        path = folder.results(policy) / "evaluation_settings.json"
        settings = read_json(path).values() if path.exists() else ()
        commands += [str(entry.get("command")) for entry in settings]
    return list(dict.fromkeys(commands))


def duration(seconds: float) -> str:
    """A span of time as one would say it."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
