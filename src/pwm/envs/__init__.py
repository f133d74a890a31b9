"""Simulators behind the Gymnasium API; the list of tasks and the doors to construct them.

Importing this package loads no simulator: each loads with the first environment that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pwm.envs.registry import TaskSpec, list_tasks, register, task_spec

if TYPE_CHECKING:
    from pwm.envs.making import make, make_vec
    from pwm.envs.padding import action_mask

_HOMES = {
    "action_mask": "pwm.envs.padding",
    "make": "pwm.envs.making",
    "make_vec": "pwm.envs.making",
}

__all__ = [
    "TaskSpec",
    "action_mask",
    "list_tasks",
    "make",
    "make_vec",
    "register",
    "task_spec",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pwm.envs' has no attribute '{name}'")
