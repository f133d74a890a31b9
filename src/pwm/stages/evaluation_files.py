"""Results of an evaluation on disk, kept task by task as they come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pwm.errors import UserError
from pwm.runtime.files import read_json, write_json, write_text
from pwm.stages.rollout import Episodes


@dataclass
class TaskOutcome:
    """Episodes of one task; ``random`` holds the random policy's returns, None if not asked for."""

    episodes: Episodes
    random: list[float] | None

    @property
    def returns(self) -> list[float]:
        return [float(value) for value in self.episodes.returns]

    @property
    def success(self) -> list[float | None]:
        """Success of each episode's last step, None where the task reports none."""
        return [None if np.isnan(value) else float(value) for value in self.episodes.success]


@dataclass
class ResultFiles:
    """The files of ``pwm evaluate`` in a folder.

    Tasks stand in the order of ``tasks`` whatever order they are stored in, so the files of two
    evaluations that did the same are equal. Each file is replaced atomically, ``evaluation.json``
    last.

    Attributes:
        folder: where the files are.
        tasks: all tasks of the run.
        seed: training seed of the run.
        policy: which of the run's policies acted.
        settings: what is needed to repeat the evaluation.
        data: {task: facts about the returns of the data}, where known.
    """

    folder: Path
    tasks: Sequence[str]
    seed: int
    policy: str
    settings: dict[str, Any]
    data: dict[str, Any]

    def store(self, task: str, outcome: TaskOutcome) -> None:
        """Replace what is known of ``task`` and keep all other tasks."""
        self._write_episodes(task, outcome)
        baselines: dict[str, Any] = {}
        if self.data.get(task) is not None:
            baselines["data"] = self.data[task]
        if outcome.random is not None:
            baselines["random"] = outcome.random
        self._merge("baselines.json", task, baselines)
        self._merge("evaluation_settings.json", task, self.settings)
        self._merge("evaluation.json", task, {str(self.seed): outcome.returns})

    def check(self) -> None:
        """Read what is there; UserError when it is damaged, so that no new result is lost later."""
        self._records()
        for name in ("baselines.json", "evaluation_settings.json", "evaluation.json"):
            self._known(name)

    def _write_episodes(self, task: str, outcome: TaskOutcome) -> None:
        records = [record for record in self._records() if record["task"] != task]
        for index, total in enumerate(outcome.returns):
            records.append({
                "task": task,
                "seed": self.seed,
                "episode": index,
                "return": total,
                "success": outcome.success[index],
                "length": int(outcome.episodes.lengths[index]),
                "policy": self.policy,
            })  # fmt: skip
        records.sort(key=lambda record: self._position(record["task"]))
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_text(self.folder / "evaluation.jsonl", text)

    def _records(self) -> list[dict[str, Any]]:
        path = self.folder / "evaluation.jsonl"
        records = []
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
            try:
                records.append(json.loads(line))
                records[-1]["task"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}, line {number} is damaged; delete the file") from None
        return records

    def _merge(self, name: str, task: str, value: Any) -> None:
        known = self._known(name)
        known[task] = value
        ordered = {each: known[each] for each in sorted(known, key=self._position)}
        write_json(self.folder / name, ordered)

    def _known(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        known = read_json(path) if path.exists() else {}
        if not isinstance(known, dict):
            raise UserError(f"{path} is not {{task: ...}}; delete it")
        return known

    def _position(self, task: str) -> int:
        return self.tasks.index(task) if task in self.tasks else len(self.tasks)
