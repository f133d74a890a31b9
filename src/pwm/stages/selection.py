"""Which policy of a training run is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pwm.models.pretrained import Policy
from pwm.runtime.run_folder import checkpoint_path, load_state, load_weights


class Selection:
    """Keeps the policy with the best real return so far, or simply the last one.

    A policy that goes on training against a model learns to exploit its errors; the evaluations
    that are made anyway show when. Their episodes are apart from those of the final evaluation.

    Args:
        rule: "best" or "last".
        policy: the policy in training; its weights change under this object.

    Attributes:
        step: update at which the kept policy stood; None for "last" or before any evaluation.
    """

    def __init__(self, rule: str, policy: Policy):
        self.rule, self.policy = rule, policy
        self.step: int | None = None
        self._score = float("-inf")
        self._kept: dict[str, Tensor] | None = None

    def offer(self, step: int, score: float) -> None:
        """Note the mean real return of the policy as it is now; on a tie the later one wins."""
        if self.rule == "best" and score >= self._score:
            self.step, self._score = step, score
            self._kept = {name: t.clone() for name, t in self.policy.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        """State dict of the policy to keep."""
        return self.policy.state_dict() if self._kept is None else self._kept

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside :meth:`weights`."""
        return {"selection": {"step": self.step, "score": self._score}}

    def load(self, folder: Path, step: int) -> None:
        """Go back to the checkpoint of ``step`` in ``folder``."""
        source = checkpoint_path(folder, step)
        state = load_state(source / "state.pt")["selection"]
        self.step, self._score = state["step"], state["score"]
        if self.step is not None:
            self._kept = load_weights(source / "policy.safetensors")
