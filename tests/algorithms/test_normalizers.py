"""Running moments against NumPy on everything seen."""

import numpy as np
import torch

from pwm.algorithms.normalizers import RunningMoments


def test_batches_give_the_moments_of_all_samples():
    rng = np.random.default_rng(0)
    batches = [rng.normal(5, 3, size=(n, 2)) for n in (10, 1, 200)]
    moments = RunningMoments((2,), epsilon=1e-12)
    for batch in batches:
        moments.update(torch.from_numpy(batch))
    everything = np.concatenate(batches)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-9)
    np.testing.assert_allclose(moments.var, everything.var(0), rtol=1e-9)


def test_state_round_trip():
    moments = RunningMoments()
    moments.update(torch.randn(50))
    other = RunningMoments()
    other.load_state_dict(moments.state_dict())
    assert other.var == moments.var and other.count == moments.count
