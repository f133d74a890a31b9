"""One self-contained HTML page from finished runs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pwm.errors import MissingExtra, UserError
from pwm.models.pretrained import WORLD_MODEL_STAGES
from pwm.runtime.files import write_json, write_text
from pwm.runtime.progress import say
from pwm.runtime.run_folder import RunFolder
from pwm.stages.scores import Evaluated, aggregate, collect_results, task_row


@dataclass(frozen=True)
class ReportConfig:
    """Settings of ``pwm report``: runs of any stage, in any mix.

    Of a world model (pretrain, convert, tdmpc2) the training is shown, and how it plans where that
    has been evaluated: ``pwm evaluate RUN --policy plan``. Several runs of one task with different
    seeds are taken together; ``seed`` seeds the bootstrap.
    """

    runs: tuple[str, ...] = ()
    out: str = ""
    seed: int = 0
    resamples: int = 2000


def run(config: ReportConfig) -> dict[str, Any]:
    """Write ``report.html`` and ``report.json`` into ``out`` and return what the latter holds.

    Raises:
        UserError: no runs, a run that is not evaluated, the same task and seed twice, or an
            occupied folder; nothing is written then.
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    out = _check(config)
    folders = [RunFolder.open(path) for path in config.runs]
    models = [folder for folder in folders if folder.stage in WORLD_MODEL_STAGES]
    policies = [folder for folder in folders if folder.stage not in WORLD_MODEL_STAGES]
    results = collect_results([source for folder in folders for source in evaluated(folder)])
    rows = [task_row(result, config.seed, config.resamples) for result in results]
    aggregates = {}
    for policy in dict.fromkeys(result.policy for result in results):
        chosen = [result for result in results if result.policy == policy]
        if (total := aggregate(chosen, config.seed, config.resamples)) is not None:
            aggregates[policy] = total
    summary = {
        "tasks": rows,
        "aggregate": next(iter(aggregates.values()), None),
        "aggregates": aggregates,
        "runs": [str(folder.path) for folder in folders],
        "command": _command(config),
        "page": str(out / "report.html"),
    }
    from pwm.stages.report_page import render

    html = render(summary, results, models, policies)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.html", html)
    write_json(out / "report.json", summary)
    say(f"Report written. Open {out / 'report.html'}")
    return summary


def evaluated(folder: RunFolder) -> list[Evaluated]:
    """What a run has to show: its actors, or the ways to act of a world model that were evaluated.

    An online agent of TD-MPC2 is there to plan, so its evaluation must be there.
    """
    if folder.stage not in WORLD_MODEL_STAGES:
        return [Evaluated(folder, "actor")]
    found = [Evaluated(folder, policy) for policy in ("plan", "prior")]
    found = [source for source in found if (source.path / "evaluation.json").exists()]
    return found or ([Evaluated(folder, "plan")] if folder.stage == "tdmpc2" else [])


def _check(config: ReportConfig) -> Path:
    if not config.runs:
        raise UserError("no runs: give the run folders to report on")
    if not config.out:
        raise UserError("no folder: give one with --out DIR")
    if config.resamples < 1:
        raise UserError("--resamples must be at least 1")
    if len({Path(path).resolve() for path in config.runs}) < len(config.runs):
        raise UserError("the same run folder is given twice")
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "report.json").exists():
        raise UserError(f"--out {out} holds other files than a report; choose another folder")
    for module in ("jinja2", "matplotlib"):
        if find_spec(module) is None:
            raise MissingExtra(module, "report")
    return out


def _command(config: ReportConfig) -> str:
    """The command that makes this page again, also when it was made from Python."""
    words = ["pwm", "report", *config.runs, "--out", config.out]
    for name in ("seed", "resamples"):
        value = getattr(config, name)
        if value != getattr(ReportConfig(), name):
            words += [f"--{name}", str(value)]
    return shlex.join(words)
