"""Named random streams."""

from pwm.seeding import stream_seed
from pwm.stages.rollout import episode_seeds


def test_streams_are_reproducible_and_distinct():
    assert stream_seed(1, "env", 0) == stream_seed(1, "env", 0)
    seeds = {stream_seed(s, name, i) for s in (0, 1, 2**40) for name in "ab" for i in range(100)}
    assert len(seeds) == 600
    assert stream_seed(0, 3) != stream_seed(0, "3")


def test_final_evaluation_never_reuses_the_episodes_watched_during_training():
    for seed in range(5):
        watched = {x for s in range(5) for x in episode_seeds(s, "extraction t", 100)}
        assert not watched & set(episode_seeds(seed, "evaluation t", 100))
