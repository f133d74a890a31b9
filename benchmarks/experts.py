"""Success of Meta-World's scripted experts at the last step: how good data of `--policy expert` is.

python benchmarks/experts.py --episodes 10 --json
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from pwm.envs import list_tasks
from pwm.envs.metaworld import scripted_expert
from pwm.stages.rollout import episode_seeds, run_episodes


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--episodes", type=int, default=10, help="of each of the 50 tasks")
    p.add_argument("--tasks", nargs="+", default=[spec.id for spec in list_tasks("metaworld")])
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = p.parse_args()
    success, returns = {}, {}
    for task in options.tasks:
        seeds = episode_seeds(0, f"experts {task}", options.episodes)
        episodes = run_episodes(task, scripted_expert(task), seeds)
        success[task] = float(episodes.success.mean())
        returns[task] = float(episodes.returns.mean())
        if not options.json:
            print(f"{task:<40}{100 * success[task]:6.0f} % {returns[task]:8.0f}", flush=True)
    mean = float(np.mean(list(success.values())))
    if options.json:
        print(json.dumps({"mean": mean, "success": success, "returns": returns}))
    else:
        print(f"mean of {len(success)} tasks: {100 * mean:.1f} %")


if __name__ == "__main__":
    main()
