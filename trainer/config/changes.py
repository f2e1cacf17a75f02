"""What has changed in the settings between a stop and a resume, and what of it is possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from trainer.config.problems import show
from trainer.config.settings import BehaviorSettings, RunSettings

OTHER_NETWORK = "the saved weights are those of the other network"
# Below a behaviour. What also depends on its sensors, such as vis_encode_type, is compared with the
# simulator's behaviour as soon as that is known.
REFUSED: Mapping[str, str] = {
    "trainer_type": "the saved state is that of the other algorithm",
    "hyperparameters.shared_critic": OTHER_NETWORK,
    "network_settings.hidden_units": OTHER_NETWORK,
    "network_settings.num_layers": OTHER_NETWORK,
    "network_settings.activation": OTHER_NETWORK,
    "network_settings.memory": OTHER_NETWORK,
    "network_settings.memory.memory_size": OTHER_NETWORK,
    "reward_signals": "every reward signal has a value head of its own among the saved weights",
}
IDLE = "without effect, because the run has its weights already"
WITHOUT_EFFECT: Mapping[str, str] = {
    "init_path": IDLE,
    "network_settings.initialization": IDLE,
    "network_settings.initial_log_std": IDLE,
}
# What a start is told, not what the run is like.
OF_THE_START = ("checkpoint_settings", "debug", "default_settings", "behaviors")
SEED = "env_settings.seed"
OTHER_SEED = "reproducible is true, and this would not be the run that the other seed began"


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value is another one."""

    path: str  # from the top of the file
    before: object
    now: object
    refusal: str | None = None  # why the run cannot go on with it
    remark: str | None = None

    def __str__(self) -> str:
        remark = "" if self.remark is None else f" ({self.remark})"
        return f"{self.path}: {show(self.before)} -> {show(self.now)}{remark}"

    @property
    def problem(self) -> str:
        """What to tell the user of a change that is refused."""
        return (
            f"{self.path} was {show(self.before)} when the run was saved, and is {show(self.now)} "
            f"now: {self.refusal}. Set it back to go on, or begin another run (--run-id)."
        )


def behavior_changes(
    name: str, before: BehaviorSettings, now: BehaviorSettings
) -> Iterator[Change]:
    """Yields what has changed below `behaviors.<name>`."""
    at = f"behaviors.{name}"
    if before.trainer_type != now.trainer_type:  # its hyperparameters are others anyhow
        key = "trainer_type"
        yield Change(f"{at}.{key}", before.trainer_type, now.trainer_type, REFUSED[key])
        return
    signals, signals_now = list(before.reward_signals), list(now.reward_signals)
    if signals != signals_now:
        key = "reward_signals"
        yield Change(f"{at}.{key}", signals, signals_now, REFUSED[key])
    for key, old, new in _differences(before, now):
        is_other_signal = key.startswith("reward_signals.") and key.split(".")[1] not in (
            set(signals) & set(signals_now)
        )
        if not is_other_signal:
            yield Change(f"{at}.{key}", old, new, REFUSED.get(key), WITHOUT_EFFECT.get(key))


def run_changes(before: RunSettings, now: RunSettings) -> Iterator[Change]:
    """Yields what has changed outside of the behaviours."""
    for key, old, new in _differences(before, now):
        if key.startswith(OF_THE_START):
            continue
        if key == SEED:
            # Elsewhere the generators go on from the checkpoint, and a drawn seed is new each time.
            if before.reproducible and now.reproducible:
                yield Change(key, old, new, OTHER_SEED)
            continue
        yield Change(key, old, new)


def _differences(before: BaseModel, now: BaseModel) -> Iterator[tuple[str, object, object]]:
    """Yields dotted key, value before and value now, of keys that differ."""
    yield from _compare("", before.model_dump(), now.model_dump())


def _compare(path: str, before: object, now: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            inner = f"{path}.{key}" if path else str(key)
            yield from _compare(inner, before.get(key), now.get(key))
    elif before != now:
        yield path, before, now
