"""The list of tasks: one row a task, names and aliases. Importing it loads no simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pwm.errors import MissingExtra, UserError, nearest

# Module that each optional dependency group brings.
_EXTRA_MODULES = {"dmcontrol": "dm_control", "metaworld": "metaworld"}

EntryPoint = Callable[..., Any]


@dataclass(frozen=True)
class TaskSpec:
    """Facts about one task.

    Attributes:
        id: canonical id, such as ``"dmc/walker-walk"``.
        suites: task sets that hold the task, such as ``("dmc", "mt30", "mt80")``.
        obs_dim: length of the (unpadded) observation vector.
        action_dim: length of the (unpadded) action vector.
        episode_length: time limit in agent steps; None without a limit.
        action_repeat: control steps that one agent step takes; their rewards are summed.
        extra: pip extra that brings the simulator; None when the core install has it.
    """

    id: str
    suites: tuple[str, ...]
    obs_dim: int
    action_dim: int
    episode_length: int | None
    action_repeat: int
    extra: str | None

    @property
    def installed(self) -> bool:
        """Whether the simulator can be imported (looked up, not imported)."""
        return self.extra is None or find_spec(_EXTRA_MODULES[self.extra]) is not None

    def require_installed(self) -> None:
        """Do nothing when the simulator can be imported, else raise MissingExtra."""
        if self.extra is not None and not self.installed:
            raise MissingExtra(_EXTRA_MODULES[self.extra], self.extra)


# (task, observation dim, action dim) in the task order of TD-MPC2's 30-task data, which is also
# the start of its 80-task order.
_DMC_ROWS: tuple[tuple[str, int, int], ...] = (
    ("walker-stand", 24, 6),
    ("walker-walk", 24, 6),
    ("walker-run", 24, 6),
    ("cheetah-run", 17, 6),
    ("reacher-easy", 6, 2),
    ("reacher-hard", 6, 2),
    ("acrobot-swingup", 6, 1),
    ("pendulum-swingup", 3, 1),
    ("cartpole-balance", 5, 1),
    ("cartpole-balance-sparse", 5, 1),
    ("cartpole-swingup", 5, 1),
    ("cartpole-swingup-sparse", 5, 1),
    ("cup-catch", 8, 2),
    ("finger-spin", 9, 2),
    ("finger-turn-easy", 12, 2),
    ("finger-turn-hard", 12, 2),
    ("fish-swim", 24, 5),
    ("hopper-stand", 15, 4),
    ("hopper-hop", 15, 4),
    ("walker-walk-backwards", 24, 6),
    ("walker-run-backwards", 24, 6),
    ("cheetah-run-backwards", 17, 6),
    ("cheetah-run-front", 17, 6),
    ("cheetah-run-back", 17, 6),
    ("cheetah-jump", 17, 6),
    ("hopper-hop-backwards", 15, 4),
    ("reacher-three-easy", 8, 3),
    ("reacher-three-hard", 8, 3),
    ("cup-spin", 8, 2),
    ("pendulum-spin", 3, 1),
)

# Meta-World's tasks in the order in which they follow in TD-MPC2's 80-task data.
_METAWORLD_TASKS: tuple[str, ...] = (
    "assembly", "basketball", "button-press-topdown", "button-press-topdown-wall", "button-press",
    "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn",
    "disassemble", "door-open", "door-close", "drawer-close", "drawer-open",
    "faucet-open", "faucet-close", "hammer", "handle-press-side", "handle-press",
    "handle-pull-side", "handle-pull", "lever-pull", "peg-insert-side", "peg-unplug-side",
    "pick-out-of-hole", "pick-place", "pick-place-wall", "plate-slide", "plate-slide-side",
    "plate-slide-back", "plate-slide-back-side", "push-back", "push", "push-wall",
    "reach", "reach-wall", "shelf-place", "soccer", "stick-push",
    "stick-pull", "sweep-into", "sweep", "window-open", "window-close",
    "bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert",
)  # fmt: skip

_BUILTIN: dict[str, TaskSpec] = {
    f"dmc/{name}": TaskSpec(
        id=f"dmc/{name}",
        suites=("dmc", "mt30", "mt80"),
        obs_dim=obs_dim,
        action_dim=action_dim,
        episode_length=500,
        action_repeat=2,
        extra="dmcontrol",
    )
    for name, obs_dim, action_dim in _DMC_ROWS
} | {
    f"metaworld/{name}": TaskSpec(
        id=f"metaworld/{name}",
        suites=("metaworld", "mt80"),
        obs_dim=39,
        action_dim=4,
        episode_length=100,
        action_repeat=2,
        extra="metaworld",
    )
    for name in _METAWORLD_TASKS
}


# Scores over these sets are compared with published ones, so nothing may join them.
_FIXED_SUITES = frozenset({"dmc", "gym", "metaworld", "mt30", "mt80"})

_RESERVED_PREFIXES = ("dmc/", "gym/", "metaworld/")


@dataclass(frozen=True)
class _UserTask:
    entry_point: EntryPoint
    suites: tuple[str, ...]


_user_tasks: dict[str, _UserTask] = {}
# Specs whose dims were found by constructing the environment once.
_measured: dict[str, TaskSpec] = {}


def canonical_id(task_id: str) -> str:
    """Return the canonical id of ``task_id`` or of one of its aliases.

    Accepted besides the canonical ids: TD-MPC2's short names (``walker-walk``, ``mw-reach``),
    ``-backward`` for ``-backwards``, ``ball-in-cup`` for ``cup``, ``_`` for ``-``. ``gym/...``
    ids and registered ids pass unchanged.

    Raises:
        UserError: unknown id; the message names the nearest ids.
    """
    if not isinstance(task_id, str) or not task_id:
        raise UserError(f"task id must be a text such as 'dmc/walker-walk', not {task_id!r}")
    if task_id in _user_tasks or task_id.startswith("gym/"):
        return task_id
    name = _plain_name(task_id)
    if name in _BUILTIN:
        return name
    hint = _gymnasium_hint(task_id) or nearest(name, [*_BUILTIN, *_user_tasks])
    raise UserError(f"unknown task '{task_id}'.{hint} See the list: pwm tasks")


def _plain_name(alias: str) -> str:
    """Spell an alias as the canonical id that it would stand for."""
    name = alias.lower().replace("_", "-").removeprefix("dmc/")
    if name.startswith(("metaworld/", "mw-")):
        return f"metaworld/{name.removeprefix('metaworld/').removeprefix('mw-')}"
    name = name.replace("ball-in-cup-", "cup-", 1)
    return f"dmc/{name}s" if name.endswith("-backward") else f"dmc/{name}"


def _gymnasium_hint(task_id: str) -> str:
    """Suggestion for a Gymnasium id that lacks its prefix."""
    import gymnasium

    return f" Did you mean 'gym/{task_id}'?" if task_id in gymnasium.registry else ""


def task_spec(task_id: str) -> TaskSpec:
    """Return the facts of a task.

    Args:
        task_id: canonical id, alias, ``gym/<registered gymnasium id>`` or an id given to
            :func:`register`. The dims of the last two kinds come from constructing the
            environment once.

    Raises:
        UserError: unknown id, or an environment whose spaces are not flat boxes.
    """
    canonical = canonical_id(task_id)
    if canonical in _BUILTIN:
        return _BUILTIN[canonical]
    if canonical not in _measured:
        from pwm.envs.external import measure

        user = _user_tasks.get(canonical)
        suites = user.suites if user is not None else ("gym",)
        _measured[canonical] = measure(canonical, suites)
    return _measured[canonical]


def list_tasks(suite: str | None = None) -> list[TaskSpec]:
    """Return the built-in and registered tasks, in registry order.

    Args:
        suite: keep only the tasks of this set; ``"mt30"`` and ``"mt80"`` come in TD-MPC2's task
            order.

    Raises:
        UserError: no task belongs to ``suite``.
    """
    wanted = [*_BUILTIN, *_user_tasks]
    if suite is not None:
        suites = {name: _suites(name) for name in wanted}
        wanted = [name for name in wanted if suite in suites[name]]
        if not wanted:
            known = sorted({tag for tags in suites.values() for tag in tags})
            raise UserError(
                f"unknown suite '{suite}'.{nearest(suite, known)} Known: {', '.join(known)}"
            )
    return [task_spec(name) for name in wanted]


def _suites(task_id: str) -> tuple[str, ...]:
    return _user_tasks[task_id].suites if task_id in _user_tasks else _BUILTIN[task_id].suites


def register(task_id: str, entry_point: EntryPoint, suites: Iterable[str] = ()) -> None:
    """Add a task of your own, from then on known to every stage of this process.

    Args:
        task_id: new id, such as ``"mine/arm"``; may not start with ``dmc/``, ``gym/`` or
            ``metaworld/``.
        entry_point: callable that returns a new ``gymnasium.Env`` with 1-D ``Box`` observations
            and a bounded 1-D ``Box`` of actions. It is called without arguments, and with
            ``render_mode="rgb_array"`` when pictures are wanted. Time limits are its own affair
            (wrap it in ``gymnasium.wrappers.TimeLimit``).
        suites: names of the task sets that the task joins.

    Raises:
        UserError: the id is taken or malformed, ``entry_point`` is not callable, or a suite is one
            of the fixed sets.
    """
    if not isinstance(task_id, str) or not task_id or task_id != task_id.strip():
        raise UserError(f"task id must be a text without blanks around it, not {task_id!r}")
    if task_id.startswith(_RESERVED_PREFIXES):
        prefix = task_id.partition("/")[0]
        raise UserError(f"task id '{task_id}': '{prefix}/' is reserved; use another prefix")
    if task_id in _user_tasks or _plain_name(task_id) in _BUILTIN:
        raise UserError(f"task id '{task_id}' is taken already; choose another id")
    if not callable(entry_point):
        raise UserError(f"task '{task_id}': entry_point must be callable, not {entry_point!r}")
    tags = (suites,) if isinstance(suites, str) else tuple(suites)
    if fixed := _FIXED_SUITES.intersection(tags):
        raise UserError(f"task '{task_id}': the suite '{min(fixed)}' is fixed; name your own")
    _user_tasks[task_id] = _UserTask(entry_point, tags)


def entry_point_of(task_id: str) -> EntryPoint | None:
    """Return the entry point of a registered task; None for every other id."""
    user = _user_tasks.get(task_id)
    return None if user is None else user.entry_point
