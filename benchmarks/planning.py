"""Seconds per action of planning, and of what planning competes with.

python benchmarks/planning.py --size 5M --envs 1,8,32 --repeats 9 --threads 1 --compile --json

The reference (reference_planner.py: TD-MPC2's planner, one environment) runs in a process of its
own, so that both sides have their own memory allocator; the two processes work in turn. Values
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

from reference_planner import ReferencePlanner
from timing import ACTION_DIM, OBS_DIM, random_model, seconds

import torch  # isort: skip

from pwm.algorithms.planner import PlannerConfig, PlanNoise, plan, planning_discount  # isort: skip
from pwm.models.actor import Actor  # isort: skip
from pwm.models.config import WorldModelConfig  # isort: skip
from pwm.models.inference import Products  # isort: skip
from pwm.models.planning import PlanningModel  # isort: skip
from pwm.models.pretrained import Policy  # isort: skip
from pwm.models.sizes import Q_HEADS, SIZES  # isort: skip
from pwm.models.world_model import WorldModel  # isort: skip
from pwm.runtime import system  # isort: skip

TASK = 1
GAMMA = planning_discount(500)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--size", default="5M", choices=[name.upper() for name in SIZES])
    p.add_argument("--envs", default="1,8,32", help="numbers of environments that plan together")
    p.add_argument("--samples", type=int, default=512)
    p.add_argument("--repeats", type=int, default=9)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    config = PlannerConfig(samples=options.samples, elites=min(64, options.samples))
    with Reference(options.size, config, options.threads) as reference, torch.no_grad():
        result = measure(options, config, reference)
    print(json.dumps(result)) if options.json else show(result)


def model_of(size: str) -> WorldModel:
    """Random world model with heads that are not zero, the same in every process."""
    name = size.lower()
    model = random_model(size, Q_HEADS[name], 96 if name in ("1m", "317m") else 64)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.freeze()


def inputs(
    envs: int, num_q: int, config: PlannerConfig, seed: int
) -> tuple[torch.Tensor, PlanNoise]:
    """Observations and noise of one plan."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(envs, OBS_DIM, generator=generator)
    return obs, PlanNoise.draw(envs, num_q, ACTION_DIM, config, generator)


def serve(connection: Any, size: str, config: PlannerConfig, threads: int) -> None:
    """The reference's process: seeds in, seconds of a plan and what it found out."""
    torch.set_num_threads(threads)
    model = model_of(size)
    planner = ReferencePlanner(model, TASK, GAMMA, config)
    start = torch.zeros(config.horizon, ACTION_DIM)
    while (seed := connection.recv()) is not None:
        with torch.no_grad():
            begin = time.perf_counter()
            obs, noise = inputs(1, model.config.num_q, config, seed)
            found = planner.plan(model.encode(obs, torch.tensor(TASK))[0], start, noise)
            took = time.perf_counter() - begin
        connection.send((took, [tensor.tolist() for tensor in found]))


class Reference:
    """Handle of the reference's process; a call plans and returns seconds, action, mean, std."""

    def __init__(self, size: str, config: PlannerConfig, threads: int):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, size, config, threads))

    def __enter__(self) -> Reference:
        self.process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.send(None)
        self.process.join()

    def __call__(self, seed: int) -> tuple[float, list[torch.Tensor]]:
        self.connection.send(seed)
        took, found = self.connection.recv()
        return took, [torch.tensor(tensor) for tensor in found]


def measure(
    options: argparse.Namespace, config: PlannerConfig, reference: Reference
) -> dict[str, Any]:
    model = model_of(options.size)
    planning = PlanningModel(model, TASK)

    def planner(envs: int, compile: bool) -> Callable[[int], Any]:
        def act(seed: int) -> Any:
            obs, noise = inputs(envs, model.config.num_q, config, seed)
            start = torch.zeros(config.horizon, envs, ACTION_DIM)
            return plan(planning, planning.encode(obs), start, noise, GAMMA, config, False, compile)

        return act

    modes = {"eager": False, "compiled": True} if options.compile else {"eager": False}
    sizes = [int(count) for count in options.envs.split(",")]
    first_call = {mode: seconds(lambda c=c: planner(1, c)(0)) for mode, c in modes.items()}
    differences = {mode: difference(planner(1, c), reference) for mode, c in modes.items()}
    wrong = {mode: d for mode, d in differences.items() if d > 1e-3}
    if wrong:
        raise SystemExit(f"planner and reference differ: {wrong}")
    rows = {(f"plan {mode}", e): planner(e, c) for mode, c in modes.items() for e in sizes}
    policy = Policy.build(model, "task-1", Actor(model.config.latent_dim, planning.action_mask))
    obs = torch.randn(1, OBS_DIM)
    rows["prior", 1] = lambda seed: planning.prior(planning.encode(obs), None)
    rows["actor", 1] = lambda seed: policy(obs)
    times, rates = alternate(rows, reference, options.repeats)
    facts = {
        "size": options.size, "samples": options.samples, "repeats": options.repeats,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "hardware": system.hardware(), "first_call_seconds": first_call,
        "largest_difference": differences,
        "gflop_per_action": needed(model.config, config) / 1e9,
        "product_gflops": statistics.median(rates) / 1e9,
    }  # fmt: skip
    facts["floor_seconds"] = facts["gflop_per_action"] / facts["product_gflops"]
    return {**facts, "rows": summary(times)}


def difference(act: Callable[[int], Any], reference: Reference) -> float:
    """Largest difference of action, mean and std from the reference's, on the same noise."""
    found, (_, expected) = act(0), reference(0)
    pairs = zip((found.action[0], found.mean[:, 0], found.std[:, 0]), expected, strict=True)
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def alternate(
    rows: dict[tuple[str, int], Callable[[int], Any]], reference: Reference, repeats: int
) -> tuple[dict[tuple[str, int], list[float]], list[float]]:
    """Seconds per action of the reference and all ``rows``, and product rates, taken in turn."""
    times: dict[tuple[str, int], list[float]] = {("reference", 1): []} | {row: [] for row in rows}
    rates = []
    for (_, envs), act in rows.items():
        act(envs)  # warm, compiled for this number of environments
    for seed in range(repeats):
        times["reference", 1].append(reference(seed)[0])
        for (name, envs), act in rows.items():
            times[name, envs].append(seconds(lambda f=act, s=seed: f(s)) / envs)
        rates.append(product_rate())
    return times, rates


def product_rate(rows: int = 512, width: int = 1024) -> float:
    """Rate of a large float32 product as the planner makes it, FLOP/s."""
    product = Products([torch.randn(width, width)], [torch.zeros(width)])
    x = torch.randn(rows, width)
    return 2 * rows * width**2 / min(seconds(lambda: product(x)) for _ in range(5))


def needed(c: WorldModelConfig, config: PlannerConfig) -> int:
    """FLOPs of matrix products that the iterations of a plan cannot do without: no Q head that is
    not used, no policy trajectory twice, the first latent's products once."""
    latent, hidden, actions, bins = c.latent_dim, c.hidden_dim, c.action_dim, c.num_bins
    behind_first = hidden * (2 * hidden + latent + bins)
    step = 2 * hidden * (latent + actions) + behind_first
    first_step = 2 * hidden * actions + behind_first
    prior = hidden * (latent + hidden + 2 * actions)
    q = hidden * (latent + actions + hidden + bins)
    sampled = config.samples - config.policy_samples
    trajectories = sampled * (first_step + (config.horizon - 1) * step)
    return 2 * config.rounds(actions) * (trajectories + config.samples * (prior + 2 * q))


def summary(times: dict[tuple[str, int], list[float]]) -> list[dict[str, Any]]:
    base = times["reference", 1]
    return [
        {
            "what": name, "envs": envs, "median_seconds": statistics.median(values),
            "min_seconds": min(values), "max_seconds": max(values),
            "times_faster_than_reference":
                statistics.median(a / b for a, b in zip(base, values, strict=True)),
        }
        for (name, envs), values in times.items()
    ]  # fmt: skip


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['size']}, {result['samples']} samples, {result['threads']} thread(s), "
        f"{result['hardware']['cpu']}\n"
        f"an action needs {result['gflop_per_action']:.1f} GFLOP; at the "
        f"{result['product_gflops']:.0f} GFLOP/s of a large product that is "
        f"{result['floor_seconds']:.4f} s\n"
        f"first calls: {result['first_call_seconds']} s; largest difference from the reference: "
        f"{result['largest_difference']}"
    )
    for row in result["rows"]:
        print(
            f"{row['what']:14s} {row['envs']:3d} envs: {row['median_seconds']:.5f} s an action "
            f"(min {row['min_seconds']:.5f}, max {row['max_seconds']:.5f}), "
            f"{row['times_faster_than_reference']:.2f} times faster than the reference"
        )


if __name__ == "__main__":
    main()
