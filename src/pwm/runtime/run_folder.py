"""Run folders: the one format that every stage writes and every later stage reads.

RUN/config.json      stage, configuration, seed, command, code and hardware facts
RUN/metrics.jsonl    one JSON object a line, written while the run goes on
RUN/checkpoints/     weights (safetensors) and optimizer state, complete or absent
RUN/summary.json     written at the end: time and memory used
RUN/evaluation.json  after ``pwm evaluate``: {task: {seed: [episode returns]}}; of a world model
                     that plans or follows its prior in RUN/plan and RUN/prior
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pwm.errors import UserError
from pwm.runtime import system
from pwm.runtime.files import new_directory, read_json, write_json

FORMAT = 1


class RunFolder:
    """A run on disk. Make one with :meth:`create`, read one with :meth:`open`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config: dict[str, Any] = {}

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def results(self, policy: str) -> Path:
        """Where the evaluation of a policy of this run is: of its "actor" in the run folder itself,
        of "plan" and "prior" (how its world model acts) in a subfolder."""
        return self.path if policy == "actor" else self.path / policy

    @property
    def stage(self) -> str:
        return self.config["stage"]

    @staticmethod
    def check_free(path: str | Path) -> None:
        """Raise UserError when ``path`` can't take a new run; touches nothing."""
        path = Path(path)
        if path.is_dir() and any(path.iterdir()):
            raise UserError(
                f"run folder {path} already exists; choose another --out, or continue it "
                "with --resume"
            )
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {path} is a file; choose a folder that does not exist")

    @classmethod
    def create(cls, path: str | Path, stage: str, config: Any, **facts: Any) -> RunFolder:
        """Make a new run folder and record what is needed to repeat the run.

        Args:
            stage: the verb that writes it ("pretrain", "extract", ...).
            config: the stage's config dataclass.
            facts: further entries of config.json, such as the model's config.

        Raises:
            UserError: the folder already holds something.
        """
        cls.check_free(path)
        run = cls(path)
        values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
        run.config = {
            "format": FORMAT,
            "stage": stage,
            "config": values,
            "seed": values.get("seed"),
            "command": system.command_line(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "git_revision": system.git_revision(),
            "versions": system.versions(),
            "hardware": system.hardware(),
            "precision": system.precision(),
            **facts,
        }
        run.checkpoints.mkdir(parents=True)
        run.metrics_path.touch()
        write_json(run.path / "config.json", run.config)
        return run

    @classmethod
    def open(cls, path: str | Path, stage: str | tuple[str, ...] = ()) -> RunFolder:
        """Open an existing run; UserError when it is none, or another stage than ``stage`` (or one
        of them) wrote it."""
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"run folder {path} does not exist")
        if not (path / "config.json").is_file():
            raise UserError(f"{path} is not a run folder: it has no config.json")
        run = cls(path)
        run.config = read_json(path / "config.json")
        if not isinstance(run.config, dict) or not {"format", "stage", "config"} <= set(run.config):
            raise UserError(f"{path / 'config.json'} lacks the fields format, stage and config")
        if run.config["format"] != FORMAT:
            raise UserError(
                f"{path / 'config.json'} has format {run.config['format']}, this version of pwm "
                f"reads format {FORMAT}; use the version that wrote it"
            )
        wanted = (stage,) if isinstance(stage, str) else stage
        if wanted and run.stage not in wanted:
            names = " or ".join(f"'pwm {name}'" for name in wanted)
            raise UserError(
                f"{path} was written by 'pwm {run.stage}', but a run of {names} is needed"
            )
        return run

    def require_same(self, config: Any, free: tuple[str, ...]) -> None:
        """Raise UserError when a resumed run would go on with other settings.

        Args:
            config: the stage's config dataclass as given now.
            free: fields that may differ, because they don't change the result.
        """
        now, then = plain(asdict(config)), self.config["config"]
        for name in now:
            if name not in (*free, "out", "resume") and now[name] != then.get(name):
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{self.path} was started with {flag} {then.get(name)}, not {now[name]}; "
                    "resume with the same settings, or start a new run"
                )

    def finish(self, **facts: Any) -> None:
        """Record that the run is complete, with its time and memory."""
        summary = {"peak_memory_bytes": system.peak_memory_bytes(), **facts}
        write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """What :meth:`finish` recorded, or None for a run that is not complete."""
        path = self.path / "summary.json"
        return read_json(path) if path.exists() else None


def plain(value: Any) -> Any:
    """As JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(value))


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in ``folder``, ascending."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name.removeprefix("step_")) for name in names if name.startswith("step_"))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}"


def save_checkpoint(
    folder: Path,
    step: int,
    weights: dict[str, dict[str, Any]],
    state: dict[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write one checkpoint atomically and drop all but the newest ``keep``.

    Args:
        weights: file stem -> state dict of tensors, each saved as ``stem.safetensors``.
        state: optimizer and generator state (tensors and plain values), saved as ``state.pt``
            and read back with ``weights_only=True``; None for the last checkpoint of a run.
    """
    import torch
    from safetensors.torch import save_file

    target = checkpoint_path(folder, step)
    with new_directory(target) as temporary:
        for stem, tensors in weights.items():
            contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(contiguous, temporary / f"{stem}.safetensors")
        if state is not None:
            torch.save(state, temporary / "state.pt")
    for old in checkpoint_steps(folder)[:-keep]:
        shutil.rmtree(checkpoint_path(folder, old))
    return target


def load_weights(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file; UserError names the file when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} does not exist; the checkpoint is incomplete")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or train again") from None


def load_state(path: Path) -> dict[str, Any]:
    """Optimizer and generator state of a checkpoint, never unpickled into code."""
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} can't be read ({error}); resume from another run") from None
