"""The YAML file as typed, frozen objects: the words every other part of the program reads.

Keys and defaults are ML-Agents'; the keys it does not have are marked "(ours)". Defaults live here
and in `behavior_settings.py`, nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from envs.folder_names import stays_below
from trainer.config.behavior_settings import (
    BehaviorSettings,
    BehaviorStopSettings,
    MemorySettings,
    NetworkSettings,
    PlateauSettings,
    RewardSignalSettings,
)
from trainer.config.errors import ConfigError
from trainer.config.hyperparameters import Hyperparameters, PPOHyperparameters
from trainer.config.listen_settings import (
    LARGEST_PORT,
    ControlSettings,
    ListenSettings,
    require_closed_doors,
)
from trainer.config.model import Settings
from trainer.config.problems import nearest, one_of
from trainer.config.samplers import Parameter, ParameterValue
from trainer.config.tracker_settings import TrackerSettings
from trainer.config.values import (
    AUTO,
    LARGEST_FLOAT32,
    AutoOr,
    Count,
    Flag,
    PlainData,
    Positive,
    Range,
    Text,
    Texts,
    WireCount,
    WireLimit,
    WireSize,
    Words,
    Wrappers,
    contradiction,
)

ActAt = Literal["auto", "trainer", "simulator"]

__all__ = [
    "EDITOR_PORT",
    "ActAt",
    "BehaviorSettings",
    "BehaviorStopSettings",
    "CheckpointSettings",
    "ControlSettings",
    "EngineSettings",
    "EnvironmentSettings",
    "Hyperparameters",
    "ListenSettings",
    "MemorySettings",
    "NetworkSettings",
    "PPOHyperparameters",
    "PlateauSettings",
    "RewardSignalSettings",
    "RunSettings",
    "StopSettings",
    "TorchSettings",
    "TrackerSettings",
]

EDITOR_PORT = 5004
"""Port that the Unity Editor dials when nobody told it another one."""

GYM, TORCH = "gym:", "torch:"

DEVICE = re.compile(r"(cpu|mps|(cuda|xpu)(:\d+)?)")


def is_device(name: str) -> bool:
    """Tells whether PyTorch may know a device of this name."""
    return DEVICE.fullmatch(name) is not None


RunId = Annotated[str, Text("a name to call a folder, without '..'", stays_below)]
Device = Annotated[str, Text("cpu, mps, cuda, cuda:0, xpu or xpu:0", is_device)]


class EnvironmentSettings(Settings):
    """Which simulators are started, how many, and what happens when they fail."""

    env_path: Words | None = None
    """A Unity build, or `gym:<id>`, or `gym:<module>:<class>`, or, with num_envs 0,
    `torch:<module>:<class>` (ours: a vector environment on tensors). Null: wait for the Unity
    Editor."""

    env_args: Annotated[tuple[str, ...], Texts()] | None = None
    """Arguments added to the simulator's command line."""

    base_port: Annotated[int, Range(at_least=1, at_most=LARGEST_PORT)] | None = None
    """Simulator i dials port base_port + i. Null (ML-Agents: 5005): the system picks free ones.
    Without env_path: the port that the Editor dials, null for its usual 5004."""

    num_envs: Annotated[int | str, AutoOr(numbers=Range(at_least=0, at_most=LARGEST_PORT))] = 1
    """Simulator processes. auto (ours): begins with one per core, then adds or ends some while the
    run begins, and keeps the fewest that collect as fast; `--resume` on the same machine begins
    with them. Not in reproducible runs. 0 (ours): none, `num_areas` Gymnasium environments step in
    the trainer's own process, for what is too fast for a socket; what hangs there cannot be
    interrupted."""

    num_areas: WireCount = 1
    """Training areas in each simulator; for Gymnasium, environments in each process."""

    timeout_wait: WireCount = 60
    """Seconds that a simulator may be silent."""

    seed: WireLimit = -1
    """Seed of the run; simulator i gets seed + i, after a resume the steps so far on top. -1 draws
    one."""

    max_lifetime_restarts: WireLimit = 10
    """Crashes after which a simulator is given up; -1: never."""

    restarts_rate_limit_n: WireLimit = 1
    """Crashes of one simulator allowed within restarts_rate_limit_period_s; -1: any number."""

    restarts_rate_limit_period_s: WireCount = 60
    """Seconds in which restarts_rate_limit_n crashes are allowed."""

    restart_delay_s: Annotated[float, Range(at_least=0, at_most=3600)] = 1.0
    """(ours) Seconds that the second restart of a simulator within ten minutes waits; the first
    does not, and every further one waits twice as long as the one before, at most a minute."""

    max_bad_episodes: WireLimit = 10
    """(ours) Episodes of a simulator that are dropped because of NaN or infinite numbers before it
    counts as crashed; -1: any number."""

    env_kwargs: Annotated[Mapping[str, Any], PlainData()] = Field(default_factory=dict)
    """(ours) Constructor arguments of a Gymnasium environment."""

    env_wrappers: Annotated[tuple[Mapping[str, Any], ...], Wrappers()] = ()
    """(ours) Wrappers of a Gymnasium environment, innermost first: classes of gymnasium.wrappers
    by name, or `<module>:<class>`."""
    act_at: ActAt = "auto"
    """(ours) Where actions are chosen: in the trainer, or at simulators that can run the policy
    themselves, which saves a round trip per step (`gym:` on the CPU, without memory); updates then
    wait for all of them, also for one that hangs. auto tries both for a second each and takes the
    faster one. Runs that are reproducible, or do not learn
    (inference), act in the trainer."""

    @property
    def is_counted(self) -> bool:
        """Whether the run finds out by itself how many simulators are best."""
        return self.num_envs == AUTO

    @property
    def least_envs(self) -> int:
        """How many simulators there are at least."""
        return self.num_envs if isinstance(self.num_envs, int) else 1

    @property
    def is_in_process(self) -> bool:
        """Whether environments step in the trainer's own process."""
        return self.num_envs == 0

    @property
    def is_on_device(self) -> bool:
        """Whether environments are tensors on the device that learns."""
        return self.env_path is not None and self.env_path.startswith(TORCH)

    def _require_sense_in_process(self) -> None:
        """Without simulator processes nothing may be said about them."""
        for name, value, meaning in (
            ("base_port", self.base_port, "nothing dials a port"),
            ("act_at", self.act_at if self.act_at == "simulator" else None, "nobody acts apart"),
        ):
            if value is not None:
                raise contradiction(
                    f"num_envs is 0 and {name} is {value}, but environments in the trainer's "
                    f"process are no simulators of their own: {meaning}. Leave {name} out, or set "
                    "num_envs to 1 or more",
                    "num_envs",
                    name,
                )

    @model_validator(mode="after")
    def _hold_together(self) -> EnvironmentSettings:
        if self.is_in_process:
            self._require_sense_in_process()
        if self.base_port is not None and self.base_port + self.least_envs > LARGEST_PORT + 1:
            raise contradiction(
                f"base_port is {self.base_port} and num_envs {self.num_envs}, but the last port is "
                f"{LARGEST_PORT}. Simulator i dials base_port + i: lower one of them, or leave "
                "base_port out",
                "base_port",
                "num_envs",
            )
        is_gym = self.env_path is not None and self.env_path.startswith(GYM)
        if self.is_on_device and not self.is_in_process:
            raise contradiction(
                f"env_path is {self.env_path} and num_envs {self.num_envs}, but environments on "
                "tensors are in the trainer's process: set num_envs to 0, and num_areas to how "
                "many agents there are",
                "env_path",
                "num_envs",
            )
        if self.is_in_process and not (is_gym or self.is_on_device):
            raise contradiction(
                f"num_envs is 0 and env_path {self.env_path!r}, but only Gymnasium environments "
                "can be in the trainer's process: begin env_path with gym: or torch:, or "
                "set num_envs to 1 or more",
                "num_envs",
                "env_path",
            )
        if self.env_wrappers and not is_gym:
            raise contradiction(
                "env_wrappers is set, but env_path is no Gymnasium environment. Only those have "
                "wrappers: begin env_path with gym:, or leave env_wrappers out",
                "env_wrappers",
                "env_path",
            )
        if self.env_kwargs and not (is_gym or self.is_on_device):
            raise contradiction(
                "env_kwargs is set, but env_path is no Gymnasium environment. Only those have "
                "constructor arguments: begin env_path with gym:, or use environment_parameters "
                "for Unity",
                "env_kwargs",
                "env_path",
            )
        return self


class EngineSettings(Settings):
    """How Unity renders and how fast its clock runs; Gymnasium environments take no notice."""

    width: WireCount = 84
    """Window width in pixels."""

    height: WireCount = 84
    """Window height in pixels."""

    quality_level: WireSize = 5
    """Unity's quality level."""

    time_scale: Annotated[float, Range(above=0, at_most=LARGEST_FLOAT32)] = 20.0
    """Speed of Unity's clock; the Editor allows at most 100."""

    target_frame_rate: WireLimit = -1
    """Frames per second that Unity aims at; -1: as many as it can."""

    capture_frame_rate: WireSize = 60
    """Frames per simulated second; 0: as they come."""

    no_graphics: Flag = False
    """Whether simulators run without a window and without a graphics device."""

    no_graphics_monitor: Flag = False
    """The same for all simulators but the first."""


class CheckpointSettings(Settings):
    """Where a run is stored and what it starts from."""

    run_id: RunId = "ppo"
    """Name of the run; its folder below results_dir."""

    initialize_from: RunId | None = None
    """Run below results_dir whose weights this run starts with."""

    resume: Flag = False
    """Whether to go on with the run of this id."""

    force: Flag = False
    """Whether to reuse the folder of an existing run."""

    inference: Flag = False
    """Whether to act without learning."""

    results_dir: Words = "results"
    """Folder of all runs."""

    resume_or_start: Flag = False
    """(ours) Whether to go on with the run of this id if there is one, and to start it if not."""

    checkpoint_interval_s: Positive | None = 300.0
    """(ours) Seconds after which what was learnt since is saved, beside checkpoint_interval. Null:
    only steps count, as they do in reproducible runs."""

    milestone_interval: Count | None = None
    """(ours) Steps between checkpoints that stay for good, beside keep_checkpoints. Null: none."""

    best_min_episodes: Annotated[int, Range(at_least=2, at_most=100)] = 20
    """(ours) Episodes that a checkpoint's mean return has to be of before it may be the best one,
    which stays beside keep_checkpoints. What counts is the 95 % lower bound of the mean return of
    at most 100 episodes."""

    evaluation_episodes: Count | None = None
    """(ours) Episodes that every checkpoint is played for, with the likeliest actions and in a
    simulator of its own beside the training; the best is the one with the highest mean return.
    Null: the best is chosen by best_min_episodes."""

    @model_validator(mode="after")
    def _start_is_clear(self) -> CheckpointSettings:
        if self.resume_or_start and self.force:
            raise contradiction(
                "resume_or_start is true and goes on with an existing run, but force is true and "
                "overwrites it. Leave one of them out",
                "resume_or_start",
                "force",
            )
        if self.evaluation_episodes is not None and "best_min_episodes" in self.model_fields_set:
            default = CheckpointSettings.model_fields["best_min_episodes"].default
            if self.best_min_episodes != default:
                raise contradiction(
                    f"best_min_episodes is {self.best_min_episodes}, but with evaluation_episodes "
                    f"{self.evaluation_episodes} the best checkpoint is chosen by episodes of its "
                    "own. Leave one of them out",
                    "best_min_episodes",
                    "evaluation_episodes",
                )
        return self


class StopSettings(Settings):
    """When the whole run ends before max_steps; see also `stop` of a behaviour."""

    wall_time_s: Positive | None = None
    """(ours) Seconds after which the run ends, saved; every resume has as many again. Null:
    never."""


class TorchSettings(Settings):
    """Where and how PyTorch computes."""

    device: Device | None = None
    """Device that learns: cpu, cuda, cuda:0, mps, xpu. Null: cuda if there is one, else cpu."""

    num_threads: Count | None = None
    """(ours) Threads of an update on the CPU. Null: one if a minibatch is little work,
    else one per core."""


class RunSettings(Settings):
    """A whole run, resolved: command line over behaviour over default_settings over defaults."""

    default_settings: BehaviorSettings | None = None
    """Settings that every behaviour starts from, and behaviours that are not listed have."""

    behaviors: Mapping[str, BehaviorSettings] = Field(default_factory=dict)
    """Settings by behaviour name, without `?team=`."""

    env_settings: EnvironmentSettings = Field(default_factory=EnvironmentSettings)
    """Simulators."""

    engine_settings: EngineSettings = Field(default_factory=EngineSettings)
    """Unity's engine."""

    environment_parameters: Mapping[str, Annotated[Parameter, ParameterValue()]] = Field(
        default_factory=dict
    )
    """Numbers that the simulator asks for by name: constant, or drawn for every episode."""

    checkpoint_settings: CheckpointSettings = Field(default_factory=CheckpointSettings)
    """Storage."""

    torch_settings: TorchSettings = Field(default_factory=TorchSettings)
    """PyTorch."""

    control_settings: ControlSettings = Field(default_factory=ControlSettings)
    """(ours) Control of the running run."""

    listen_settings: ListenSettings = Field(default_factory=ListenSettings)
    """(ours) Simulators of other machines."""

    stop: StopSettings = Field(default_factory=StopSettings)
    """(ours) When the run ends early."""

    trackers: TrackerSettings = Field(default_factory=TrackerSettings)
    """(ours) Where else the curves go, beside TensorBoard."""

    debug: Flag = False
    """Whether to log details."""

    reproducible: Flag = False
    """(ours) Whether equal seeds give equal weights: simulators answer in lockstep, which is
    slower."""

    @model_validator(mode="after")
    def _doors_are_closed(self) -> RunSettings:
        require_closed_doors(self)
        return self

    @model_validator(mode="after")
    def _evaluation_has_a_simulator(self) -> RunSettings:
        episodes = self.checkpoint_settings.evaluation_episodes
        if episodes is not None and self.env_settings.env_path is None:
            raise contradiction(
                f"checkpoint_settings.evaluation_episodes is {episodes}, but env_path is not set, "
                "and the Unity Editor, which is waited for, plays for one run only. Set env_path "
                "(or --env), or leave evaluation_episodes out",
                "checkpoint_settings.evaluation_episodes",
                "env_settings.env_path",
            )
        return self

    @model_validator(mode="after")
    def _moments_are_equal(self) -> RunSettings:
        """In reproducible mode the clock must not decide; the field holds what really happens."""
        if self.reproducible and self.env_settings.is_counted:
            raise contradiction(
                "env_settings.num_envs is auto, but reproducible is true. Which number is the "
                "fastest depends on the clock: set num_envs to a number",
                "env_settings.num_envs",
                "reproducible",
            )
        if self.reproducible and self.env_settings.act_at == "simulator":
            raise contradiction(
                "env_settings.act_at is simulator, but reproducible is true. When a simulator that "
                "acts tells what it did depends on the clock: set act_at to trainer or auto",
                "env_settings.act_at",
                "reproducible",
            )
        given = self.checkpoint_settings
        if not self.reproducible or given.checkpoint_interval_s is None:
            return self
        if "checkpoint_interval_s" in given.model_fields_set:
            raise contradiction(
                f"checkpoint_settings.checkpoint_interval_s is {given.checkpoint_interval_s:g}, "
                "but reproducible is true. A checkpoint is a moment at which simulators begin "
                "anew, so the clock must not choose it: set checkpoint_interval_s to null, and "
                "checkpoint_interval to as many steps as you can afford to lose",
                "checkpoint_settings.checkpoint_interval_s",
                "reproducible",
            )
        own = given.model_copy(update={"checkpoint_interval_s": None})
        object.__setattr__(self, "checkpoint_settings", own)
        return self

    def for_behavior(self, name: str) -> BehaviorSettings:
        """Gives the settings of a behaviour the simulator has announced.

        Raises:
            ConfigError: it is not listed, and there are no default_settings.
        """
        if name in self.behaviors:
            return self.behaviors[name]
        if self.default_settings is not None:
            return self.default_settings
        close = nearest(name, self.behaviors)
        raise ConfigError(
            f"behaviors: the simulator has a behaviour {name!r}; expected "
            f"{one_of(repr(known) for known in self.behaviors)}"
            f"{f', probably {close!r}' if close else ''}. Rename it under `behaviors:`, or add "
            "default_settings for behaviours that are not listed."
        )
