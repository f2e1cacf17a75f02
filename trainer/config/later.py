"""What ML-Agents has and this program does not have yet: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from trainer.config.behavior_settings import BehaviorSettings
from trainer.config.problems import program


@dataclass(frozen=True)
class Later:
    """A key that a later version brings; null asks for nothing and is accepted."""

    feature: str
    instead: str

    def refusal(self, where: str) -> str:
        """Says that the key cannot be used, and what to do."""
        return f"{where} asks for {self.feature}, not supported yet by {program()}. {self.instead}."


LATER_KEYS: Mapping[type[BaseModel], Mapping[str, Later]] = {
    BehaviorSettings: {
        "self_play": Later("self-play", "Remove it to let all teams act with the newest policy"),
        "behavioral_cloning": Later("behavioral cloning", "Remove it to train from rewards alone"),
    },
}

LATER_SIGNALS: Mapping[str, Later] = {
    "curiosity": Later("the curiosity reward", "Remove it to train from extrinsic alone"),
    "gail": Later("imitation by GAIL", "Remove it to train from extrinsic alone"),
    "rnd": Later("the RND reward", "Remove it to train from extrinsic alone"),
}

LATER_TRAINERS: Mapping[str, Later] = {
    "sac": Later("SAC", "Use ppo, with ppo's hyperparameters"),
    "poca": Later("POCA", "Use ppo, which trains each agent of a group by its own reward"),
}

# Keys of ML-Agents that belong to something else than the mapping they are often found in.
FOREIGN_KEYS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "buffer_init_steps",
            "tau",
            "steps_per_update",
            "save_replay_buffer",
            "init_entcoef",
            "reward_signal_steps_per_update",
        ),
        "It belongs to trainer_type sac. Remove it",
    ),
    "use_recurrent": (
        "Files of ML-Agents 0.18 and older ask for a memory (LSTM) by it: write `memory: "
        "{memory_size: 128, sequence_length: 64}` under network_settings, or nothing for none"
    ),
    "encoding_size": "It belongs to the curiosity, gail and rnd signals of old files. Remove it",
    "lambda": "It is another spelling of lambd: give that one, once, under hyperparameters",
    "trainer": "ML-Agents 0.17 and newer call it trainer_type",
    **dict.fromkeys(
        ("output_path", "summary_path", "model_path"),
        "It is a relic of ML-Agents before 1.0: files of a run lie in <results_dir>/<run_id>. "
        "Remove it",
    ),
}

CURRICULUM = Later("a curriculum", "Give a number or a sampler, such as that of the last lesson")
