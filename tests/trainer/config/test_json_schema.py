from __future__ import annotations

import json
from pathlib import Path

import pytest
from schema_check import complaints

from trainer.config.document import parse_document, read_document
from trainer.config.json_schema import render

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "configs" / "behaviors.schema.json"
SCHEMA = json.loads(render())
FILES = [ROOT / "behaviors.yaml", *sorted(ROOT.glob("configs/**/*.yaml"))]

WRONG = {
    "misspelt key": "behaviors: {A: {max_step: 5}}",
    "misspelt section": "env_setting: {seed: 3}",
    "text for a number": "behaviors: {A: {max_steps: many}}",
    "part of a number": "behaviors: {A: {time_horizon: 3.9}}",
    "out of range": "behaviors: {A: {reward_signals: {extrinsic: {gamma: 1.01}}}}",
    "at an open bound": "behaviors: {A: {hyperparameters: {epsilon: 1}}}",
    "unknown word": "behaviors: {A: {network_settings: {vis_encode_type: resnett}}}",
    "unknown trainer": "behaviors: {A: {trainer_type: dqn}}",
    "unknown signal": "behaviors: {A: {reward_signals: {extrinsick: {}}}}",
    "signal for later": "behaviors: {A: {reward_signals: {curiosity: {}}}}",
    "key for later": "behaviors: {A: {self_play: {window: 10}}}",
    "null for a behaviour": "behaviors: {A: null}",
    "list for a mapping": "behaviors: [A]",
    "unknown sampler": "environment_parameters: {m: {sampler_type: beta, sampler_parameters: {}}}",
    "key beside a sampler": (
        "environment_parameters: {m: {sampler_type: uniform, sampler_parameters: {}, max_value: 1}}"
    ),
    "interval of three": (
        "environment_parameters: {m: {sampler_type: multirangeuniform, "
        "sampler_parameters: {intervals: [[1, 2, 3]]}}}"
    ),
    "wrappers without order": "env_settings: {env_wrappers: {ClipReward: {max_reward: 1}}}",
    "list for a wrapper's arguments": "env_settings: {env_wrappers: [{FrameStack: [4]}]}",
    "two lessons": (
        "environment_parameters: "
        "{m: {curriculum: [{name: a, value: 1}, {name: b, value: 2}]}}"
    ),
}  # fmt: skip

RIGHT = {
    "every form of a parameter": """
        environment_parameters:
          a: 1
          b: {sampler_type: gaussian, sampler_parameters: {mean: 3}}
          c: {curriculum: [{name: only, value: {sampler_type: uniform, sampler_parameters: {}}}]}
        """,
    "every form of a wrapper": "env_settings: {env_wrappers: [A, {B: {c: [1]}}, {m.n:C: null}]}",
    "exponents without a dot": "behaviors: {A: {max_steps: 5e5}}",
    "empty sections": "env_settings:\nbehaviors:\n  A: {init_path: null, self_play: null}",
    "number as a name": "checkpoint_settings: {run_id: 1}\ntorch_settings: {device: null}",
    "counted simulators": "env_settings: {num_envs: auto}",
    "any behaviour": "behaviors: {with space: {}, 3DBall: {}}",
    "a file of ML-Agents' own": "checkpoint_settings: {load_model: false, train_model: false}",
}


def said_of(text: str) -> list[str]:
    values = parse_document(Path("run.yaml"), text).values
    return list(complaints(values, SCHEMA, SCHEMA))


def test_committed_schema_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render(), "make docs"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_of_the_repository_fits_the_schema_that_it_names(path: Path) -> None:
    assert list(complaints(read_document(path).values, SCHEMA, SCHEMA)) == []
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == COMMITTED


@pytest.mark.parametrize("name", WRONG)
def test_editor_marks_a_mistake(name: str) -> None:
    assert said_of(WRONG[name])


@pytest.mark.parametrize("name", RIGHT)
def test_editor_leaves_good_settings_alone(name: str) -> None:
    assert said_of(RIGHT[name]) == []


def test_every_key_is_described() -> None:
    for name, definition in SCHEMA["definitions"].items():
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key}"
