"""Scores by hand."""

from __future__ import annotations

import pytest

from pwm.stages.score_table import TaskScore, episode_scores, print_scores, suite_score


def test_dmcontrol_scores_are_returns_over_ten_and_meta_world_s_are_successes():
    assert episode_scores("dmc/walker-walk", [100.0, 905.0], [None, None]) == [10.0, 90.5]
    assert episode_scores("metaworld/reach", [1500.0, 3.0], [1.0, 0.0]) == [100.0, 0.0]
    assert episode_scores("metaworld/reach", [1500.0, 3.0], [1.0, None]) is None
    assert episode_scores("gym/Pendulum-v1", [-200.0], [None]) is None


def test_the_suite_s_score_is_the_plain_mean_over_tasks():
    scores = [
        TaskScore.of("dmc/walker-walk", [900.0] * 10, [None] * 10),
        TaskScore.of("metaworld/reach", [1.0, 2.0, 3.0, 6.0], [1.0, 1.0, 1.0, 0.0]),
        TaskScore.of("gym/Hopper-v5", [4000.0], [None]),
    ]
    assert [each.score for each in scores] == [90.0, 75.0, None]
    assert scores[1].mean_return == 3.0 and scores[1].success == 0.75
    assert suite_score(scores) == pytest.approx(82.5)
    assert suite_score(scores[2:]) is None


def test_table(capsys):
    scores = [
        TaskScore.of("metaworld/button-press-topdown-wall", [1400.0], [1.0]),
        TaskScore.of("gym/Pendulum-v1", [-150.0], [None]),
    ]
    print_scores(scores, "mt80")
    table = capsys.readouterr().err
    assert "metaworld/button-press-topdown-wall" in table and "100 %" in table
    assert "-150.0" in table and "mt80 score: 100.0 (mean over 1 task;" in table
