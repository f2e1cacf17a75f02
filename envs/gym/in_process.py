"""Which implementation steps Gymnasium environments in the trainer's process."""

from __future__ import annotations

from envs.bridge.limits import require_usable_spec
from envs.bridge.simulator import FleetPlan
from envs.errors import UnsupportedSpaceError
from envs.gym.film import Film, prepare_rendering
from envs.gym.make import Env, make_vector_env
from envs.gym.names import default_behavior_name
from envs.gym.own_copies import OwnCopies
from envs.gym.vector_copies import Vector, VectorCopies
from envs.gym.wrappers import make_wrapped_env
from envs.in_process.copies import Copies
from envs.in_process.fleet import InProcessFleet


def open_in_process(plan: FleetPlan) -> InProcessFleet:
    """Builds what the plan says; slow, for some environments.

    Raises:
        SimulatorDidNotStartError: there is no such environment, or it cannot be built.
        UnsupportedSpaceError: no sensors or actions can be made of its spaces.
    """
    copies = build_copies(plan)
    require_usable_spec(copies.behavior_id, copies.spec)
    return InProcessFleet(plan, copies)


def build_copies(plan: FleetPlan) -> Copies:
    """Takes an implementation that steps all environments at once, where nothing speaks against it.

    Wrappers of single environments and films want single ones.
    """
    wanted, num_envs = plan.in_process, plan.num_areas
    assert wanted is not None
    behavior_id = f"{wanted.behavior_name or default_behavior_name(wanted.env)}?team=0"
    if not (wanted.wrappers or wanted.video or plan.environment_parameters):

        def build_vector() -> Vector | None:
            return make_vector_env(wanted.env, num_envs, wanted.kwargs)

        vector = build_vector()
        if vector is not None:

            def build_again() -> Vector:
                built = build_vector()
                assert built is not None
                return built

            _require_usable(vector)
            return VectorCopies(vector, build_again, behavior_id, f"gym:{wanted.env}")
    kwargs = dict(wanted.kwargs)
    to_film = [wanted.video] if wanted.video is not None else []
    if to_film:
        kwargs = {"render_mode": "rgb_array", **kwargs}
        prepare_rendering()

    def build() -> Env:
        env = make_wrapped_env(wanted.env, kwargs, wanted.wrappers)
        return Film(env, to_film.pop()) if to_film else env  # the first one's episodes

    return OwnCopies(build, behavior_id, num_envs)


def _require_usable(env: Vector) -> None:
    """Raises UnsupportedSpaceError for a vector environment without observations or actions."""
    spaces = env.single_observation_space, env.single_action_space
    if any(space is None for space in spaces):
        raise UnsupportedSpaceError(
            f"{type(env).__name__} has the spaces {spaces[0]} and {spaces[1]} of a single "
            f"environment. Set single_observation_space and single_action_space."
        )
