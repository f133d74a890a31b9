"""Agent steps per second of the mujoco.batch backend against dm_control itself.

python benchmarks/envs.py --tasks cartpole-swingup walker-walk --num-envs 1 16 64 --json
"""

from __future__ import annotations

import argparse
import json
import statistics

from timing import seconds

import numpy as np  # isort: skip

from pwm.envs import make_vec  # isort: skip
from pwm.runtime import system  # isort: skip

BACKENDS = ("batch", "reference")


def compare(task: str, num_envs: int, steps: int, repeats: int) -> dict[str, float | str | int]:
    """Median rates of both backends, timed in turn with the same random actions."""
    envs = {name: make_vec(task, num_envs, backend=name) for name in BACKENDS}
    rng = np.random.default_rng(0)
    shape = (steps, *envs["batch"].action_space.shape)
    actions = rng.uniform(-1, 1, shape).astype(np.float32)

    def play(name: str) -> None:
        for action in actions:
            envs[name].step(action)

    for env in envs.values():
        env.reset(seed=0)
    rates: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for _ in range(repeats):
        for name in BACKENDS:
            rates[name].append(steps * num_envs / seconds(lambda n=name: play(n)))  # type: ignore[misc]
    for env in envs.values():
        env.close()
    batch, reference = (statistics.median(rates[name]) for name in BACKENDS)
    return {
        "task": task, "num_envs": num_envs, "batch_steps_per_second": batch,
        "reference_steps_per_second": reference, "ratio": batch / reference,
    }  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--tasks", nargs="+", default=["cartpole-swingup", "cheetah-run", "walker-walk"])
    p.add_argument("--num-envs", nargs="+", type=int, default=[1, 16, 64])
    p.add_argument("--steps", type=int, default=100, help="steps of each environment a repeat")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = p.parse_args()
    rows = [
        compare(task, count, options.steps, options.repeats)
        for task in options.tasks
        for count in options.num_envs
    ]
    if options.json:
        print(json.dumps({"results": rows, "hardware": system.hardware()}))
        return
    print(f"{'task':<24}{'envs':>6}{'batch/s':>12}{'reference/s':>13}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['task']:<24}{row['num_envs']:>6}{row['batch_steps_per_second']:>12,.0f}"
            f"{row['reference_steps_per_second']:>13,.0f}{row['ratio']:>8.1f}"
        )


if __name__ == "__main__":
    main()
