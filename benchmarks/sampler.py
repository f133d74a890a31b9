"""How much faster batches are made than a world model eats them.

python benchmarks/sampler.py --size 5M --batch 256 --horizon 16 --repeats 5 --json
"""

from __future__ import annotations

import json
import statistics
import tempfile

from timing import ACTION_DIM, OBS_DIM, TASKS, parser, random_model, seconds

import numpy as np  # isort: skip
import torch  # isort: skip

from pwm.data import EpisodeDataset, EpisodeWriter, WindowSampler  # isort: skip
from pwm.runtime import system  # isort: skip
from pwm.stages.pretrain import move  # isort: skip
from pwm.stages.pretrain_config import PretrainConfig  # isort: skip
from pwm.stages.world_model_trainer import WorldModelTrainer, training_of  # isort: skip

STEPS = 500


def random_data(folder: str, episodes: int) -> EpisodeDataset:
    """Random episodes of 30 tasks with the widest dims of mt30."""
    rng = np.random.default_rng(0)
    for task in range(TASKS):
        with EpisodeWriter(
            folder, f"random/{task}", obs_dim=OBS_DIM, action_dim=ACTION_DIM,
            episode_length=STEPS, collector="benchmark",
        ) as writer:  # fmt: skip
            for seed in range(episodes):
                writer.append(
                    rng.normal(size=(STEPS + 1, OBS_DIM)), rng.uniform(size=(STEPS, ACTION_DIM)),
                    rng.uniform(size=STEPS), terminated=False, seed=seed,
                )  # fmt: skip
    return EpisodeDataset.open(folder)


def main() -> None:
    p = parser(__doc__ or "")
    p.add_argument("--episodes", type=int, default=20, help="episodes of each of the 30 tasks")
    options = p.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = PretrainConfig(horizon=options.horizon, compile=options.compile)
    model = random_model(options.size)
    trainer = WorldModelTrainer(model, training_of(settings))
    with tempfile.TemporaryDirectory() as folder:
        data = random_data(folder, options.episodes)
        samplers = {
            name: WindowSampler(
                [data], tasks=list(data.tasks), horizon=options.horizon, batch_size=options.batch,
                obs_dim=OBS_DIM, action_dim=ACTION_DIM, seed=0, stream="benchmark",
                memory_limit=limit,
            )
            for name, limit in (("memory", 1 << 40), ("disk", 0))
        }  # fmt: skip
        batch = move(samplers["memory"].sample(0), "cpu")
        trainer.update(1, *batch)
        times: dict[str, list[float]] = {"update": [], "memory": [], "disk": []}
        for repeat in range(options.repeats):
            times["update"].append(seconds(lambda: trainer.update(1, *batch)))
            for name, sampler in samplers.items():
                times[name].append(seconds(lambda s=sampler, r=repeat: s.sample(r)))  # type: ignore[misc]
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "size": options.size, "batch": options.batch, "horizon": options.horizon,
        "repeats": options.repeats, "threads": torch.get_num_threads(),
        "update_seconds": medians["update"], "memory_seconds": medians["memory"],
        "disk_seconds": medians["disk"],
        "memory_windows_per_second": options.batch / medians["memory"],
        "disk_windows_per_second": options.batch / medians["disk"],
        "memory_times_faster_than_update": medians["update"] / medians["memory"],
        "disk_times_faster_than_update": medians["update"] / medians["disk"],
        "hardware": system.hardware(),
    }  # fmt: skip
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.size}, batch {options.batch}: update {medians['update']:.4f} s")
    for name in samplers:
        print(
            f"{name}: {medians[name] * 1e3:.2f} ms a batch, "
            f"{result[f'{name}_windows_per_second']:,.0f} windows/s, "
            f"{result[f'{name}_times_faster_than_update']:.0f} times faster than the update"
        )


if __name__ == "__main__":
    main()
