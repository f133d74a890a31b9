"""The whole road on a small data set that ships with the package."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pwm.errors import MissingExtra, UserError
from pwm.presets import demo_extract, pretrain_preset
from pwm.runtime.files import read_json
from pwm.runtime.progress import say
from pwm.runtime.system import peak_memory_bytes


@dataclass(frozen=True)
class DemoConfig:
    """Settings of ``pwm demo``."""

    out: str = "demo"
    seed: int = 0
    video: bool = True
    device: str = "cpu"


def demo_data() -> Path:
    """Folder of the data set that ships in the package (see its README.md)."""
    return Path(str(files("pwm") / "demo_data"))


def run(config: DemoConfig) -> Path:
    """Pre-train, extract, evaluate and report; returns the path of the report.

    Raises:
        UserError: a missing extra or an occupied folder, before any work starts.
    """
    _require_extras(config)
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists; choose another folder with --out")
    from dataclasses import replace

    from pwm.stages import evaluate, extract, pretrain, report

    say("Demo: one world model for three tasks, one policy each; about 8 minutes on 2 CPU cores, "
        "less than 2 GB of memory.")  # fmt: skip
    begin = time.monotonic()
    world_model, policy, data = str(out / "world_model"), str(out / "policy"), (str(out / "data"),)
    # a copy, so that the commands in the report can be repeated as they stand
    shutil.copytree(demo_data(), out / "data")
    pretrain.run(replace(pretrain_preset("demo"), data=data, out=world_model, seed=config.seed,
                         task_weights=(1.0, 1.0, 1.0), device=config.device))  # fmt: skip
    extract.run(replace(demo_extract(), world_model=world_model, data=data, out=policy,
                        seed=config.seed, device=config.device))  # fmt: skip
    evaluate.run(evaluate.EvaluateConfig(run=policy, episodes=30, seed=config.seed,
                                         video=config.video, device=config.device))  # fmt: skip
    report.run(report.ReportConfig(runs=(world_model, policy), out=str(out / "report")))
    _print_results(Path(policy))
    page = out / "report" / "report.html"
    say(
        f"Done in {(time.monotonic() - begin) / 60:.1f} minutes, peak memory "
        f"{peak_memory_bytes() / 1e9:.1f} GB. Open {page}"
    )
    say("Next: pwm tasks, then collect data of your own task (pwm collect --help)")
    return page


def _require_extras(config: DemoConfig) -> None:
    for module, package in (("dm_control", "dm_control"), ("jinja2", "jinja2"),
                            ("matplotlib", "matplotlib")):  # fmt: skip
        _require(module, package)
    if config.video:
        _require("imageio", "imageio")


def _require(module: str, package: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtra(package, "demo")


def _print_results(policy: Path) -> None:
    """Policies against their data, on stdout."""
    returns, baselines = read_json(policy / "evaluation.json"), read_json(policy / "baselines.json")
    table = Table(title="Mean return of 30 episodes in the real environment")
    for name in ("task", "random", "data: mean", "data: best tenth", "policy"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, seeds in returns.items():
        episodes = [value for values in seeds.values() for value in values]
        random, data = baselines[task]["random"], baselines[task]["data"]
        table.add_row(
            task, f"{sum(random) / len(random):.0f}", f"{data['mean']:.0f}",
            f"{data['best_tenth']:.0f}", f"{sum(episodes) / len(episodes):.0f}",
        )  # fmt: skip
    Console().print(table)
