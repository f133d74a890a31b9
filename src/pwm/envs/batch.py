"""Many copies of one ``dmc/`` task stepped together by ``mujoco.batch``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from pwm.envs.batch_tasks import TASKS
from pwm.envs.dmcontrol import flatten_observation, load_dm_environment
from pwm.envs.padding import action_mask
from pwm.envs.registry import canonical_id, task_spec
from pwm.envs.seeds import env_seeds
from pwm.errors import UserError

# Below this many environments a thread costs more than it brings.
_ENVS_PER_THREAD = 8


def supports_batch(task_id: str) -> bool:
    """Whether :class:`BatchDMControlVectorEnv` can run the task with the installed MuJoCo.

    Nothing is imported to find out.

    Raises:
        UserError: unknown task.
    """
    if canonical_id(task_id) not in TASKS:
        return False
    mujoco = find_spec("mujoco")
    # mujoco.batch is new in MuJoCo 3.17.
    return mujoco is not None and bool(
        PathFinder.find_spec("mujoco.batch", mujoco.submodule_search_locations)
    )


class BatchDMControlVectorEnv(VectorEnv):
    """``num_envs`` copies of a ``dmc/`` task; observations and rewards computed over all at once.

    Results equal those of ``num_envs`` environments of :func:`pwm.envs.make`: same initial states
    for the same seeds, same observations and rewards. Actions float32 [N, A] in [-1, 1] (values
    outside are clipped), observations float32 [N, O], rewards float64 [N]. An agent step is 2
    control steps with their rewards summed; episodes are truncated after 500 agent steps.

    An episode's end resets its environment within the same step (Gymnasium's SAME_STEP): the
    returned observation is the next episode's first one, and the last observation of the ended
    episode stands in ``info["final_obs"][i]`` where ``info["_final_obs"][i]``.

    Args:
        task_id: id or alias of a task for which :func:`supports_batch` holds.
        num_envs: number of environments, at least 1.
        seed: seed of the first ``reset()`` that is given none.
        pad_to: see :func:`pwm.envs.make`; the mask of the real action entries is then also the
            attribute ``action_mask``, float32 [A].
        num_threads: threads that step the physics; None takes one per 8 environments, up to the
            number of usable cores. The results do not depend on it.

    Raises:
        MissingExtra: dm_control is not installed.
        UserError: unsupported task, or unfit seed, padding or counts.
    """

    def __init__(
        self,
        task_id: str,
        num_envs: int,
        seed: int = 0,
        pad_to: tuple[int, int] | None = None,
        num_threads: int | None = None,
    ):
        self.task = task_spec(task_id)
        for name, count in (("num_envs", num_envs), ("num_threads", num_threads or 1)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {count!r}")
        if self.task.id not in TASKS:
            raise UserError(f"'{task_id}' has no batch backend; use backend='reference'")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        # States of each environment's random stream; one dm_control task draws from all in turn.
        self._streams: list[Any] = [_stream(value) for value in env_seeds(seed, num_envs)]
        self._set_spaces(pad_to)
        self._load(num_threads or _default_threads(num_envs))
        # Agent steps of the running episode; -1 before the first.
        self._elapsed = np.full(num_envs, -1)
        self._observations = np.zeros(self.observation_space.shape or (), np.float32)

    def _set_spaces(self, pad_to: tuple[int, int] | None) -> None:
        obs_dim, action_dim = self.task.obs_dim, self.task.action_dim
        padded_obs, padded_action = pad_to or (obs_dim, action_dim)
        if obs_dim > padded_obs or action_dim > padded_action:
            raise UserError(
                f"pad_to=({padded_obs}, {padded_action}) is smaller than the task's dims "
                f"({obs_dim}, {action_dim})"
            )
        high = np.full(padded_obs, np.inf, np.float32)
        high[obs_dim:] = 0.0
        self.single_observation_space = Box(-high, high, dtype=np.float32)
        self.single_action_space = Box(-1.0, 1.0, (padded_action,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._padded = pad_to is not None
        if self._padded:
            self.action_mask = action_mask(action_dim, padded_action)

    def _load(self, num_threads: int) -> None:
        """Construct the environment that draws initial states and the batch that steps them."""
        self._environment = load_dm_environment(self.task.id, 0)
        # Some changes of the model by an episode last (target sizes, damping): before the copy.
        self._environment.reset()
        import mujoco
        from dm_control.rl.control import PhysicsError

        try:
            from mujoco.batch import Batch
        except ModuleNotFoundError:
            raise UserError(
                f"mujoco {mujoco.__version__} has no mujoco.batch; install mujoco 3.17 or use "
                "backend='reference'"
            ) from None
        physics = self._environment.physics
        self._data, model = physics.data.ptr, physics.model.ptr
        self._substeps = round(self._environment.control_timestep() / physics.timestep())
        # With an MjData each, simulations need not repeat mj_step1 at every control step.
        self._batch = Batch(model, self.num_envs, num_threads, persistent=True)
        self._batch_task = TASKS[self.task.id](self._batch)
        self._control = self._batch.bind("ctrl")
        self._episode_fields = [
            (getattr(model, name), self._batch.expand(name))
            for name in self._batch_task.episode_fields
        ]
        # Warnings seen so far, by simulation and kind.
        self._warnings = self._batch.warning[..., 1]
        self._warning_total = 0
        self._mujoco, self._physics_error = mujoco, PhysicsError

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: None continues every environment's stream; an int restarts the streams (seed,
                "env", i); a sequence gives each environment its own seed.
            options: ``{"reset_mask": bool [N]}`` resets only the environments marked.

        Raises:
            UserError: unfit seed or mask; nothing has been reset then.
        """
        seeds = None if seed is None else env_seeds(seed, self.num_envs)
        mask = self._reset_mask(options)
        for index in np.flatnonzero(mask).tolist():
            if seeds is not None:
                self._streams[index] = _stream(seeds[index])
            self._start_episode(index)
        return self._observations.copy(), self._infos(mask)

    def _reset_mask(self, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise UserError(
                f"reset_mask must be {self.num_envs} booleans, at least one of them true"
            )
        return mask

    def _start_episode(self, index: int) -> None:
        """Draw an initial state from the stream of environment ``index``."""
        random = self._environment.task.random
        random.set_state(self._streams[index])
        observation = self._environment.reset().observation
        self._streams[index] = random.get_state(legacy=False)
        state = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_getState(self._batch.model, self._data, self._batch.state[index], state)
        for drawn, own in self._episode_fields:
            own[index] = drawn
        self._observations[index, : self.task.obs_dim] = flatten_observation(observation)
        self._elapsed[index] = 0

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Take one agent step in every environment with ``actions`` float32 [N, A].

        Raises:
            UserError: wrong shape or a non-finite action; no environment has stepped then.
            gymnasium.error.ResetNeeded: an environment has not been reset yet.
            dm_control.rl.control.PhysicsError: a simulation diverged.
        """
        self._control[:] = self._checked_controls(actions)
        rewards = np.zeros(self.num_envs)
        for _ in range(self.task.action_repeat):
            self._batch.step(nstep=self._substeps, stage=self._mujoco.mjtStage.mjSTAGE_VEL)
            rewards += self._batch_task.reward()
        self._check_warnings()
        np.concatenate(
            self._batch_task.observe(),
            axis=1,
            out=self._observations[:, : self.task.obs_dim],
            casting="same_kind",
        )
        self._elapsed += 1
        truncated = self._elapsed == self.task.episode_length
        infos = self._infos(np.ones(self.num_envs, np.bool_))
        if truncated.any():
            infos = {**self._final_infos(truncated), **infos}
            for index in np.flatnonzero(truncated).tolist():
                self._start_episode(index)
        terminated = np.zeros(self.num_envs, np.bool_)
        return self._observations.copy(), rewards, terminated, truncated, infos

    def _checked_controls(self, actions: NDArray[np.float32]) -> NDArray[np.float64]:
        if np.shape(actions) != self.action_space.shape:
            raise UserError(
                f"actions must have shape {self.action_space.shape}, not {np.shape(actions)}"
            )
        controls = np.asarray(actions, np.float64)
        # MuJoCo would quietly replace a NaN control by zero.
        if not np.isfinite(controls).all():
            raise UserError("actions must be finite")
        if self._elapsed.min() < 0:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        return controls[:, : self.task.action_dim].clip(-1.0, 1.0)

    def _check_warnings(self) -> None:
        """Raise as dm_control does where MuJoCo had to reset a state or lost a contact."""
        total = int(self._warnings.sum())
        if total == self._warning_total:
            return
        self._warning_total = total
        counts = self._warnings.sum(axis=0)
        names = [self._mujoco.mjtWarning(kind).name for kind in np.flatnonzero(counts)]
        raise self._physics_error(
            f"{self.task.id}: physics state is invalid; MuJoCo warned: {', '.join(names)}"
        )

    def _infos(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Infos of the environments in ``mask``, in Gymnasium's layout."""
        if not self._padded:
            return {}
        return {"action_mask": mask[:, None] * self.action_mask, "_action_mask": mask.copy()}

    def _final_infos(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Last observations and infos of ended episodes, before their environments are reset."""
        final = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(ended):
            final[index] = self._observations[index].copy()
        return {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": self._infos(ended),
            "_final_info": ended.copy(),
        }


def _stream(seed: int) -> dict[str, Any]:
    """State of the random stream that a dm_control task starts from ``seed``."""
    return np.random.RandomState(seed).get_state(legacy=False)


def _default_threads(num_envs: int) -> int:
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, num_envs // _ENVS_PER_THREAD))
