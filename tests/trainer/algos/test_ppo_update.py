from __future__ import annotations

import copy
import dataclasses
from typing import Any, Literal

import pytest
import torch
from bandit import MAX_STEPS, new_policy, new_ppo, play, seeded, some_obs, weights
from pytest import approx
from torch import Tensor

from trainer.algos.ppo import PPO
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout


def rewarded(policy: ActorCritic, rows: int = 64, seed: int = 0) -> Rollout:
    """Random observations, played, and the reward is the first action dimension."""
    rollout = play(policy, some_obs(rows, seed=seed), seeded(seed))
    actions = torch.cat([rollout.continuous, rollout.discrete.float()], dim=1)
    rewards = actions[:, :1].expand(rows, rollout.rewards.shape[1])
    return dataclasses.replace(rollout, rewards=rewards)


def chain(policy: ActorCritic, rewards: Tensor, terminated: list[bool], size: int) -> Rollout:
    """Segments of `size` decisions each, end to end, with random observations."""
    rollout = play(policy, some_obs(len(rewards)), seeded())
    segments = len(terminated)
    return dataclasses.replace(
        rollout,
        rewards=rewards,
        segment_starts=size * torch.arange(segments + 1),
        bootstrap_obs=(some_obs(segments, seed=5),),
        terminated=torch.tensor(terminated),
    )


def statistics(ppo: PPO, rollout: Rollout, step: int = 0) -> dict[str, float]:
    return {tag: value.item() for tag, value in ppo.update(rollout, step).statistics.items()}


ACTION_KINDS = [(1, ()), (3, ()), (0, (4,)), (0, (2, 3)), (2, (2, 3))]


@pytest.mark.parametrize("ratio", ["joint", "per_dimension"])
@pytest.mark.parametrize(("continuous", "branches"), ACTION_KINDS)
@pytest.mark.parametrize("shared_critic", [False, True])
def test_ratio_is_one_before_the_first_step_after_any_update(
    ratio: str, continuous: int, branches: tuple[int, ...], shared_critic: bool
) -> None:
    policy = new_policy(continuous, branches, normalize=True, shared_critic=shared_critic)
    trained = new_ppo(policy, ratio=ratio, learning_rate=0.05)
    for seed in range(2):
        rollout = rewarded(policy, seed=seed)
        trained.update(rollout, 0)
        policy.update_normalizer(rollout.obs)
    # One minibatch of the whole rollout: all ratios are taken before the only step.
    once = new_ppo(policy, ratio=ratio, num_epoch=1, normalize_advantages=False)
    found = statistics(once, rewarded(policy, seed=9))
    assert found["Policy/KL"] == approx(0.0, abs=1e-10)  # half the mean square of log ratios
    assert found["Policy/Clip Fraction"] == 0.0


def test_ratio_is_not_one_for_actions_of_an_older_policy() -> None:
    policy = new_policy()
    rollout = rewarded(policy)
    new_ppo(policy, learning_rate=0.05).update(rollout, 0)
    found = statistics(new_ppo(policy, num_epoch=1), rollout)
    assert found["Policy/KL"] > 1e-4


def test_one_dimension_of_its_own_is_the_whole_action() -> None:
    results = []
    for ratio in ("joint", "per_dimension"):
        policy = new_policy(1)
        ppo = new_ppo(policy, ratio=ratio, beta=0.01, batch_size=16)
        results.append((statistics(ppo, rewarded(policy)), weights(policy)))
    assert results[0][0] == approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("ratio", "clip_fraction"),
    [
        ("joint", 1.0),  # e^(0.1 + 0.1) = 1.221
        ("per_dimension", 0.0),  # e^0.1 = 1.105, twice
    ],
)
def test_ratio_of_the_whole_action_is_the_product_over_its_dimensions(
    ratio: str, clip_fraction: float
) -> None:
    policy = new_policy(2)
    rollout = rewarded(policy)
    rollout = dataclasses.replace(rollout, log_probs=rollout.log_probs - 0.1)
    ppo = new_ppo(policy, ratio=ratio, num_epoch=1, epsilon=0.15, epsilon_schedule="constant")
    found = statistics(ppo, rollout)
    assert found["Policy/Clip Fraction"] == clip_fraction
    # the divergence is that of the whole action either way: e^0.2 - 1 - 0.2
    assert found["Policy/KL"] == approx(0.0214, abs=1e-4)


def test_dimensions_of_their_own_are_not_the_whole_action() -> None:
    found = []
    for ratio in ("joint", "per_dimension"):
        policy = new_policy(3)
        new_ppo(policy, ratio=ratio, learning_rate=0.05).update(rewarded(policy), 0)
        found.append(weights(policy))
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        # a Gaussian with deviation 1 has 1.418939 nats; a fair choice of 2 has 0.693147, of 4 twice
        ("joint", 2 * 1.418939 + 0.693147 + 1.386294),
        ("per_dimension", 1.418939 + 0.693147 + 1.386294),  # ML-Agents: mean over the continuous
    ],
)
def test_entropy_of_a_hybrid_action(ratio: str, expected: float) -> None:
    policy = new_policy(2, (2, 4))
    with torch.no_grad():
        policy.branch_head.weight.zero_()
    found = statistics(new_ppo(policy, ratio=ratio, num_epoch=1), rewarded(policy))
    assert found["Policy/Entropy"] == approx(expected, abs=1e-5)


def one_segment_returns(
    rewards: Tensor, values: Tensor, bootstrap: float, gamma: float, lambd: float
) -> list[float]:
    """Lambda-returns backwards: r + gamma (lambda G' + (1 - lambda) V'), in float64."""
    found: list[float] = []
    following = later = bootstrap
    for reward, value in zip(rewards.tolist()[::-1], values.tolist()[::-1], strict=True):
        later = reward + gamma * (lambd * later + (1 - lambd) * following)
        following = value
        found.append(later)
    return found[::-1]


def lambda_returns(policy: ActorCritic, rollout: Rollout, lambd: float, size: int) -> Tensor:
    """Returns (B, R) of `chain`, by the recursion that POCA's paper states for returns."""
    with torch.no_grad():
        values = policy.values(policy.inputs(rollout.obs)).double()
        follows = policy.values(policy.inputs(rollout.bootstrap_obs)).double()
    columns = []
    for signal in range(values.shape[1]):
        found: list[float] = []
        for segment, terminated in enumerate(rollout.terminated.tolist()):
            part = slice(segment * size, (segment + 1) * size)
            bootstrap = 0.0 if terminated else float(follows[segment, signal])
            found += one_segment_returns(
                rollout.rewards[part, signal], values[part, signal], bootstrap, 0.99, lambd
            )
        columns.append(torch.tensor(found))
    return torch.stack(columns, dim=1)


def test_losses_before_the_first_step_are_those_of_the_lambda_returns() -> None:
    policy = new_policy(2, num_signals=2)
    rewards = torch.randn((20, 2), generator=seeded(3))
    rollout = chain(policy, rewards, [True, False, False, True], size=5)
    expected = lambda_returns(policy, rollout, 0.9, size=5)
    with torch.no_grad():
        values = policy.values(policy.inputs(rollout.obs))
    settings: dict[str, Any] = {"num_epoch": 1, "lambd": 0.9, "normalize_advantages": False}
    update = new_ppo(policy, **settings).update(rollout, 0)
    assert update.statistics["Losses/Value Loss"].item() == approx(
        ((values - expected) ** 2).mean().item(), rel=1e-4
    )
    # ratio 1: the surrogate is the mean advantage, and signals are averaged
    assert update.statistics["Losses/Policy Loss"].item() == approx(
        abs((expected - values).mean().item()), rel=1e-4
    )
    torch.testing.assert_close(update.mean_values, values.mean(dim=0))
    spread = (expected - expected.mean()).square().mean()
    missed = expected - values - (expected - values).mean()
    assert update.statistics["Policy/Explained Variance"].item() == approx(
        1 - missed.square().mean().item() / spread.item(), rel=1e-3
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_targets_come_from_the_critic_of_the_epoch_before(recompute: bool) -> None:
    rewards = torch.randn((20, 1), generator=seeded(3))
    settings = {"lambd": 0.5, "learning_rate": 0.05, "value_coefficient": 10.0}

    policy = new_policy()
    rollout = chain(policy, rewards, [True, False, False, True], size=5)
    before = copy.deepcopy(policy)
    first = statistics(new_ppo(policy, num_epoch=1, **settings), rollout)
    # `policy` is now where an update of two epochs stands after the first.
    basis = policy if recompute else before
    returns = lambda_returns(basis, rollout, 0.5, size=5)
    values = policy.values(policy.inputs(rollout.obs)).detach()
    second_loss = ((values - returns) ** 2).mean().item()

    again = new_policy()
    both = statistics(
        new_ppo(again, num_epoch=2, recompute_advantages=recompute, **settings), rollout
    )
    mean = (first["Losses/Value Loss"] + second_loss) / 2
    assert both["Losses/Value Loss"] == approx(mean, rel=1e-4)


def test_value_clip_holds_the_critic_near_its_old_values() -> None:
    moved = []
    for value_clip in (None, 0.01):
        policy = new_policy()
        rollout = rewarded(policy)
        rollout = dataclasses.replace(rollout, rewards=rollout.rewards + 10)
        before = policy.values(policy.inputs(rollout.obs)).detach()
        ppo = new_ppo(policy, value_clip=value_clip, num_epoch=50, learning_rate=5e-3)
        ppo.update(rollout, 0)
        moved.append(
            (policy.values(policy.inputs(rollout.obs)).detach() - before).abs().mean().item()
        )
    assert moved[0] > 1.0
    assert moved[1] < 0.25  # Adam's momentum carries it on where the gradient has become 0


@pytest.mark.parametrize("ratio", ["joint", "per_dimension"])
@pytest.mark.parametrize(("continuous", "branches"), [(2, ()), (0, (3, 2)), (1, (3,))])
def test_entropy_bonus_alone_raises_entropy(
    ratio: str, continuous: int, branches: tuple[int, ...]
) -> None:
    found = []
    for beta in (0.0, 0.01):
        policy = new_policy(continuous, branches)
        with torch.no_grad():
            policy.value_head.weight.zero_()  # value 0, reward 0: no advantage
            if branches:
                policy.branch_head.bias[0] = 2.0
        rollout = play(policy, some_obs(64), seeded())
        before = statistics(new_ppo(policy, num_epoch=1), rollout)["Policy/Entropy"]
        new_ppo(policy, ratio=ratio, beta=beta, num_epoch=20, learning_rate=0.01).update(rollout, 0)
        found.append(statistics(new_ppo(policy, num_epoch=1), rollout)["Policy/Entropy"] - before)
    assert found[0] == 0.0
    assert found[1] > 0.05


def test_target_kl_ends_an_update_after_the_epoch_that_passed_it() -> None:
    def run(**settings: Any) -> tuple[dict[str, float], Tensor]:
        policy = new_policy()
        ppo = new_ppo(policy, learning_rate=0.05, **settings)
        return statistics(ppo, rewarded(policy)), weights(policy)

    free, _ = run(num_epoch=20)
    stopped, stopped_weights = run(num_epoch=20, target_kl=0.05)
    epochs = int(stopped["Policy/Epochs"])
    assert free["Policy/Epochs"] == 20.0
    assert 1 < epochs < 20
    same, same_weights = run(num_epoch=epochs)
    assert torch.equal(stopped_weights, same_weights)
    assert stopped["Policy/KL"] == same["Policy/KL"] > 0.05
    assert run(num_epoch=epochs - 1)[0]["Policy/KL"] <= 0.05


def test_max_grad_norm_limits_the_step() -> None:
    steps = []
    for max_grad_norm in (None, 1e-3):
        policy = new_policy()
        rollout = rewarded(policy)
        before = weights(policy)
        # With adam_epsilon far above all gradients Adam's first step is the gradient itself.
        ppo = new_ppo(
            policy, num_epoch=1, learning_rate=1e3, adam_epsilon=1e3, max_grad_norm=max_grad_norm
        )
        ppo.update(rollout, 0)
        steps.append((weights(policy) - before).norm().item())
    assert steps[0] > 0.05
    assert steps[1] == approx(1e-3, rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "step", "learning_rate", "epsilon", "beta"),
    [
        ("linear", 0, 1e-2, 0.3, 1e-3),
        ("linear", MAX_STEPS // 2, 5e-3, 0.2, 5.05e-4),  # half way to 1e-10, 0.1 and 1e-5
        ("linear", MAX_STEPS, 1e-10, 0.1, 1e-5),
        ("linear", 10 * MAX_STEPS, 1e-10, 0.1, 1e-5),
        ("constant", MAX_STEPS, 1e-2, 0.3, 1e-3),
    ],
)
def test_schedules_set_the_rates_of_an_update(
    schedule: Literal["linear", "constant"],
    step: int,
    learning_rate: float,
    epsilon: float,
    beta: float,
) -> None:
    policy = new_policy()
    rollout = rewarded(policy)
    before = weights(policy)
    ppo = new_ppo(
        policy,
        learning_rate_schedule=schedule,
        learning_rate=1e-2,
        epsilon=0.3,
        beta=1e-3,
        num_epoch=1,
    )
    assert ppo.rates(step) == {
        "Policy/Learning Rate": approx(learning_rate),
        "Policy/Epsilon": approx(epsilon),
        "Policy/Beta": approx(beta),
    }
    ppo.update(rollout, step)
    # Adam's first step is the learning rate in every weight that has a gradient.
    largest = (weights(policy) - before).abs().max().item()
    assert largest == approx(learning_rate, rel=0.01, abs=1e-8)


def test_update_changes_weights_only() -> None:
    policy = new_policy(2, (3,), normalize=True)
    rollout = rewarded(policy)
    kept = copy.deepcopy(rollout)
    buffers = {name: value.clone() for name, value in policy.named_buffers()}
    chance = torch.get_rng_state()
    ppo = new_ppo(policy)
    ppo.update(rollout, 0)
    assert torch.equal(torch.get_rng_state(), chance)
    for name, value in policy.named_buffers():
        assert torch.equal(value, buffers[name]), name
    for field in dataclasses.fields(rollout):
        ours, before = getattr(rollout, field.name), getattr(kept, field.name)
        if isinstance(ours, Tensor):
            assert torch.equal(ours, before), field.name
    assert torch.equal(rollout.obs[0], kept.obs[0])


def test_statistics_are_scalars_without_a_graph() -> None:
    policy = new_policy(num_signals=2)
    update = new_ppo(policy).update(rewarded(policy), 0)
    for tag, value in update.statistics.items():
        assert value.shape == (), tag
        assert not value.requires_grad, tag
    assert update.mean_values is not None
    assert update.mean_values.shape == (2,)


@pytest.mark.parametrize("shared_critic", [False, True])
def test_going_on_from_a_state_is_going_on(shared_critic: bool) -> None:
    def learner() -> tuple[ActorCritic, PPO]:
        policy = new_policy(2, (3,), normalize=True, shared_critic=shared_critic)
        return policy, new_ppo(policy, batch_size=16, beta=0.01, max_grad_norm=0.5)

    policy, ppo = learner()
    first = rewarded(policy, seed=1)
    ppo.update(first, 0)
    policy.update_normalizer(first.obs)
    saved = copy.deepcopy((policy.state_dict(), ppo.state_dict()))

    other_policy, other_ppo = learner()
    for seed in (7, 8):  # what was there must not matter, nor how often it has shuffled
        other_ppo.update(rewarded(other_policy, seed=seed), 0)
    other_policy.load_state_dict(saved[0])
    other_ppo.load_state_dict(saved[1])

    for step in (2, 3):
        rollout = rewarded(policy, seed=step)
        assert torch.equal(rewarded(other_policy, seed=step).log_probs, rollout.log_probs)
        one, two = ppo.update(rollout, step), other_ppo.update(rollout, step)
        for tag, value in one.statistics.items():
            assert torch.equal(value, two.statistics[tag]), tag
        assert torch.equal(weights(policy), weights(other_policy))


def test_state_does_not_change_when_learning_goes_on() -> None:
    policy = new_policy()
    ppo = new_ppo(policy)
    ppo.update(rewarded(policy), 0)
    state = ppo.state_dict()
    kept = copy.deepcopy(state)
    ppo.update(rewarded(policy), 1)
    optimizer, before = state["optimizer"], kept["optimizer"]
    assert isinstance(optimizer, dict)
    assert isinstance(before, dict)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(optimizer["state"][0][name], before["state"][0][name]), name


def test_adam_epsilon_can_be_changed_between_two_runs() -> None:
    policy = new_policy()
    ppo = new_ppo(policy)
    ppo.update(rewarded(policy), 0)
    steps = []
    for adam_epsilon in (1e-8, 1e5):
        resumed_policy = copy.deepcopy(policy)
        resumed = new_ppo(resumed_policy, learning_rate=0.01, adam_epsilon=adam_epsilon)
        resumed.load_state_dict(ppo.state_dict())
        before = weights(resumed_policy)
        resumed.update(rewarded(resumed_policy), 0)
        steps.append((weights(resumed_policy) - before).abs().max().item())
    assert steps[0] > 1e-3
    assert steps[1] < 1e-5  # every step is divided by 100,000
