"""Names that TD-MPC2 and PWM give to the tensors of a world model, by layout.

Every layout is spoken of in one set of names, TD-MPC2's own of today (layout NEW): networks
``_encoder.state``, ``_dynamics``, ``_reward``, ``_pi``, ``_termination``, ``_Qs.params`` and
``_target_Qs_params``; layers 0, 1, ...; ``weight`` and ``bias`` of the linear map, ``ln.weight``
and ``ln.bias`` of the norm behind it. The tensors of the Q ensembles are stacked over its members.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PARTS = ("weight", "bias", "ln.weight", "ln.bias")
LAYOUTS = {
    "OLD": "TD-MPC2, 2023 to November 2024",
    "NOV24": "TD-MPC2, November 2024 to January 2025",
    "NEW": "TD-MPC2, since January 2025",
    "FLAT": "TD-MPC2, early single-task files",
    "PWM": "agent of PWM",
}
EMBEDDING = "_task_emb.weight"
MASKS = "_action_masks"
LOG_STD = ("log_std_min", "log_std_dif")

_Q, _TARGET = "_Qs.params", "_target_Qs_params"
# network -> its module here; {q} numbers the members of an ensemble
_MODULES = {
    "_encoder.state": "encoder",
    "_dynamics": "dynamics",
    "_reward": "reward_head",
    "_pi": "prior_head",
    "_termination": "termination_head",
    _Q: "q_heads.{q}",
    _TARGET: "target_q_heads.{q}",
}
_NAME = re.compile(r"(.+?)\.(\d+)\.((?:ln\.)?(?:weight|bias))")
# What a module dictionary of tensordict says about itself; no weights.
_NOTES = re.compile(r"_(Qs\.|detach_Qs[._]|target_Qs[._])params\.__(batch_size|device)")


@dataclass(frozen=True)
class Structure:
    """Which networks a model has, as far as names tell. ``encoder_layers`` counts linear maps."""

    encoder_layers: int
    embedding: bool = False
    termination: bool = False
    values: bool = True

    def names(self) -> list[str]:
        """Names of all tensors with weights."""
        whole = {"_encoder.state": self.encoder_layers, "_dynamics": 3}
        heads = ["_reward"]
        heads += ["_pi"] if self.values else []
        heads += ["_termination"] if self.termination else []
        heads += [_Q, _TARGET] if self.values else []
        names = [EMBEDDING] if self.embedding else []
        for network, layers in whole.items():
            names += [f"{network}.{i}.{part}" for i in range(layers) for part in PARTS]
        for head in heads:
            names += [f"{head}.{i}.{part}" for i in range(2) for part in PARTS]
            names += [f"{head}.2.{part}" for part in PARTS[:2]]
        return names


def detect(keys: Iterable[str]) -> str | None:
    """Layout of a state dict of TD-MPC2; None when it is not one."""
    keys = list(keys)

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in keys)

    if not has(r"_(encoder|dynamics|reward)\."):
        return None
    if has(r"_(detach|target)_Qs\.params\.(\d+\.|__)"):
        return "NOV24"
    if has(r"_(detach|target)_Qs_params\.|_Qs\.params\.(\d+\.|__)"):
        return "NEW"
    return "FLAT" if has(r"_dynamics\.0\.\d|_(reward|pi)\.[3-6]\.") else "OLD"


def structure_of(keys: Iterable[str], layout: str) -> Structure:
    """Structure of the model whose state dict has ``keys``."""
    keys = list(keys)
    pattern = r"_encoder\.(\d+)\." if layout == "PWM" else r"_encoder\.state\.(\d+)\."
    places = {int(found[1]) for key in keys if (found := re.match(pattern, key))}
    if layout == "FLAT":
        places = {place // 3 for place in places}
    return Structure(
        # counted, not the largest number: a wrong name must not make us expect a million
        encoder_layers=max(2, len(places)),
        embedding=EMBEDDING in keys or MASKS in keys,
        termination=any(key.startswith("_termination.") for key in keys),
        values=layout != "PWM",
    )


def file_key(name: str, layout: str) -> str:
    """Key under which a file of ``layout`` holds the tensor ``name``."""
    split = _NAME.fullmatch(name)
    if split is None or layout in ("NEW", "NOV24"):
        return name
    network, index, part = split[1], int(split[2]), split[3]
    if network in (_Q, _TARGET):
        return f"{network.replace('_params', '.params')}.{4 * index + PARTS.index(part)}"
    if layout == "PWM":
        return name.replace("_encoder.state.", "_encoder.", 1)
    return _flat_key(network, index, part) if layout == "FLAT" else name


def _flat_key(network: str, index: int, part: str) -> str:
    """Linear, norm and activation were modules of their own, in one row."""
    norm, kind = int(part.startswith("ln.")), part.removeprefix("ln.")
    if network == "_encoder.state":
        return f"{network}.{3 * index + 1 + norm}.{kind}"
    if network != "_dynamics":
        return f"{network}.{3 * index + norm}.{kind}"
    last_norm = index == 2 and norm
    return f"{network}.1.{kind}" if last_norm else f"{network}.0.{3 * index + norm}.{kind}"


def duplicates(name: str, layout: str) -> list[str]:
    """Further keys under which a file of ``layout`` holds the same tensor again."""
    if layout not in ("NEW", "NOV24"):
        return []
    again = {_Q: ["_detach_Qs_params"], _TARGET: []}
    if layout == "NOV24":
        again = {_Q: ["_detach_Qs_params", "_detach_Qs.params"], _TARGET: ["_target_Qs.params"]}
    for network, others in again.items():
        if name.startswith(network + "."):
            return [other + name.removeprefix(network) for other in others]
    return []


def setting_keys(layout: str, structure: Structure) -> list[str]:
    """Keys of what is no weight but belongs to the model."""
    if layout not in ("NEW", "NOV24"):
        return []
    return [*LOG_STD, *([MASKS] if structure.embedding else [])]


def is_note(key: str) -> bool:
    """Whether the key holds tensordict's notes on itself: nothing to convert."""
    return _NOTES.fullmatch(key) is not None


def notes(num_q: int) -> dict[str, object]:
    """The notes that the Q ensembles of a file of layout NEW carry."""
    import torch

    found: dict[str, object] = {}
    for network in (_Q, "_detach_Qs_params", _TARGET):
        found[f"{network}.__batch_size"] = torch.Size([num_q])
        found[f"{network}.__device"] = None
    return found


def own_names(name: str, num_q: int) -> list[str]:
    """Names of the tensor in :class:`pwm.models.world_model.WorldModel`: one, or one a Q head."""
    if name == EMBEDDING:
        return ["embedding.table.weight"]
    split = _NAME.fullmatch(name)
    assert split is not None, name
    module, index, part = _MODULES[split[1]], int(split[2]), split[3]
    norm, kind = part.startswith("ln."), part.removeprefix("ln.")
    layer = "norm" if norm else "linear"
    if module in ("encoder", "dynamics"):
        own = f"{module}.{index}.{layer}.{kind}"
    else:
        own = f"{module}.out.{kind}" if index == 2 else f"{module}.hidden.{index}.{layer}.{kind}"
    return [own.format(q=q) for q in range(num_q)] if "{q}" in own else [own]


def is_stacked(name: str) -> bool:
    """Whether the tensor is stacked over the Q heads."""
    return name.startswith((_Q + ".", _TARGET + "."))
