from __future__ import annotations

import pytest

from envs.gym.names import default_behavior_name


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("Walker2d-v5", "Walker2d"),
        ("ALE/Pong-v5", "Pong"),
        ("phys2d/CartPole-v1", "CartPole"),
        ("my_package.my_env:MyEnv", "MyEnv"),
        ("my_package.my_env.MyEnv", "MyEnv"),
        ("my_package:MyEnv-v0", "MyEnv"),
        ("MountainCarContinuous-v0", "MountainCarContinuous"),
    ],
)
def test_behavior_is_named_after_the_environment(env: str, name: str) -> None:
    assert default_behavior_name(env) == name
