"""From settings to simulators: what to launch, how many, and what to tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from envs import registry
from envs.fleet import EngineConfiguration, FleetPlan, Sampler, SamplerKind
from envs.in_process.copies import InProcessPlan
from envs.registry import resolve, resolve_in_process
from envs.simulators import Simulators
from envs.tls import address_words, is_every_address
from trainer.config.errors import ConfigError
from trainer.config.samplers import (
    ConstantSampler,
    GaussianSampler,
    MultiRangeSampler,
    Parameter,
    UniformSampler,
    derived_seed,
)
from trainer.config.settings import EDITOR_PORT, TORCH, RunSettings
from trainer.listening import simulator_door
from trainer.simulator_count import first_count

HOST_TO_FILL_IN = "HOST"


def plan_fleet(
    settings: RunSettings, logs_dir: Path, seed: int, video: Path | None = None
) -> FleetPlan:
    """Turns the settings into a plan of simulators.

    Args:
        settings: resolved.
        logs_dir: where simulators' logs go.
        seed: simulator i gets `seed` + i.
        video: a Gymnasium environment films its episodes into this file.

    Raises:
        ConfigError: simulators of other machines are waited for, but certificate, key or token
            cannot be used.
    """
    env, engine = settings.env_settings, settings.engine_settings
    names = list(settings.behaviors)
    behavior_name = names[0] if len(names) == 1 else None
    launch = in_process = None
    if env.is_on_device:
        assert env.env_path is not None
        _require_no_process(env.env_path, env_args=env.env_args, video=video)
        in_process = InProcessPlan(
            env=env.env_path.removeprefix(TORCH),
            kwargs=dict(env.env_kwargs),
            behavior_name=behavior_name,
            device=settings.torch_settings.device or "auto",
        )
    elif env.is_in_process:
        assert env.env_path is not None
        in_process = resolve_in_process(
            env.env_path,
            env_args=env.env_args or (),
            env_kwargs=env.env_kwargs,
            env_wrappers=env.env_wrappers,
            behavior_name=behavior_name,
            video=video,
        )
    else:
        launch = resolve(
            env.env_path,
            env_args=env.env_args or (),
            num_areas=env.num_areas,
            env_kwargs=env.env_kwargs,
            env_wrappers=env.env_wrappers,
            behavior_name=behavior_name,
            no_graphics=engine.no_graphics,
            no_graphics_monitor=engine.no_graphics_monitor,
            video=video,
        )
    listen = settings.listen_settings
    is_editor = launch is None and in_process is None
    is_guarded = is_editor and listen.is_guarded
    return FleetPlan(
        launch=launch,
        in_process=in_process,
        door=simulator_door(listen, logs_dir) if is_guarded else None,
        num_simulators=first_count(settings, logs_dir),
        seed=seed,
        num_areas=env.num_areas,
        timeout_wait_s=env.timeout_wait,
        max_lifetime_restarts=env.max_lifetime_restarts,
        restarts_rate_limit_n=env.restarts_rate_limit_n,
        restarts_rate_limit_period_s=env.restarts_rate_limit_period_s,
        restart_delay_s=env.restart_delay_s,
        max_bad_episodes=env.max_bad_episodes,
        behaviors=None if settings.default_settings is not None else frozenset(settings.behaviors),
        base_port=EDITOR_PORT if is_editor and env.base_port is None else env.base_port,
        engine=EngineConfiguration(
            width=engine.width,
            height=engine.height,
            quality_level=engine.quality_level,
            time_scale=engine.time_scale,
            target_frame_rate=engine.target_frame_rate,
            capture_frame_rate=engine.capture_frame_rate,
        ),
        environment_parameters=seeded_parameters(settings.environment_parameters, seed),
        logs_dir=logs_dir,
        lockstep=settings.reproducible,
    )


def _require_no_process(env_path: str, env_args: Sequence[str] | None, video: Path | None) -> None:
    """Raises ConfigError where something is asked of environments on tensors that they have not."""
    if env_args:
        raise ConfigError(
            f"env_args is {' '.join(env_args)}, but env_path {env_path} starts no program that "
            f"could take arguments. Leave it out; env_kwargs are the constructor's."
        )
    if video is not None:
        raise ConfigError(
            f"--video {video} is asked for, but env_path {env_path} has nothing to film: tensors "
            f"have no picture. Leave --video out."
        )


def open_simulators(plan: FleetPlan, *, on_device: bool = True) -> Simulators:
    """Gives the simulators of a plan; use them as a context manager.

    Args:
        plan: from `plan_fleet`.
        on_device: environments on tensors say and hear tensors (`TensorTurn`); else columns, as
            everybody else.

    Raises:
        SimulatorDidNotStartError: environments in this process cannot be built.
    """
    if plan.in_process is None or plan.in_process.device is None:
        return registry.open_simulators(plan)
    from trainer.torch_vector import copies, fleet  # torch, which simulator hosts have not

    return fleet.TorchFleet(plan) if on_device else copies.open_as_columns(plan)


def waiting_words(plan: FleetPlan) -> str | None:
    """Says who is waited for, and how it comes in; None: nobody that the trainer does not start."""
    if plan.is_ours:
        return None
    port = plan.base_port
    if plan.door is None:
        return (
            f"Listening on port {port}. Start training by pressing the Play button in the Unity "
            f"Editor."
        )
    assert port is not None
    host = HOST_TO_FILL_IN if is_every_address(plan.door.host) else plan.door.host
    last = port + plan.num_simulators - 1
    ports = f"port {port}" if last == port else f"ports {port} to {last}, a simulator each"
    return (
        f"Listening on {plan.door.host}, {ports}, with TLS and a token. Certificate's SHA-256 "
        f"fingerprint: {plan.door.fingerprint}\nStart simulators: python -m envs.gym --env ID "
        f"--trainer {address_words(host, port)} --token-file FILE --tls-fingerprint "
        f"{plan.door.fingerprint}"
    )


def seeded_parameters(parameters: Mapping[str, Parameter], seed: int) -> dict[str, float | Sampler]:
    """Gives the environment parameters as they are sent, each sampler with its seed.

    Args:
        parameters: of the settings, in the order of the file.
        seed: of the run.
    """
    sent: dict[str, float | Sampler] = {}
    num_derived = 0
    for name, parameter in parameters.items():
        derived = derived_seed(parameter, seed, num_derived)
        num_derived += derived is not None
        sent[name] = wire_form(parameter, derived)
    return sent


def wire_form(parameter: Parameter, derived: int | None) -> float | Sampler:
    """Translates one environment parameter; `derived` is its seed unless it has its own."""
    match parameter:
        case ConstantSampler(sampler_parameters=given):
            return given.value
        case UniformSampler(sampler_parameters=uniform):
            seed = uniform.seed if derived is None else derived
            return Sampler(seed, SamplerKind.UNIFORM, (uniform.min_value, uniform.max_value))
        case GaussianSampler(sampler_parameters=gaussian):
            seed = gaussian.seed if derived is None else derived
            return Sampler(seed, SamplerKind.GAUSSIAN, (gaussian.mean, gaussian.st_dev))
        case MultiRangeSampler(sampler_parameters=ranges):
            seed = ranges.seed if derived is None else derived
            numbers = tuple(chain.from_iterable(ranges.intervals))
            return Sampler(seed, SamplerKind.MULTI_RANGE_UNIFORM, numbers)
    return parameter


def parameter_lines(parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yields ML-Agents' line for each parameter, which programs read; a lesson has its name."""
    for name, parameter in parameters.items():
        yield f"Parameter '{name}' is in lesson '{name}' and has value '{in_words(parameter)}'."


def in_words(parameter: Parameter) -> str:
    """Writes a parameter as ML-Agents does."""
    match parameter:
        case ConstantSampler(sampler_parameters=given):
            return f"Float: value={given.value}"
        case UniformSampler(sampler_parameters=uniform):
            return f"Uniform sampler: min={uniform.min_value}, max={uniform.max_value}"
        case GaussianSampler(sampler_parameters=gaussian):
            return f"Gaussian sampler: mean={gaussian.mean}, stddev={gaussian.st_dev}"
        case MultiRangeSampler(sampler_parameters=ranges):
            intervals = [list(interval) for interval in ranges.intervals]
            return f"MultiRangeUniform sampler: intervals={intervals}"
    return f"Float: value={parameter}"
