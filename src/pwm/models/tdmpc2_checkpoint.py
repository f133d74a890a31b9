"""World models of TD-MPC2 (arXiv 2310.16828), read from its checkpoints and written for it.

A checkpoint is ``{"model": state_dict}`` in one of the layouts of
:mod:`pwm.models.tdmpc2_layouts`. It names no sizes and no tasks: the sizes are found from the
shapes, the tasks have to be said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.errors import UserError
from pwm.models.tdmpc2_layouts import (
    LOG_STD,
    MASKS,
    Structure,
    detect,
    duplicates,
    file_key,
    is_note,
    is_stacked,
    notes,
    own_names,
    setting_keys,
    structure_of,
)
from pwm.models.tdmpc2_sizes import Sizes, check_shapes, find_sizes
from pwm.models.world_model import WorldModel

_DTYPES = {str(dtype).removeprefix("torch."): dtype
           for dtype in (torch.int32, torch.int64, torch.float32, torch.float64)}  # fmt: skip
_REPAIR = "get a fresh copy of the file"


@dataclass(frozen=True)
class ForeignModel:
    """A world model out of a file, checked: complete, of one size throughout, finite.

    Attributes:
        layout: see :data:`pwm.models.tdmpc2_layouts.LAYOUTS`.
        tensors: by the names of layout NEW.
        log_std: range of the policy prior's log standard deviation, when the file says it.
        log_std_dtypes: names of the dtypes that it is stored with.
        masks: [tasks, A] of 0/1, when the file has them.
        ignored: entries of the file beside the model, which are not read.
    """

    path: Path
    layout: str
    structure: Structure
    sizes: Sizes
    tensors: dict[str, Tensor]
    log_std: tuple[float, float] | None = None
    log_std_dtypes: tuple[str, ...] = ()
    masks: Tensor | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def of_file(cls, path: Path, content: Any) -> ForeignModel:
        """From the content of a checkpoint of TD-MPC2.

        Raises:
            UserError: no such checkpoint, keys that lack or that no layout has, a tensor of
                another shape than the others ask for, numbers that are not finite.
        """
        state = content.get("model", content) if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise UserError(f"{path} is no checkpoint of TD-MPC2: it holds no {{'model': ...}}")
        if any(key.startswith("_encoder.rgb.") for key in state):
            raise UserError(f"{path} holds a model of pictures; give one of state observations")
        layout = detect(state)
        if layout is None:
            raise UserError(
                f"{path} is no checkpoint of TD-MPC2: it has no _encoder, _dynamics or _reward, "
                f"but {listed(state, 3) or 'nothing'}"
            )
        ignored = tuple(sorted(str(key) for key in content if key != "model")) if (
            state is not content) else ()  # fmt: skip
        return cls.of_state(path, state, layout, ignored)

    @classmethod
    def of_state(
        cls, path: Path, state: Mapping[str, Any], layout: str, ignored: tuple[str, ...] = ()
    ) -> ForeignModel:
        """From a state dict of ``layout``; raises UserError as :meth:`of_file`."""
        structure = structure_of(state, layout)
        names = structure.names()
        keys = {name: file_key(name, layout) for name in names}
        again = {name: duplicates(name, layout) for name in names}
        settings = setting_keys(layout, structure)
        copies = [key for others in again.values() for key in others]
        _check_keys(path, layout, state, [*keys.values(), *copies, *settings])
        tensors = {name: _weights(path, key, state[key]) for name, key in keys.items()}
        sizes = find_sizes(path, structure, tensors)
        check_shapes(path, sizes, tensors, keys)
        for name, key in keys.items():
            check_finite(path, key, tensors[name])
            for other in again[name]:
                if not same(tensors[name], state[other]):
                    raise UserError(f"{path}: '{other}' differs from '{key}', which it repeats; "
                                    f"{_REPAIR}")  # fmt: skip
        log_std = _log_std(path, state) if settings else None
        masks = state[MASKS] if MASKS in settings else None
        if masks is not None:
            _check_masks(path, masks, sizes)
        dtypes = tuple(str(state[key].dtype).removeprefix("torch.") for key in LOG_STD
                       if key in settings)  # fmt: skip
        return cls(path, layout, structure, sizes, tensors, log_std, dtypes, masks, ignored)

    def own_state(self) -> dict[str, Tensor]:
        """State dict of a :class:`pwm.models.world_model.WorldModel` with these weights."""
        state: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            own = own_names(name, self.sizes.num_q)
            # copies: heads that share memory can't be stored apart from each other
            parts = [tensor[q].clone() for q in range(len(own))] if is_stacked(name) else [tensor]
            state.update(zip(own, parts, strict=True))
        return state


def tdmpc2_state(model: WorldModel, log_std_dtypes: Sequence[str] = ()) -> dict[str, Any]:
    """State dict in layout NEW, as TD-MPC2's ``load_state_dict`` wants it.

    Args:
        model: has Q heads and a policy prior.
        log_std_dtypes: dtypes of log_std_min and log_std_dif; by default int64 for whole numbers
            and float32 for others, as TD-MPC2 makes them from its settings.
    """
    c, own = model.config, model.state_dict()
    structure = Structure(c.encoder_layers + 1, c.task_dim > 0, c.termination)
    state: dict[str, Any] = {}
    if structure.embedding:
        state[MASKS] = model.action_masks.clone()
    values = (c.log_std_min, c.log_std_max - c.log_std_min)
    for i, (key, value) in enumerate(zip(LOG_STD, values, strict=True)):
        whole = torch.int64 if value == int(value) else torch.float32
        dtype = _DTYPES[log_std_dtypes[i]] if log_std_dtypes else whole
        state[key] = torch.tensor(value, dtype=dtype)
    for name in structure.names():
        parts = [own[key] for key in own_names(name, c.num_q)]
        state[name] = torch.stack(parts) if is_stacked(name) else parts[0]
        state.update((key, state[name]) for key in duplicates(name, "NEW"))
    return {**state, **notes(c.num_q)}


def listed(names: Iterable[str], most: int = 40) -> str:
    """Names from a file as text for one line."""
    names = list(names)
    shown = ["".join(c if c.isprintable() else "?" for c in name)[:80] for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def same(tensor: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and other.dtype == tensor.dtype and torch.equal(tensor, other)


def check_finite(path: Path, key: str, tensor: Tensor) -> None:
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise UserError(f"{path}: '{key}' has {bad} of {tensor.numel()} values that are NaN or "
                        f"infinite; {_REPAIR}")  # fmt: skip


def _check_keys(path: Path, layout: str, state: Mapping[str, Any], expected: list[str]) -> None:
    missing = [key for key in expected if key not in state]
    unknown = sorted(key for key in set(state).difference(expected) if not is_note(key))
    if missing:
        raise UserError(
            f"{path} (layout {layout}) lacks {len(missing)} of {len(expected)} keys: "
            f"{listed(missing)}; {_REPAIR}"
        )
    if unknown:
        raise UserError(
            f"{path} (layout {layout}) has {len(unknown)} keys that are no part of such a model: "
            f"{listed(unknown)}; give a checkpoint of an unchanged TD-MPC2 or PWM"
        )


def _weights(path: Path, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise UserError(f"{path}: '{key}' is no tensor but {type(value).__name__}; {_REPAIR}")
    if value.dtype != torch.float32:
        raise UserError(f"{path}: '{key}' has type {value.dtype}, not float32; save it as float32")
    if value.layout != torch.strided or value.numel() * 4 > value.untyped_storage().nbytes():
        raise UserError(f"{path}: '{key}' is not stored in full; {_REPAIR}")
    return value.detach()


def _log_std(path: Path, state: Mapping[str, Any]) -> tuple[float, float]:
    for key in LOG_STD:
        value = state[key]
        number = isinstance(value, Tensor) and value.ndim == 0 and value.dtype in _DTYPES.values()
        if not number or not torch.isfinite(value):
            raise UserError(f"{path}: '{key}' is no finite number; {_REPAIR}")
    low, width = (float(state[key]) for key in LOG_STD)
    if width <= 0:
        raise UserError(f"{path}: 'log_std_dif' is {width}, not above 0; {_REPAIR}")
    return low, low + width


def _check_masks(path: Path, masks: Any, sizes: Sizes) -> None:
    expected = (sizes.embedded_tasks, sizes.action_dim)
    if not isinstance(masks, Tensor) or tuple(masks.shape) != expected:
        found = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
        raise UserError(f"{path}: '{MASKS}' has shape {found}, expected {expected} by the other "
                        f"tensors; {_REPAIR}")  # fmt: skip
    if not ((masks == 0) | (masks == 1)).all():
        raise UserError(f"{path}: '{MASKS}' holds other numbers than 0 and 1; {_REPAIR}")
