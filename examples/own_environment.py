"""From your own Gymnasium environment to a policy, in Python: register, collect, train, act.

    python examples/own_environment.py --out runs/my_pendulum

The environment here is Gymnasium's Pendulum, registered under an id of its own; put yours in its
place. With the default settings this takes a few minutes; returns are printed at the end.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import gymnasium

from pwm import Policy, envs, extract
from pwm.presets import pretrain_preset
from pwm.stages import collect, pretrain

TASK = "mine/pendulum"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/my_pendulum"))
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--pretrain-updates", type=int, default=1000)
    parser.add_argument("--extract-updates", type=int, default=200)
    options = parser.parse_args()

    envs.register(TASK, lambda **kwargs: gymnasium.make("Pendulum-v1", **kwargs))
    data, model, policy = (str(options.out / name) for name in ("data", "model", "policy"))

    collect.run(collect.CollectConfig(task=TASK, policy="random", steps=options.steps, out=data))
    settings = pretrain_preset(options.preset)
    pretrain.run(replace(settings, data=(data,), out=model, updates=options.pretrain_updates))
    extract(
        world_model=model, data=data, out=policy, updates=options.extract_updates,
        batch_size=256, horizon=8, critic_passes=2, eval_every=50,
    )  # fmt: skip

    actor, env = Policy.from_pretrained(policy), envs.make(TASK, seed=0)
    observation, _ = env.reset()
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(actor.act(observation))
        total, done = total + float(reward), terminated or truncated
    print(f"return of one episode: {total:.0f} (a random policy gets about -1200)")


if __name__ == "__main__":
    main()
