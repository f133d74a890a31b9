"""The doors of this package that construct environments."""

from __future__ import annotations

from importlib.util import find_spec

import gymnasium

from pwm.envs.registry import canonical_id
from pwm.envs.seeds import check_seed
from pwm.errors import UserError

BACKENDS = ("auto", "reference", "batch")


def make(
    task_id: str,
    seed: int = 0,
    *,
    pad_to: tuple[int, int] | None = None,
    render_mode: str | None = None,
    width: int = 320,
    height: int = 320,
) -> gymnasium.Env:
    """Construct one environment.

    Observations are float32 [O] and actions float32 [A] in [-1, 1], whatever the simulator's own
    bounds; actions outside are clipped. ``dmc/`` tasks repeat each action for 2 control steps and
    sum the rewards, are truncated after 500 agent steps and never terminate; ``metaworld/`` tasks
    do the same after 100 agent steps and report ``info["success"]`` at every one.

    Args:
        task_id: id from :func:`pwm.envs.list_tasks`, an alias, ``gym/<Gymnasium id>`` or an id
            given to :func:`pwm.envs.register`.
        seed: seed of the first ``reset()`` that is given none, so ``make(t, 5).reset()`` starts
            like ``make(t).reset(seed=5)``. Later resets without a seed continue the stream.
        pad_to: (observation dim, action dim) of a multi-task model: zeros behind the observation,
            surplus action entries ignored, ``info["action_mask"]`` and ``env.action_mask``
            (float32 [A]) mark the real ones.
        render_mode: None or ``"rgb_array"`` (``render()`` gives uint8 [H, W, 3]).
        width, height: picture size in pixels of ``dmc/`` and ``metaworld/`` tasks; others have a
            size of their own.

    Raises:
        UserError: unknown task, render mode, unfit seed, padding or picture size.
        MissingExtra: the simulator is not installed.
    """
    canonical = canonical_id(task_id)
    check_seed(seed)
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode must be None or 'rgb_array', not {render_mode!r}")
    if min(width, height) < 1:
        raise UserError(f"picture size must be at least 1 x 1 pixel, not {width} x {height}")
    env: gymnasium.Env
    if canonical.startswith("dmc/"):
        from pwm.envs.dmcontrol import DMControlEnv

        env = DMControlEnv(canonical, seed, render_mode=render_mode, width=width, height=height)
    elif canonical.startswith("metaworld/"):
        from pwm.envs.metaworld import MetaWorldEnv

        env = MetaWorldEnv(canonical, seed, render_mode=render_mode, width=width, height=height)
    else:
        from pwm.envs.external import make_external

        env = make_external(canonical, seed, render_mode)
    if pad_to is not None:
        from pwm.envs.padding import PadEnv

        env = PadEnv(env, pad_to)
    return env


def make_vec(
    task_id: str,
    num_envs: int,
    seed: int = 0,
    *,
    backend: str = "auto",
    pad_to: tuple[int, int] | None = None,
) -> gymnasium.vector.VectorEnv:
    """Construct ``num_envs`` environments of one task that step together.

    ``step`` takes actions [N, A] and returns observations [N, O], rewards, terminated and
    truncated [N] and an info dict. An ended episode is reset within the same step (Gymnasium's
    SAME_STEP autoreset): its last observation stands in ``info["final_obs"]``, marked by
    ``info["_final_obs"]``, and its last info in ``info["final_info"]``.

    Args:
        task_id: any id that :func:`make` takes.
        num_envs: number of environments, at least 1.
        seed: environment i draws from the stream (seed, "env", i) of ``pwm.seeding``;
            ``reset(seed=s)`` does the same with s, and ``reset(seed=[...])`` gives each
            environment the seed that :func:`make` would take.
        backend: ``"reference"`` steps :func:`make`'s environments one after the other;
            ``"batch"`` steps ``dmc/`` tasks through ``mujoco.batch``, with equal results;
            ``"auto"`` takes the batch where the task supports it.
        pad_to: see :func:`make`.

    Raises:
        UserError: unknown task or backend, ``num_envs`` below 1, or no batch backend for the task.
        MissingExtra: the simulator is not installed.
    """
    if backend not in BACKENDS:
        raise UserError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}")
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise UserError(f"num_envs must be a whole number of at least 1, not {num_envs!r}")
    canonical = canonical_id(task_id)
    batched = backend != "reference" and canonical.startswith("dmc/")
    if batched and find_spec("pwm.envs.batch"):
        from pwm.envs.batch import BatchDMControlVectorEnv, supports_batch

        if supports_batch(canonical):
            return BatchDMControlVectorEnv(canonical, num_envs, seed=seed, pad_to=pad_to)
    if backend == "batch":
        raise UserError(f"'{task_id}' has no batch backend; use backend='reference' or 'auto'")
    from pwm.envs.vector import ReferenceVectorEnv

    return ReferenceVectorEnv(canonical, num_envs, seed=seed, pad_to=pad_to)
