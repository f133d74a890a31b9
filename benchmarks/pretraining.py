"""Seconds of one world-model update on random data.

python benchmarks/pretraining.py --size 5M --batch 256 --horizon 16 --repeats 5 --json
"""

from __future__ import annotations

from flops import value_update, world_model_update
from timing import ACTION_DIM, OBS_DIM, TASKS, measure, parser, random_model, report

import torch  # isort: skip

from pwm.stages.pretrain_config import PretrainConfig  # isort: skip
from pwm.stages.world_model_trainer import WorldModelTrainer, training_of  # isort: skip


def main() -> None:
    p = parser(__doc__ or "")
    p.add_argument("--num-q", type=int, default=0, help="Q heads, trained with a policy prior")
    options = p.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = PretrainConfig(horizon=options.horizon, compile=options.compile)
    model = random_model(options.size, num_q=options.num_q)
    trainer = WorldModelTrainer(model, training_of(settings))
    h, b = options.horizon, options.batch
    batch = (
        torch.randn(h + 1, b, OBS_DIM), 2 * torch.rand(h, b, ACTION_DIM) - 1, torch.rand(h, b),
        torch.zeros(h, b), torch.randint(TASKS, (b,)),
    )  # fmt: skip
    result = measure(lambda: trainer.update(1, *batch), options.repeats)
    needed = world_model_update(model.config, b, h)
    if options.num_q:
        needed += value_update(model.config, b, h)
    report(options, needed, result)


if __name__ == "__main__":
    main()
