"""TD-MPC2's data files into a data set: checked first, then copied task by task."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pwm.data import EpisodeDataset, EpisodeWriter
from pwm.data.layout import FORMAT
from pwm.data.tdmpc2 import blocks
from pwm.envs import task_spec
from pwm.errors import UserError
from pwm.runtime.files import read_json, write_json
from pwm.runtime.progress import ProgressBar, say
from pwm.stages.convert_plan import Plan, make_plan

COLLECTOR = "tdmpc2"
# Which episodes these were drawn from is not in the files.
_UNKNOWN_SEED = -1


@dataclass(frozen=True)
class ConvertDataConfig:
    """Settings of ``pwm convert tdmpc2-data``.

    ``files`` are ``chunk_*.pt`` files or folders of them; ``tasks`` picks tasks (all that occur
    when empty); ``task_set`` is "mt30" or "mt80" (found from the width of the observations when
    empty); ``resume`` goes on with a conversion that was interrupted.
    """

    files: tuple[str, ...]
    out: str
    tasks: tuple[str, ...] = ()
    task_set: str = ""
    resume: bool = False


def run(config: ConvertDataConfig) -> Path:
    """Convert ``files`` into the data set ``out`` and return its path.

    Every value is checked before the first one is written; no more than a block of episodes is in
    memory. A killed conversion goes on with ``resume``: what is on disk by then stays, and no
    episode is lost or stored twice.

    Raises:
        UserError: damaged, hostile or other files, tasks that they don't hold, too little disk
            space, or something else in ``out``; nothing is written then.
    """
    if not config.files or not config.out:
        raise UserError("name the files to convert and a folder for the data set with --out DIR")
    out = Path(config.out)
    state = _state(out, config.resume)
    plan = make_plan(config.files, config.tasks, config.task_set)
    if state is not None and {**state, "complete": False} != {**plan.settings(), "complete": False}:
        raise UserError(
            f"{out / 'convert.json'} was made from other files, tasks or another order; resume "
            "with the same ones, or choose another --out"
        )
    stored = _stored(out, plan) if state is not None else {}
    _announce(plan, _check_disk(out, plan, stored))
    if state is None:
        _check_values(plan)
    try:
        _copy(out, plan, plan.steps * sum(stored.values()))
    except OSError as error:
        raise UserError(
            f"{error.filename or out}: {error.strerror or error}; mend that and go on with --resume"
        ) from None
    episodes = plan.total_steps // plan.steps
    say(f"Data set {out}: {episodes} episodes, {plan.total_steps} steps of {len(plan.episodes)} "
        f"tasks. Next: pwm data info {out}, then pwm pretrain PRESET --data {out} --out RUN, or "
        f"pwm extract --world-model RUN --data {out} --task TASK --out POLICY")  # fmt: skip
    return out


def _state(out: Path, resume: bool) -> dict[str, Any] | None:
    """convert.json of a conversion that is to go on; None for a new one. Writes nothing."""
    existing = _existing(out)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(
            f"--out {out}: {existing} is not a folder that can be written to; choose another --out"
        )
    path = out / "convert.json"
    if not path.exists():
        # a kill before convert.json leaves no more than dataset.json
        if out.is_dir() and any(
            p.name != "dataset.json" and not p.name.startswith(".") for p in out.iterdir()
        ):
            raise UserError(
                f"--out {out} holds other files already; choose a new folder (the stages take "
                "several data sets together)"
            )
        return None
    state = read_json(path)
    if not isinstance(state, dict) or not isinstance(state.get("complete"), bool):
        raise UserError(f"{path} is damaged; delete {out} and convert again")
    if not resume:
        found = "a finished" if state["complete"] else "an interrupted"
        remedy = "choose another --out" if state["complete"] else (
            "go on with --resume, or delete it and convert again")  # fmt: skip
        raise UserError(f"--out {out} holds {found} conversion; {remedy}")
    return state


def _existing(path: Path) -> Path:
    """``path`` or the nearest of its parents that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _stored(out: Path, plan: Plan) -> dict[str, int]:
    """Episodes of each task that an earlier start has stored."""
    if not (out / "tasks").is_dir():
        return {}
    tasks = EpisodeDataset.open(out, allow_empty=True).tasks
    for id_, task in tasks.items():
        few = id_ in plan.episodes and task.num_episodes <= plan.count(id_)
        if not few or any(name != COLLECTOR for name in task.collectors):
            raise UserError(
                f"{task.folder} holds episodes that are not of this conversion; choose another "
                "--out and convert again"
            )
    return {id_: task.num_episodes for id_, task in tasks.items()}


def _check_disk(out: Path, plan: Plan, stored: dict[str, int]) -> int:
    """Bytes that the rest will take; UserError when there is less disk."""
    needed = sum(plan.bytes_of(id_, plan.count(id_) - stored.get(id_, 0)) for id_ in plan.episodes)
    free = shutil.disk_usage(_existing(out)).free
    if needed > free:
        raise UserError(
            f"{out} needs {needed / 1e9:.2f} GB of disk but {free / 1e9:.2f} GB are free there; "
            "choose another disk with --out, or fewer tasks with --tasks"
        )
    return needed


def _announce(plan: Plan, needed: int) -> None:
    episodes = sum(chunk.episodes for chunk in plan.chunks)
    say(f"Files: {len(plan.chunks)} of {plan.task_set} with {episodes} episodes of {plan.steps} "
        f"steps. To convert: {plan.total_steps // plan.steps} episodes of {len(plan.episodes)} "
        f"tasks, {needed / 1e9:.2f} GB to be written")  # fmt: skip
    for chunk in plan.chunks:
        if chunk.ignored:
            more = ", ..." if len(chunk.ignored) > 8 else ""
            say(f"{chunk.path}: not converted: field {', '.join(chunk.ignored[:8])}{more}")


def _check_values(plan: Plan) -> None:
    """Read everything once, so that a bad value is found before anything is written."""
    with ProgressBar("check", plan.total_steps) as bar:
        for id_, parts in plan.episodes.items():
            for chunk, numbers in zip(plan.chunks, parts, strict=True):
                for block in blocks(chunk, numbers, task_spec(id_)):
                    bar.advance(block.rewards.size, id_)


def _copy(out: Path, plan: Plan, done: int) -> None:
    """Write what is not stored yet; ``done`` counts the steps that are."""
    out.mkdir(parents=True, exist_ok=True)
    # a folder with dataset.json is a data set, however early a kill comes
    write_json(out / "dataset.json", {"format": FORMAT})
    write_json(out / "convert.json", {**plan.settings(), "complete": False})
    with ProgressBar("convert", plan.total_steps, done) as bar:
        for task in plan.episodes:
            _convert_task(out, plan, task, bar)
    write_json(out / "convert.json", {**plan.settings(), "complete": True})


def _convert_task(out: Path, plan: Plan, id_: str, bar: ProgressBar) -> None:
    """Append what is not stored yet, in the order of the files."""
    spec = task_spec(id_)
    metadata: dict[str, Any] = {"source": f"tdmpc2 {plan.task_set}"}
    if spec.episode_length is not None and plan.steps < spec.episode_length:
        metadata["pieces_of"] = spec.episode_length
    writer = EpisodeWriter(
        out, id_, obs_dim=spec.obs_dim, action_dim=spec.action_dim,
        episode_length=spec.episode_length, collector=COLLECTOR, metadata=metadata,
    )  # fmt: skip
    with writer:
        # counted under the writer's lock: another start can't have stored some since
        skip = writer.num_episodes
        for chunk, numbers in zip(plan.chunks, plan.episodes[id_], strict=True):
            left = numbers[skip:]
            skip = max(0, skip - len(numbers))
            for block in blocks(chunk, left, spec):
                count = len(block.rewards)
                writer.append_many(block.observations, block.actions, block.rewards,
                                   terminated=False, seeds=[_UNKNOWN_SEED] * count)  # fmt: skip
                bar.advance(block.rewards.size, id_)
