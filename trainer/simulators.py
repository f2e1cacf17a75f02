"""From settings to simulators: what to launch, how many, and what to tell them."""

from __future__ import annotations

from pathlib import Path

from envs.fleet import EngineConfiguration, FleetPlan
from envs.registry import resolve
from trainer.config.settings import EDITOR_PORT, RunSettings


def plan_fleet(
    settings: RunSettings, logs_dir: Path, seed: int, video: Path | None = None
) -> FleetPlan:
    """Turns the settings into a plan of simulators.

    Args:
        settings: resolved.
        logs_dir: where simulators' logs go.
        seed: simulator i gets `seed` + i.
        video: a Gymnasium environment films its episodes into this file.
    """
    env, engine = settings.env_settings, settings.engine_settings
    names = list(settings.behaviors)
    launch = resolve(
        env.env_path,
        env_args=env.env_args or (),
        num_areas=env.num_areas,
        env_kwargs=env.env_kwargs,
        behavior_name=names[0] if len(names) == 1 else None,
        no_graphics=engine.no_graphics,
        no_graphics_monitor=engine.no_graphics_monitor,
        video=video,
    )
    return FleetPlan(
        launch=launch,
        num_simulators=env.num_envs,
        seed=seed,
        num_areas=env.num_areas,
        timeout_wait_s=env.timeout_wait,
        max_lifetime_restarts=env.max_lifetime_restarts,
        restarts_rate_limit_n=env.restarts_rate_limit_n,
        restarts_rate_limit_period_s=env.restarts_rate_limit_period_s,
        base_port=EDITOR_PORT if launch is None and env.base_port is None else env.base_port,
        engine=EngineConfiguration(
            width=engine.width,
            height=engine.height,
            quality_level=engine.quality_level,
            time_scale=engine.time_scale,
            target_frame_rate=engine.target_frame_rate,
            capture_frame_rate=engine.capture_frame_rate,
        ),
        environment_parameters=dict(settings.environment_parameters),
        logs_dir=logs_dir,
        lockstep=settings.reproducible,
    )
