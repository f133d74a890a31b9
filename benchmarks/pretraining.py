"""Seconds of one world-model update on random data.

python benchmarks/pretraining.py --size 5M --batch 256 --horizon 16 --repeats 5 --json
"""

from __future__ import annotations

from flops import world_model_update
from timing import ACTION_DIM, OBS_DIM, TASKS, measure, parser, random_model, report

import torch  # isort: skip

from pwm.stages.pretrain_config import PretrainConfig, training_of  # isort: skip
from pwm.stages.world_model_trainer import WorldModelTrainer  # isort: skip


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = PretrainConfig(horizon=options.horizon, compile=options.compile)
    model = random_model(options.size)
    trainer = WorldModelTrainer(model, training_of(settings))
    h, b = options.horizon, options.batch
    batch = (
        torch.randn(h + 1, b, OBS_DIM), 2 * torch.rand(h, b, ACTION_DIM) - 1, torch.rand(h, b),
        torch.zeros(h, b), torch.randint(TASKS, (b,)),
    )  # fmt: skip
    result = measure(lambda: trainer.update(1, *batch), options.repeats)
    report(options, world_model_update(model.config, b, h), result)


if __name__ == "__main__":
    main()
