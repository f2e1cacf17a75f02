from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.config.errors import UserError
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs


def spec_of(
    shapes: Sequence[tuple[int, ...]], continuous: int, branches: tuple[int, ...] = ()
) -> BehaviorSpec:
    sensors = [
        ObservationSpec(shape, (DimensionProperty.NONE,) * len(shape), Kind.DEFAULT, f"sensor_{i}")
        for i, shape in enumerate(shapes)
    ]
    return BehaviorSpec(sensors, ActionSpec(continuous, branches))


def policy_of(
    continuous: int,
    branches: tuple[int, ...] = (),
    *,
    num_signals: int = 1,
    shared_critic: bool = False,
    **network: Any,
) -> ActorCritic:
    torch.set_num_threads(1)  # as a run does for small networks
    torch.manual_seed(0)
    settings = NetworkSettings(
        **{"hidden_units": 16, "num_layers": 1, "initial_log_std": -0.7, **network}
    )
    spec = spec_of([(2,), (3,)], continuous, branches)
    policy = ActorCritic("Crab", spec, settings, num_signals, shared_critic)
    with torch.no_grad():  # heads start small; here they are to matter
        for name, parameter in policy.named_parameters():
            if "head" in name:
                parameter.normal_()
    return policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_inputs(rows: int, seed: int = 0) -> Inputs:
    return (torch.randn((rows, 5), generator=seeded(seed)),)


MASK = torch.tensor([[True, False, True, True, False]])  # branches of 2 and 3


@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize(
    ("continuous", "branches", "mask"),
    [(3, (), None), (0, (2, 3), MASK), (2, (2, 3), MASK), (1, (4,), None)],
)
def test_evaluate_gives_the_log_probs_of_acting(
    continuous: int, branches: tuple[int, ...], mask: Tensor | None, shared_critic: bool
) -> None:
    policy = policy_of(continuous, branches, num_signals=2, shared_critic=shared_critic)
    inputs = some_inputs(33)
    mask = None if mask is None else mask.expand(33, -1)
    action = policy.act(inputs, mask, seeded())
    evaluation = policy.evaluate(inputs, mask, action.continuous, action.discrete)
    assert action.log_probs.shape == (33, continuous + len(branches))
    # Acting takes the noise itself, evaluating works it out from the action: a few roundings apart.
    torch.testing.assert_close(evaluation.log_probs, action.log_probs, rtol=0, atol=1e-5)
    assert evaluation.values.shape == (33, 2)
    torch.testing.assert_close(policy.values(inputs), evaluation.values)


def test_hybrid_log_probs_and_entropies_agree_with_torch_distributions() -> None:
    policy = policy_of(2, (2, 3), initial_log_std=-0.5)
    inputs, mask = some_inputs(20), MASK.expand(20, -1)
    action = policy.act(inputs, mask, seeded())
    evaluation = policy.evaluate(inputs, mask, action.continuous, action.discrete)
    features = policy.actor_body(inputs)
    normal: Any = torch.distributions.Normal(policy.mean_head(features), policy.log_std.exp())
    logits = policy.branch_head(features).masked_fill(~mask, -torch.inf)
    first: Any = torch.distributions.Categorical(logits=logits[:, :2], validate_args=False)
    second: Any = torch.distributions.Categorical(logits=logits[:, 2:], validate_args=False)
    torch.testing.assert_close(
        evaluation.log_probs,
        torch.cat(
            [
                normal.log_prob(action.continuous),
                first.log_prob(action.discrete[:, 0]).unsqueeze(1),
                second.log_prob(action.discrete[:, 1]).unsqueeze(1),
            ],
            dim=1,
        ),
    )
    torch.testing.assert_close(
        evaluation.entropies,
        torch.cat(
            [normal.entropy(), torch.stack([first.entropy(), second.entropy()], dim=1)], dim=1
        ),
    )


def test_deterministic_actions_are_the_mode_of_the_allowed_ones() -> None:
    policy = policy_of(2, (2, 3))
    inputs, mask = some_inputs(50), MASK.expand(50, -1)
    action = policy.act(inputs, mask, seeded(), deterministic=True)
    assert torch.equal(action.continuous, policy.mean_head(policy.actor_body(inputs)).detach())
    assert action.discrete[:, 0].eq(0).all()  # the other one is forbidden
    assert set(action.discrete[:, 1].tolist()) == {0, 1}
    # no drawn action is likelier, in any dimension or branch
    for seed in range(20):
        drawn = policy.act(inputs, mask, seeded(seed))
        assert (drawn.log_probs <= action.log_probs + 1e-6).all()


def test_drawn_actions_have_the_mean_and_deviation_that_the_policy_says() -> None:
    policy = policy_of(2, initial_log_std=-1.0)
    inputs = (some_inputs(1)[0].expand(100_000, 5),)
    drawn = policy.act(inputs, None, seeded()).continuous
    mean = policy.mean_head(policy.actor_body((inputs[0][:1],))).detach()
    # five standard errors: 5 * 0.368 / sqrt(100,000)
    assert drawn.mean(dim=0).numpy() == approx(mean[0].numpy(), abs=0.006)
    assert drawn.std(dim=0).numpy() == approx([0.367879, 0.367879], rel=0.012)


def test_forbidden_actions_are_never_drawn_in_any_row() -> None:
    rows = 5000
    policy = policy_of(0, (3, 2))
    mask = torch.rand((rows, 5), generator=seeded(1)) > 0.5
    mask[:, 0] |= ~mask[:, :3].any(dim=1)
    mask[:, 4] |= ~mask[:, 3:].any(dim=1)
    for deterministic in (False, True):
        action = policy.act(some_inputs(rows), mask, seeded(), deterministic)
        chosen = torch.stack([action.discrete[:, 0], 3 + action.discrete[:, 1]], dim=1)
        assert mask.gather(1, chosen).all()


def test_equal_generators_give_equal_actions_and_no_other_chance_is_used() -> None:
    policy = policy_of(3, (4,))
    inputs = some_inputs(40)
    before = torch.get_rng_state()
    first, again = (policy.act(inputs, None, seeded(5)) for _ in range(2))
    other = policy.act(inputs, None, seeded(6))
    assert torch.equal(first.continuous, again.continuous)
    assert torch.equal(first.discrete, again.discrete)
    assert not torch.equal(first.continuous, other.continuous)
    assert torch.equal(before, torch.get_rng_state())


def test_observations_enter_in_sensor_order_and_the_normalizer_learns_only_when_told() -> None:
    policy = policy_of(1, normalize=True)
    obs = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])]
    assert policy.inputs(obs)[0].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    policy.act(policy.inputs(obs), None, seeded())
    policy.train()
    assert policy.inputs(obs)[0].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    policy.update_normalizer(obs)
    # one row x beside the imagined 0: (x - x/2) / sqrt((2 (x/2)^2 + 1) / 2)
    expected = [0.5 / 0.75**0.5, 1.0 / 1.5**0.5, 1.5 / 2.75**0.5, 2.0 / 4.5**0.5, 2.5 / 6.75**0.5]
    assert policy.inputs(obs)[0][0].numpy() == approx(np.array(expected), rel=1e-6)


def test_without_normalize_observations_pass_unchanged() -> None:
    policy = policy_of(1)
    obs = [torch.full((1, 2), 1e6), torch.full((1, 3), -1e6)]
    policy.update_normalizer(obs)
    assert policy.inputs(obs)[0].tolist() == [[1e6, 1e6, -1e6, -1e6, -1e6]]


def test_actor_and_critic_share_a_body_only_if_asked() -> None:
    for shared in (False, True):
        policy = policy_of(1, shared_critic=shared)
        policy.zero_grad()
        policy.values(some_inputs(4)).sum().backward()  # type: ignore[no-untyped-call]
        touched = any(parameter.grad is not None for parameter in policy.actor_body.parameters())
        assert touched is shared
    # actor and critic bodies: 5 * 16 + 16 each
    separate, joined = (
        sum(parameter.numel() for parameter in policy_of(1, shared_critic=shared).parameters())
        for shared in (False, True)
    )
    assert separate - joined == 96


def test_first_policy_hardly_prefers_any_action() -> None:
    torch.manual_seed(0)
    spec = spec_of([(5,)], 2, (3,))
    for initialization, largest in (("kaiming", 1.5), ("orthogonal", 0.1)):
        settings = NetworkSettings.model_validate({"initialization": initialization})
        policy = ActorCritic("Crab", spec, settings, 1, False)
        features = policy.actor_body(some_inputs(200))
        assert policy.mean_head(features).abs().max() < largest
        probabilities = torch.softmax(policy.branch_head(features), dim=1)
        assert probabilities.max() < 0.6
        for layer in (policy.mean_head, policy.branch_head, policy.value_head):
            assert layer.bias.eq(0.0).all()


def test_behavior_without_actions_is_refused() -> None:
    with pytest.raises(UserError, match="Behavior 'Crab' has no actions"):
        policy_of(0)


def test_values_in_pieces_are_those_of_the_whole() -> None:
    policy = policy_of(1, num_signals=2)
    policy.critic_body.rows_at_once = 7
    inputs = some_inputs(30)
    torch.testing.assert_close(policy.values_in_pieces(inputs), policy.values(inputs))
