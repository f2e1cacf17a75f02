"""When a behaviour's summaries and checkpoints are due, and what they show."""

from __future__ import annotations

from typing import Any

from crowd_behavior import MakeBehavior, written_scalars
from pytest import approx

# Summaries and checkpoints.


def test_summaries_stand_at_exact_multiples(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    steps = []
    for step in (0, 99, 100, 101, 199, 230, 550, 600):
        behavior.step = step
        summary = behavior.summary_if_due()
        steps.append(summary and summary.step)
    assert steps == [None, None, 100, None, None, 200, 500, 600]


def test_every_summary_shows_the_rates_of_its_own_step(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(
        max_steps=1000,
        hyperparameters={
            "learning_rate": 0.01,
            "learning_rate_schedule": "linear",
            "epsilon": 0.3,
            "beta": 0.005,
        },
    )
    found: list[Any] = []
    for step in (100, 250, 500):  # nobody has learnt anything between them
        behavior.step = step
        summary = behavior.summary_if_due()
        assert summary is not None
        scalars = {tag: summary.scalars[f"Policy/{tag}"] for tag in ("Epsilon", "Beta")}
        found.append((summary.step, summary.scalars["Policy/Learning Rate"], scalars))
    # Straight from the start to the floors 1e-10, 0.1 and 1e-5 at step 1000.
    assert found == [
        (100, approx(0.009), {"Epsilon": approx(0.28), "Beta": approx(0.9 * 0.00499 + 1e-5)}),
        (200, approx(0.008), {"Epsilon": approx(0.26), "Beta": approx(0.8 * 0.00499 + 1e-5)}),
        (500, approx(0.005), {"Epsilon": approx(0.20), "Beta": approx(0.5 * 0.00499 + 1e-5)}),
    ]
    assert written_scalars(behavior)["Policy/Learning Rate"] == approx(0.005)


def test_summary_of_acting_alone_shows_no_rates(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(is_training=False)
    behavior.step = 100
    summary = behavior.summary_if_due()
    assert summary is not None
    assert not [tag for tag in summary.scalars if "Rate" in tag]


def test_summary_without_an_episode_says_so(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    behavior.step = 100
    summary = behavior.summary_if_due()
    assert summary is not None
    assert (summary.num_episodes, summary.mean_reward, summary.std_of_reward) == (0, None, None)


def test_checkpoints_are_due_once_per_interval(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    due = []
    for step in (0, 249, 250, 251, 499, 1100, 1249):
        behavior.step = step
        due.append(behavior.is_checkpoint_due)
        if due[-1]:
            behavior.plan_next_checkpoint()
    assert due == [False, False, True, False, False, True, False]
