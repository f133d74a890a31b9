"""What the benchmarks share: GEMM rate, medians, command line, machine facts."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# Before torch loads: see benchmarks/README.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from pwm.models.sizes import SIZES
from pwm.models.world_model import WorldModel, WorldModelConfig
from pwm.runtime import system

OBS_DIM, ACTION_DIM, TASKS = 24, 6, 30


def parser(description: str) -> argparse.ArgumentParser:
    """Flags that every benchmark of an update understands."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--size", default="5M", choices=[name.upper() for name in SIZES])
    p.add_argument("--batch", type=int, default=512)
    p.add_argument("--horizon", type=int, default=16)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=0, help="0 = torch's own choice")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def random_model(size: str, num_q: int = 0, task_dim: int = 64) -> WorldModel:
    """World model of the given size with the dims of the 30-task benchmark, random weights;
    ``num_q`` Q heads come with a policy prior."""
    torch.manual_seed(0)
    sizes = SIZES[size.lower()]
    config = WorldModelConfig(
        tasks=tuple(f"task-{i}" for i in range(TASKS)), obs_dims=(OBS_DIM,) * TASKS,
        action_dims=(ACTION_DIM,) * TASKS, episode_lengths=(500,) * TASKS, task_dim=task_dim,
        num_q=num_q, policy_prior=num_q > 0, **sizes,
    )  # fmt: skip
    return WorldModel(config)


def seconds(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def gemm_rate(size: int = 1536) -> float:
    """Rate of one large float32 matrix product, FLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(3))


def measure(update: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median seconds of ``update`` and median GEMM rate, taken in turn in this process.

    Alternating the two lets a machine whose speed drifts slow both sides alike.
    """
    compile_seconds = seconds(update)
    update()
    times, rates = [], []
    for _ in range(repeats):
        rates.append(gemm_rate())
        times.append(seconds(update))
    return {
        "first_call_seconds": compile_seconds,
        "median_seconds": statistics.median(times),
        "min_seconds": min(times),
        "max_seconds": max(times),
        "gemm_gflops": statistics.median(rates) / 1e9,
    }


def report(options: argparse.Namespace, flops: int, result: dict[str, Any]) -> None:
    """Print the result with the share of the GEMM floor that was reached."""
    floor = flops / (result["gemm_gflops"] * 1e9)
    result |= {
        "size": options.size,
        "batch": options.batch,
        "horizon": options.horizon,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "compile": options.compile,
        "gflop_per_update": flops / 1e9,
        "floor_seconds": floor,
        "share_of_gemm_rate": floor / result["median_seconds"],
        "hardware": system.hardware(),
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{options.size}, batch {options.batch}, horizon {options.horizon}, "
        f"{result['threads']} thread(s): median {result['median_seconds']:.4f} s "
        f"(min {result['min_seconds']:.4f}, max {result['max_seconds']:.4f}) an update\n"
        f"needs {flops / 1e9:.1f} GFLOP; GEMM rate of this machine {result['gemm_gflops']:.0f} "
        f"GFLOP/s, so {floor:.4f} s at best: {100 * result['share_of_gemm_rate']:.0f} % reached"
    )
