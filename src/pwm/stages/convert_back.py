"""The world model of a run folder as a checkpoint that TD-MPC2 loads."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch

from pwm.envs import list_tasks
from pwm.errors import UserError
from pwm.models.pretrained import WORLD_MODEL_STAGES, load_world_model
from pwm.models.tdmpc2_checkpoint import check_finite, tdmpc2_state
from pwm.models.world_model import WorldModelConfig
from pwm.runtime.progress import say
from pwm.runtime.run_folder import RunFolder


def write_tdmpc2(source: Path, target: Path) -> Path:
    """Write the world model of the run ``source`` as ``target`` in TD-MPC2's present layout.

    Raises:
        UserError: ``target`` exists, ``source`` holds no world model, or one that TD-MPC2 has no
            place for; nothing is written.
    """
    if target.exists():
        raise UserError(f"--out {target} exists already; choose a new file name")
    if source.is_file():
        raise UserError(f"{source} is a file; --back takes a run folder and writes a file")
    folder = RunFolder.open(source, stage=WORLD_MODEL_STAGES)
    model = load_world_model(source)
    _require_expressible(source, model.config)
    dtypes = (folder.config.get("source") or {}).get("log_std_dtypes") or ()
    state = tdmpc2_state(model, dtypes)
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            check_finite(source, key, value)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_new(target, {"model": state})
    say(f"{target} written. TD-MPC2 loads it with these settings: {_settings(model.config)}")
    return target


def _require_expressible(source: Path, config: WorldModelConfig) -> None:
    problems = {
        "the model has no Q heads and policy prior, which TD-MPC2 needs": not config.policy_prior,
        "TD-MPC2 does not normalise observations": config.normalize_observations,
        "TD-MPC2 does not take symlog of observations": config.symlog_observations,
        "TD-MPC2's termination head reads the next latent, this one latent and action": (
            config.termination and not config.termination_on_next
        ),
    }
    if found := [problem for problem, applies in problems.items() if applies]:
        raise UserError(f"{source} can't be written for TD-MPC2: {'; '.join(found)}")


def _settings(c: WorldModelConfig) -> str:
    values: dict[str, Any] = {
        "num_enc_layers": c.encoder_layers + 1, "enc_dim": c.encoder_dim, "mlp_dim": c.hidden_dim,
        "latent_dim": c.latent_dim, "task_dim": c.task_dim, "num_q": c.num_q,
        "num_bins": c.num_bins, "vmin": f"{c.bin_low:g}", "vmax": f"{c.bin_high:g}",
        "simnorm_dim": c.simnorm_dim, "episodic": str(c.termination).lower(),
        "log_std_min": f"{c.log_std_min:g}", "log_std_max": f"{c.log_std_max:g}",
    }  # fmt: skip
    text = " ".join(f"{name}={value}" for name, value in values.items())
    sets = [name for name in ("mt30", "mt80") if c.tasks == tuple(t.id for t in list_tasks(name))]
    tasks = f"task={sets[0]}" if sets else f"tasks in this order: {', '.join(c.tasks)}"
    return f"{text}, {tasks}"


def _write_new(target: Path, content: Any) -> None:
    """Save ``content`` whole or not at all, and never over a file that is there."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as handle:
            torch.save(content, handle)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, target)  # unlike a rename, this fails where a file is
        except FileExistsError:
            raise UserError(f"--out {target} exists already; choose a new file name") from None
        except OSError:  # a file system without hard links
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
