"""Meta-World tasks behind the Gymnasium API, with TD-MPC2's conventions (arXiv 2310.16828)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pwm.envs.actions import checked_action
from pwm.envs.registry import canonical_id, task_spec
from pwm.envs.rendering import SceneRenderer, gl_error, select_gl_backend
from pwm.envs.seeds import check_seed
from pwm.errors import MissingExtra, UserError

_CAMERA = "corner2"
# Where TD-MPC2 puts that camera: closer to the table.
_CAMERA_POSITION = (0.75, 0.075, 0.7)
# Anchor and relative pose of a weld, then its torque scale: what Meta-World wants in each row.
_WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)


def load_metaworld_environment(task_id: str, seed: int) -> Any:
    """Construct Meta-World's own environment of a ``metaworld/`` task.

    Args:
        task_id: id or alias of a ``metaworld/`` task.
        seed: seed of the stream that every goal and initial object position is drawn from.

    Returns:
        ``SawyerXYZEnv`` with the goal in the observation and a new random goal in each episode.
        It takes one *control* step a ``step``.

    Raises:
        MissingExtra: metaworld is not installed.
        UserError: not a ``metaworld/`` task, or a seed outside 0 .. 2**32 - 1.
    """
    canonical = canonical_id(task_id)
    if not canonical.startswith("metaworld/"):
        raise UserError(f"'{task_id}' is no Meta-World task; its id would start with 'metaworld/'")
    seed = check_seed(seed)
    classes = _import_environments()
    name = canonical.removeprefix("metaworld/")
    # The constructor draws from NumPy's global stream unless it is given a seed.
    environment = classes[f"{name}-v3-goal-observable"](seed=0)
    # Upstream keeps the first goal for ever and ignores reset(seed=...).
    environment._freeze_rand_vec = False
    environment.seeded_rand_vec = True
    environment.seed(seed)
    return environment


def _import_environments() -> dict[str, type]:
    """Classes with observable goals by name, mended for the installed MuJoCo."""
    backend = select_gl_backend()
    try:
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        from metaworld.sawyer_xyz_env import SawyerMocapBase
    # Gymnasium's MuJoCo environments, which Meta-World builds on, have an error of their own.
    except (ModuleNotFoundError, gymnasium.error.DependencyNotInstalled) as error:
        package = getattr(error, "name", None) or "mujoco"
        raise MissingExtra(package.partition(".")[0], "metaworld") from None
    # A GL backend that the user asked for and that is not there: PyOpenGL raises AttributeError.
    except (AttributeError, ImportError, RuntimeError) as error:
        raise gl_error(backend, error) from error
    # MuJoCo 3.17 gave eq_data a twelfth column, which metaworld 3.0.0 cannot fill.
    if len(_WELD) < mujoco.mjNEQDATA:
        setattr(SawyerMocapBase, "reset_mocap_welds", _reset_mocap_welds)  # noqa: B010
    return ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE


def _reset_mocap_welds(environment: Any) -> None:
    """Meta-World's method of this name for any number of columns; surplus ones stay as they are."""
    mujoco = sys.modules["mujoco"]
    model = environment.model
    if model.nmocap > 0:
        welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
        model.eq_data[welds, : len(_WELD)] = _WELD


def scripted_expert(task_id: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Meta-World's hand-written policy of a task: observations [N, 39] -> actions [N, 4].

    It keeps no memory, so one serves any number of environments. Actions are clipped to [-1, 1].

    Raises:
        MissingExtra: metaworld is not installed.
        UserError: the task has no scripted expert.
    """
    canonical = canonical_id(task_id)
    if not canonical.startswith("metaworld/"):
        raise UserError(
            f"'{canonical}' has no scripted expert, only the tasks of Meta-World have one; "
            "see the list: pwm tasks --suite metaworld"
        )
    _import_environments()
    from metaworld.policies import ENV_POLICY_MAP

    policies: Mapping[str, Callable[[], Any]] = ENV_POLICY_MAP
    policy = policies[f"{canonical.removeprefix('metaworld/')}-v3"]()

    def act(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            # A note on actions beyond [-1, 1], which are meant to be clipped.
            warnings.filterwarnings("ignore", message="Constant")
            actions = [policy.get_action(row) for row in np.asarray(observations, np.float64)]
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    return act


class MetaWorldEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One ``metaworld/`` task.

    Observations are float32 [39]: state 18, the state one control step before 18, goal 3. Actions
    are float32 [4] in [-1, 1] (values outside are clipped). An agent step repeats the action for
    2 control steps and sums their rewards (0 to 10 each). Episodes are truncated after 100 agent
    steps and never terminate; each draws a new goal. ``info["success"]`` is 1.0 while the task is
    solved, else 0.0; what counts for an episode is its last step.

    As in TD-MPC2's data, each reset is followed by one control step with a zero action, and the
    observation from before it is returned.

    Args:
        task_id: id or alias of a ``metaworld/`` task.
        seed: seed of the first ``reset()`` that is given none.
        render_mode: None or ``"rgb_array"``.
        width, height: size of the pictures in pixels.

    Raises:
        MissingExtra: metaworld is not installed.
        UserError: unknown task or unfit seed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 40}

    def __init__(
        self,
        task_id: str,
        seed: int = 0,
        *,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 320,
    ):
        self.task = task_spec(task_id)
        self.metaworld_environment = load_metaworld_environment(task_id, seed)
        # Before any reset: the scene takes a camera's place from the last control step.
        self.metaworld_environment.model.camera(_CAMERA).pos[:] = _CAMERA_POSITION
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (self.task.obs_dim,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.task.action_dim,), np.float32)
        control_fps = 1.0 / self.metaworld_environment.dt
        self.metadata = {**self.metadata, "render_fps": control_fps / self.task.action_repeat}
        self._size = (width, height)
        self._renderer: SceneRenderer | None = None
        self._steps: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode; with ``seed``, restart the stream of goals from it."""
        if seed is not None:
            seed = check_seed(seed)
            self.metaworld_environment.seed(seed)
        super().reset(seed=seed)
        self._steps = 0
        observation, _ = self.metaworld_environment.reset()
        self.metaworld_environment.step(np.zeros(self.task.action_dim))
        return np.asarray(observation, np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one agent step (2 control steps).

        Raises:
            UserError: the action has the wrong shape or is not finite.
            gymnasium.error.ResetNeeded: no episode is under way.
        """
        if self._steps is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        control = checked_action(self.task.id, action, self.task.action_dim)
        total = 0.0
        for _ in range(self.task.action_repeat):
            observation, reward, _, _, info = self.metaworld_environment.step(control)
            total += float(reward)
        self._steps += 1
        truncated = self._steps == self.task.episode_length
        if truncated:
            self._steps = None
        success = {"success": float(info["success"])}
        return np.asarray(observation, np.float32), total, False, truncated, success

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture, uint8 [H, W, 3]; None unless ``render_mode="rgb_array"``.

        Raises:
            UserError: no OpenGL renderer works on this machine.
        """
        if self.render_mode is None:
            return None
        environment = self.metaworld_environment
        if self._renderer is None:
            camera = environment.model.camera(_CAMERA).id
            self._renderer = SceneRenderer(environment.model, *self._size, camera)
        # The camera hangs upside down; half a turn, unlike a flip, keeps left and right.
        return np.ascontiguousarray(self._renderer.render(environment.data)[::-1, ::-1])

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
