"""Seconds of one full extraction update (actor and critic, the paper's setting) on random data.

python benchmarks/extraction.py --size 5M --batch 512 --horizon 16 --repeats 5 --json
"""

from __future__ import annotations

from flops import extraction_update
from timing import OBS_DIM, measure, parser, random_model, report

import torch  # isort: skip

from pwm.stages.extract import ExtractConfig, trainer_config  # isort: skip
from pwm.stages.trainer import PolicyTrainer  # isort: skip


class RandomStates:
    """The same random observations at every step."""

    def __init__(self, batch: int):
        self.observations = torch.randn(batch, OBS_DIM)

    def sample(self, step: int) -> torch.Tensor:
        return self.observations


def main() -> None:
    p = parser(__doc__ or "")
    p.add_argument("--critic-passes", type=int, default=8)
    options = p.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = ExtractConfig(
        horizon=options.horizon,
        compile=options.compile,
        critic_passes=options.critic_passes,
        behavior_weight=0.0,
    )
    model = random_model(options.size).freeze()
    trainer = PolicyTrainer(
        model, "task-0", RandomStates(options.batch), trainer_config(settings), "cpu"
    )
    result = measure(lambda: trainer.update(1), options.repeats)
    flops = extraction_update(
        model.config, options.batch, options.horizon, settings.actor_units,
        settings.critic_units, settings.critics, settings.critic_passes,
    )  # fmt: skip
    report(options, sum(flops.values()), {**result, "critic_passes": options.critic_passes})


if __name__ == "__main__":
    main()
