"""Files that are wrong in every way we know; what is said of them is pinned in messages.json.

`python tests/trainer/config/test_hostile_settings.py` writes the messages anew; read the diff.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from trainer.config import document
from trainer.config.document import parse_document, read_document
from trainer.config.errors import ConfigError
from trainer.config.load import resolve
from trainer.config.problems import program

MESSAGES = Path(__file__).parents[2] / "messages.json"
SECTION = "settings"

HOSTILE: dict[str, str] = {
    # not settings at all
    "empty file": "",
    "only comments": "# nothing\n# here\n",
    "only null": "~\n",
    "a number": "42\n",
    "a list": "- behaviors\n- Walker\n",
    "a text": "ppo-train\n",
    "no behaviours": "env_settings: {seed: 3}\n",
    "empty behaviours": "behaviors: {}\n",
    # YAML that cannot be parsed
    "tab as indentation": "behaviors:\n\tWalker: {}\n",
    "tab deeper down": "behaviors:\n  Walker:\n\t  max_steps: 5\n",
    "unclosed bracket": "behaviors: {A: {max_steps: 5}\n",
    "two documents": "behaviors: {A: {}}\n---\nbehaviors: {B: {}}\n",
    "unknown alias": "behaviors: {A: *nobody}\n",
    "alias within itself": "behaviors: &all {A: *all}\n",
    "control character": "behaviors: {A: {}} # \x07\n",
    "list as key": "behaviors: {? [a, b] : {}}\n",
    "merge key with a text": "behaviors: {A: {<<: text}}\n",
    "too deep": "behaviors: " + "[" * 60 + "]" * 60 + "\n",
    # structure
    "duplicate key": """
        behaviors:
          Walker:
            max_steps: 5
            time_horizon: 6
            max_steps: 7
        """,
    "duplicate behaviour": "behaviors:\n  Walker: {}\n  Walker: {max_steps: 3}\n",
    "behaviour without keys": "behaviors:\n  Walker:\n",
    "behaviour is a text": "behaviors: {Walker: ppo}\n",
    "behaviours are a list": "behaviors: [Walker]\n",
    "lost indentation": """
        behaviors:
          Walker:
            trainer_type: ppo
          hyperparameters:
            batch_size: 5
        """,
    "section is a text": "behaviors: {A: {}}\nenv_settings: builds/Walker\n",
    "hyperparameters without lines": "behaviors: {A: {trainer_type: ppo, hyperparameters: }}\n",
    "signal without lines": "behaviors: {A: {reward_signals: {extrinsic: }}}\n",
    "team in the name": "behaviors: {'Walker?team=1': {}}\n",
    "name leaves the results": "behaviors: {../Walker: {}}\n",
    # unknown keys
    "misspelt key": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {learning_rat: 3.0e-4}}}\n"
    ),
    "misspelt section": "behaviors: {A: {}}\nenv_setting: {seed: 1}\n",
    "key in the wrong mapping": "behaviors: {A: {batch_size: 5, gamma: 0.9, seed: 1}}\n",
    "dashes instead of underscores": "behaviors: {A: {max-steps: 5}}\n",
    "nothing like it": "behaviors: {A: {}}\ntorch_settings: {zzzzz: 5}\n",
    "key of SAC": "behaviors: {A: {trainer_type: ppo, hyperparameters: {tau: 0.005}}}\n",
    "misspelt signal": "behaviors: {A: {reward_signals: {extrinsick: {}}}}\n",
    "hyperparameters without trainer": "behaviors: {A: {hyperparameters: {batch_size: 5}}}\n",
    "lambda and lambd": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {lambda: 0.9, lambd: 0.8}}}\n"
    ),
    # values
    "part of a number for a whole one": "behaviors: {A: {time_horizon: 3.9}}\n",
    "text for a number": "behaviors: {A: {max_steps: many}}\n",
    "true for a number": "behaviors: {A: {max_steps: true}}\n",
    "number for a yes": "behaviors: {A: {even_checkpoints: 1}}\n",
    "null for a number": "behaviors: {A: {max_steps: null}}\n",
    "list for a number": "behaviors: {A: {max_steps: [1, 2]}}\n",
    "infinite number": "behaviors: {A: {reward_signals: {extrinsic: {strength: .inf}}}}\n",
    "number beyond all floats": "behaviors: {A: {max_steps: 1e999}}\n",
    "out of range": "behaviors: {A: {reward_signals: {extrinsic: {gamma: 1.01}}}}\n",
    "unknown word": "behaviors: {A: {network_settings: {vis_encode_type: resnett}}}\n",
    "unknown trainer": "behaviors: {A: {trainer_type: dqn, hyperparameters: {batch_size: 5}}}\n",
    "device that nobody has": "behaviors: {A: {}}\ntorch_settings: {device: gpu0}\n",
    "date for a number": "behaviors: {A: {max_steps: 2001-01-01}}\n",
    "impossible date": "behaviors: {A: {max_steps: 2001-13-45}}\n",
    "code for a number": "behaviors: {A: {max_steps: !!python/name:os.system ''}}\n",
    "code for a mapping": "behaviors: !!python/object/apply:os.system [ls]\n",
    "number of too many digits": f"behaviors: {{A: {{max_steps: {'9' * 5000}}}}}\n",
    "very long value": f"behaviors: {{A: {{max_steps: {'x' * 500}}}}}\n",
    "arguments in one text": "behaviors: {A: {}}\nenv_settings: {env_path: g, env_args: -a -b}\n",
    "run id that leaves the results": "behaviors: {A: {}}\ncheckpoint_settings: {run_id: ../x}\n",
    # contradictions
    "batch larger than buffer": """
        behaviors:
          Walker:
            trainer_type: ppo
            hyperparameters:
              buffer_size: 2048
              batch_size: 4096
        """,
    "batch larger than the default buffer": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {batch_size: 20480}}}\n"
    ),
    "many editors": "behaviors: {A: {}}\nenv_settings: {num_envs: 2}\n",
    "arguments for a build": (
        "behaviors: {A: {}}\nenv_settings: {env_path: Walker.exe, env_kwargs: {a: 1}}\n"
    ),
    "even checkpoints without an end": (
        "behaviors: {A: {even_checkpoints: true, keep_checkpoints: 0}}\n"
    ),
    # later
    "memory": "behaviors: {A: {network_settings: {memory: {memory_size: 128}}}}\n",
    "memory with defaults": "behaviors: {A: {network_settings: {memory: {}}}}\n",
    "curiosity": "behaviors: {A: {reward_signals: {extrinsic: {}, curiosity: {strength: 0.02}}}}\n",
    "gail": "behaviors: {A: {reward_signals: {gail: {demo_path: a.demo}}}}\n",
    "rnd": "behaviors: {A: {reward_signals: {rnd: {strength: 0.01}}}}\n",
    "self-play": "behaviors: {A: {self_play: {}}}\n",
    "behavioral cloning": "behaviors: {A: {behavioral_cloning: {demo_path: a.demo}}}\n",
    "threaded": "behaviors: {A: {threaded: true}}\n",
    "sac": "behaviors: {A: {trainer_type: sac, hyperparameters: {tau: 0.005}}}\n",
    "poca": "behaviors: {A: {trainer_type: poca, hyperparameters: {beta: 0.01}}}\n",
    "unknown sampler": """
        behaviors: {A: {}}
        environment_parameters: {mass: {sampler_type: beta, sampler_parameters: {}}}
        """,
    "sampler without parameters": (
        "behaviors: {A: {}}\nenvironment_parameters: {mass: {sampler_type: constant}}\n"
    ),
    "curriculum": """
        behaviors: {A: {}}
        environment_parameters:
          height:
            curriculum:
              - name: low
                value: 1
                completion_criteria: {behavior: A, threshold: 5}
              - {name: high, value: 2}
        """,
    "parameter is a text": "behaviors: {A: {}}\nenvironment_parameters: {mass: heavy}\n",
    # older dialects
    "ML-Agents 0.16": """
        default:
          trainer: ppo
          batch_size: many
        Walker:
          max_stepz: 2e6
        """,
    "ML-Agents 0.18": """
        behaviors: {A: {}}
        parameter_randomization: {mass: {sampler-type: uniform, min_value: 2}}
        """,
    "ML-Agents 0.18 with a curriculum": """
        behaviors: {A: {}}
        curriculum: {A: {thresholds: [1], parameters: {height: [1, 2]}}}
        """,
    "behaviours without the line above": "Walker:\n  trainer_type: ppo\n",
    "old memory keys": "behaviors: {A: {use_recurrent: true, sequence_length: 64}}\n",
    # many at once, in the order of the file
    "many problems": """
        env_settings: {num_envs: zero}
        behaviors:
          A:
            trainer_type: ppo
            hyperparameters: {batch_size: 5, buffer_size: 4, epsilon: 2}
            max_step: 5
        debug: maybe
        """,
}


def problems_of(name: str) -> list[str]:
    text = textwrap.dedent(HOSTILE[name]).lstrip("\n") if "\n " in HOSTILE[name] else HOSTILE[name]
    with pytest.raises(ConfigError) as caught:
        resolve(parse_document(Path("run.yaml"), text))
    # A new version does not change what is said.
    return [problem.replace(program(), "ppo-train VERSION") for problem in caught.value.problems]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_gets_the_pinned_messages(name: str) -> None:
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("the parser's own words are those of libyaml")
    assert problems_of(name) == json.loads(MESSAGES.read_text(encoding="utf-8"))[SECTION][name]


@pytest.mark.parametrize("name", HOSTILE)
def test_every_message_says_where_and_ends_as_a_sentence(name: str) -> None:
    for problem in problems_of(name):
        assert problem.startswith("run.yaml:")
        assert problem.endswith((".", "?"))
        assert "\n" not in problem


@pytest.mark.parametrize("name", HOSTILE)
def test_parser_without_c_finds_the_same_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def places() -> list[str]:
        return [":".join(problem.split(":")[:2]) for problem in problems_of(name)]

    with_c = places()
    monkeypatch.setattr(document, "Loader", yaml.SafeLoader)
    assert places() == with_c


def test_nesting_that_would_overflow_the_stack_is_refused() -> None:
    # In a process of its own: without the limit, the parser in C ends it with SIGSEGV.
    code = """
from pathlib import Path
from trainer.config.document import parse_document
parse_document(Path("run.yaml"), "[" * 200_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is nested more than 50 deep" in done.stderr


def test_aliases_that_multiply_are_refused() -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 9))
    with pytest.raises(ConfigError, match="aliases multiply to more than 100000 values"):
        parse_document(Path("run.yaml"), f"l0: &l0 x\n{levels}")


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "walker.yaml").write_text("behaviors: {A: {}}")
    with pytest.raises(ConfigError, match=r"run\.yaml: no such file\. There is walker\.yaml in"):
        read_document(tmp_path / "run.yaml")


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; expected a YAML file"):
        read_document(tmp_path)


def test_file_in_another_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"behaviors:\n  L\xe4ufer: {}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2: byte 0xe4 is not UTF-8"):
        read_document(path)


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {}}", encoding="utf-16")
    with pytest.raises(ConfigError, match="encoded as UTF-16; expected UTF-8"):
        read_document(path)


def test_byte_order_mark_of_windows_editors_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {}}", encoding="utf-8-sig")
    assert list(resolve(read_document(path)).behaviors) == ["A"]


def test_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(ConfigError, match=r"is 2\.0 MB; expected settings in YAML"):
        read_document(path)


if __name__ == "__main__":
    pinned = json.loads(MESSAGES.read_text(encoding="utf-8")) if MESSAGES.exists() else {}
    pinned[SECTION] = {name: problems_of(name) for name in HOSTILE}
    written = json.dumps(pinned, indent=2, ensure_ascii=False) + "\n"
    MESSAGES.write_text(written, encoding="utf-8")
