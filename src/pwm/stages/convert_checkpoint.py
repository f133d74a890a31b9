"""Checkpoints of TD-MPC2 and PWM into run folders; with ``back`` run folders for TD-MPC2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pwm.envs import TaskSpec, list_tasks, task_spec
from pwm.errors import UserError, nearest
from pwm.models.actor import Actor
from pwm.models.pretrained import Policy, actor_facts, slug
from pwm.models.pwm_agent import STUBS, PWMAgent, is_agent
from pwm.models.tdmpc2_checkpoint import ForeignModel
from pwm.models.tdmpc2_layouts import LAYOUTS
from pwm.models.world_model import WorldModel, WorldModelConfig
from pwm.runtime.files import new_directory
from pwm.runtime.foreign import load_foreign
from pwm.runtime.progress import say
from pwm.runtime.run_folder import RunFolder, save_checkpoint
from pwm.stages.convert_back import write_tdmpc2

TASK_SETS = ("mt30", "mt80")
# TD-MPC2's own range; world models that were trained for PWM have -5 0.5.
DEFAULT_LOG_STD = (-10.0, 2.0)


@dataclass(frozen=True)
class ConvertCheckpointConfig:
    """Settings of ``pwm convert tdmpc2-checkpoint``.

    ``task_set`` ("mt30" or "mt80") is found from the file where it can be; ``task`` is the id that
    a single-task model was trained on, or the task of the actor in an agent file of PWM.
    ``log_std_range`` (low, high) is that of the policy prior, which old files don't say;
    ``symlog_obs`` is for early models that take symlog(observation). ``back`` writes the world
    model of the run folder ``file`` as a checkpoint ``out`` that TD-MPC2 loads.
    """

    file: str = ""
    out: str = ""
    task_set: str = ""
    task: str = ""
    log_std_range: tuple[float, ...] = ()
    symlog_obs: bool = False
    back: bool = False


def run(config: ConvertCheckpointConfig) -> Path:
    """Convert ``file`` into the run folder ``out`` (or back) and return its path.

    Raises:
        UserError: another file than such a checkpoint, damaged or hostile; missing or unknown
            keys; shapes, tasks or masks that don't fit; something in ``out``. Nothing is written.
    """
    _check(config)
    if config.back:
        return write_tdmpc2(Path(config.file), Path(config.out))
    out, path = Path(config.out), Path(config.file)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out} exists already; choose a folder that does not exist")
    content = load_foreign(path, STUBS)
    agent = PWMAgent.of_file(path, content) if is_agent(content) else None
    model = agent.model if agent is not None else ForeignModel.of_file(path, content)
    specs = _task_specs(config, model, agent is not None)
    _check_masks(model, specs)
    model_config = _model_config(config, model, agent, specs)
    weights = agent.own_state(model_config) if agent is not None else model.own_state()
    for line in _description(model, model_config, specs):
        say(line)
    task = task_spec(config.task).id if config.task else ""
    policy = _policy(agent, model_config, weights, task) if agent is not None else None
    _write(config, out, model, model_config, weights, policy)
    _say_next(out, model_config, policy)
    return out


def _check(config: ConvertCheckpointConfig) -> None:
    if not config.file or not config.out:
        raise UserError("name the file to convert and where its result belongs with --out")
    given = config.log_std_range
    if config.back:
        if config.task or config.task_set or given or config.symlog_obs:
            raise UserError("--back takes no other setting than --out: the run folder says it all")
        return
    if config.task and config.task_set:
        raise UserError("--task is for single-task models, --task-set for others; give one of them")
    if config.task_set and config.task_set not in TASK_SETS:
        raise UserError(
            f"--task-set is {' or '.join(TASK_SETS)}, not '{config.task_set}'."
            f"{nearest(config.task_set, TASK_SETS)}"
        )
    if given and (len(given) != 2 or not all(map(math.isfinite, given)) or given[0] >= given[1]):
        raise UserError(
            f"--log-std-range takes two numbers, low before high, such as -10 2, not "
            f"{' '.join(f'{value:g}' for value in given)}"
        )
    if config.task:
        task_spec(config.task)


def _task_specs(
    config: ConvertCheckpointConfig, model: ForeignModel, agent: bool
) -> list[TaskSpec]:
    """The model's tasks, in the order of its embedding."""
    sizes, path = model.sizes, model.path
    if sizes.embedded_tasks > 1 or (sizes.embedded_tasks == 1 and not config.task):
        return _set_specs(config, model, agent)
    found = (sizes.obs_dim, sizes.action_dim)
    if not config.task:
        known = [s.id for s in list_tasks() if (s.obs_dim, s.action_dim) == found]
        hint = f" (of these dims: {', '.join(known)})" if known else ""
        wrong = "--task-set is for multi-task models; " if config.task_set else ""
        raise UserError(
            f"{path} holds a single-task model of {found[0]} observations and {found[1]} actions; "
            f"{wrong}say its task with --task ID{hint}"
        )
    spec = task_spec(config.task)
    if (spec.obs_dim, spec.action_dim) != found:
        raise UserError(
            f"{path}: {spec.id} has {spec.obs_dim} observations and {spec.action_dim} actions, "
            f"but the model {found[0]} and {found[1]}; say the right task with --task"
        )
    return [spec]


def _set_specs(config: ConvertCheckpointConfig, model: ForeignModel, agent: bool) -> list[TaskSpec]:
    sizes, path = model.sizes, model.path
    if config.task and not agent:
        raise UserError(
            f"{path} holds a multi-task model of {sizes.embedded_tasks} tasks; --task is for "
            "single-task models, leave it out"
        )
    found = (sizes.embedded_tasks, sizes.obs_dim, sizes.action_dim)
    sets = {name: list_tasks(name) for name in TASK_SETS}
    shapes = {
        name: (len(specs), max(s.obs_dim for s in specs), max(s.action_dim for s in specs))
        for name, specs in sets.items()
    }
    fits = [name for name, shape in shapes.items() if shape == found]
    if not fits or config.task_set not in ("", *fits):
        known = "; ".join(f"{name}: {shape}" for name, shape in shapes.items())
        raise UserError(
            f"{path}: (tasks, observations, actions) are {found}, which is not "
            f"{config.task_set or 'a known task set'} ({known})"
            + (f"; give --task-set {fits[0]}" if fits else "; give a model of one of these sets")
        )
    specs = sets[fits[0]]
    if config.task and task_spec(config.task).id not in [spec.id for spec in specs]:
        raise UserError(f"{path}: --task {config.task} is not in {fits[0]}")
    return specs


def _check_masks(model: ForeignModel, specs: Sequence[TaskSpec]) -> None:
    """Masks of the file must be those of our list: another order of tasks would show here."""
    if model.masks is None:
        return
    for row, (mask, spec) in enumerate(zip(model.masks.tolist(), specs, strict=True)):
        expected = [float(i < spec.action_dim) for i in range(len(mask))]
        if mask != expected:
            raise UserError(
                f"{model.path}: the action mask of task {row} is {[int(x) for x in mask]}, but "
                f"{spec.id} has {spec.action_dim} actions; the file was made with another list of "
                "tasks"
            )


def _model_config(
    config: ConvertCheckpointConfig,
    model: ForeignModel,
    agent: PWMAgent | None,
    specs: Sequence[TaskSpec],
) -> WorldModelConfig:
    options: dict[str, Any] = {"symlog_observations": config.symlog_obs}
    if agent is not None:
        if config.symlog_obs or config.log_std_range:
            raise UserError(f"{model.path} is an agent of PWM: it has no policy prior and takes no "
                            "symlog; leave --log-std-range and --symlog-obs out")  # fmt: skip
        options = agent.options()
    else:
        low, high = config.log_std_range or model.log_std or DEFAULT_LOG_STD
        options |= {"log_std_min": float(low), "log_std_max": float(high)}
    return model.sizes.config(
        [spec.id for spec in specs], [spec.obs_dim for spec in specs],
        [spec.action_dim for spec in specs], [spec.episode_length for spec in specs], **options,
    )  # fmt: skip


def _description(
    model: ForeignModel, config: WorldModelConfig, specs: Sequence[TaskSpec]
) -> list[str]:
    """What was found, for the person in front of the command."""
    sizes = model.sizes
    tasks = specs[0].id if len(specs) == 1 else (
        f"{len(specs)} tasks of {'mt80' if len(specs) > 30 else 'mt30'}")  # fmt: skip
    embedding = f"task embedding {sizes.task_dim}" if sizes.task_dim else "no task embedding"
    bins = f"{sizes.num_bins} bins" if sizes.num_bins > 1 else "rewards as single numbers"
    lines = [
        f"{model.path}: layout {model.layout} ({LAYOUTS[model.layout]}), size {sizes.name}, "
        f"{tasks}",
        f"  latent {sizes.latent_dim}, hidden {sizes.hidden_dim}, encoder {sizes.encoder_layers} x "
        f"{sizes.encoder_dim}, {sizes.num_q} Q heads, {embedding}, {sizes.obs_dim} observations, "
        f"{sizes.action_dim} actions, {bins}, {_parameters(model):,} parameters without targets",
    ]
    if config.policy_prior:
        lines.append(f"  log std of the policy prior {config.log_std_min:g} to "
                     f"{config.log_std_max:g}" + ("" if model.log_std else
                     " (not in the file: see --log-std-range)"))  # fmt: skip
    if sizes.termination:
        lines.append("  termination head")
    if model.ignored:
        lines.append(f"  not read: {', '.join(model.ignored)}")
    return lines


def _parameters(model: ForeignModel) -> int:
    return sum(t.numel() for name, t in model.tensors.items() if not name.startswith("_target"))


def _policy(
    agent: PWMAgent, config: WorldModelConfig, weights: dict[str, Tensor], task: str
) -> Policy | None:
    """The agent's actor as a policy; says what of the file is taken over."""
    taken = ["world model"]
    if agent.obs_mean is not None:
        taken.append("normalisation of observations, clipped to 5 deviations")
    if agent.reward_std is not None:
        taken.append("rewards scaled back to reward units in the last layer of the reward head")
    left = ["critics (their layers differ from ours)", "optimizers", "statistics of returns"]
    task = task or (config.tasks[0] if len(config.tasks) == 1 else "")
    policy = None
    if agent.actor_problem:
        left.append(f"actor ({agent.actor_problem})")
    elif not task:
        left.append("actor (say which task it was trained on with --task ID)")
    else:
        model = WorldModel(config)
        model.load_state_dict(weights)
        actor = Actor(config.latent_dim, model.action_masks[model.task_index(task)],
                      agent.actor_config)  # fmt: skip
        actor.load_state_dict({**agent.actor, "mask": actor.mask})
        policy = Policy.build(model, task, actor)
        taken.append(
            f"actor for {task}, taken to have Mish activations as in all of PWM's settings"
        )
    say(f"  taken over: {'; '.join(taken)}")
    say(f"  not taken over: {'; '.join(left)}")
    return policy


def _write(
    config: ConvertCheckpointConfig,
    out: Path,
    model: ForeignModel,
    model_config: WorldModelConfig,
    weights: dict[str, Tensor],
    policy: Policy | None,
) -> None:
    """The whole run folder in one step."""
    source = {
        "file": model.path.name, "layout": model.layout, "size": model.sizes.name,
        "log_std_dtypes": [] if config.log_std_range else list(model.log_std_dtypes),
    }  # fmt: skip
    facts = {"model": model_config.to_dict(), "source": source}
    with new_directory(out) as folder:
        run_folder = RunFolder.create(folder, "convert", config, **facts)
        save_checkpoint(run_folder.checkpoints, 0, {"world_model": weights})
        run_folder.finish(parameters=_parameters(model))
        if policy is not None:
            settings = {"world_model": str(out), "file": str(model.path), "seed": None}
            part = RunFolder.create(
                folder / "policy", "extract", settings, **facts,
                actor=actor_facts(policy.actor.config), tasks=[policy.task],
            )  # fmt: skip
            save_checkpoint(
                part.checkpoints / slug(policy.task), 0, {"policy": policy.state_dict()}
            )
            part.finish()


def _say_next(out: Path, config: WorldModelConfig, policy: Policy | None) -> None:
    ways = []
    if policy is not None:
        ways.append(f"pwm evaluate {out / 'policy'}")
    if config.policy_prior:
        ways.append(f"pwm evaluate {out} --policy plan")
    ways.append(f"pwm extract --world-model {out} --data DIR --task {config.tasks[0]} --out POLICY")
    say(f"Run folder {out} written. Next: {', or '.join(ways)}")
