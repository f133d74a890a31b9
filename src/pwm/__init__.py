"""PWM: policy learning with multi-task world models (arXiv 2407.02466).

The public names load on first use, so that ``import pwm`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pwm.errors import UserError
    from pwm.models.pretrained import Policy
    from pwm.models.world_model import WorldModel, WorldModelConfig
    from pwm.stages.extract import extract

_HOMES = {
    "Policy": "pwm.models.pretrained",
    "UserError": "pwm.errors",
    "WorldModel": "pwm.models.world_model",
    "WorldModelConfig": "pwm.models.world_model",
    "extract": "pwm.stages.extract",
}

__all__ = ["Policy", "UserError", "WorldModel", "WorldModelConfig", "__version__", "extract"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pwm' has no attribute '{name}'")
