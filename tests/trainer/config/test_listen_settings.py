"""Names from YAML that would leave the run's folder, and ports of simulators from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainer.config.errors import ConfigError
from trainer.config.load import load_run
from trainer.config.write import dump

GUARDED = {"host": "0.0.0.0", "tls": "generate", "token_file": "token.txt"}


def loaded(folder: Path, **sections: object) -> object:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"behaviors": {"Walker": {}}, **sections}))
    return load_run(path)


@pytest.mark.parametrize(
    "run_id", ["../other", "/tmp/other", "a/../../b", "\\\\host\\share", "C:\\x", ".", "./.", ".."]
)
def test_run_id_stays_below_the_results_folder(tmp_path: Path, run_id: str) -> None:
    for key in ("run_id", "initialize_from"):
        with pytest.raises(ConfigError, match="expected a name to call a folder"):
            loaded(tmp_path, checkpoint_settings={key: run_id})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../Walker", "cannot name a folder"),
        ("/Walker", "cannot name a folder"),
        ("Walker/../../x", "cannot name a folder"),
        (".", "cannot name a folder"),
        ("run_logs", "the run keeps files of its own under run_logs and configuration.yaml"),
        ("run_logs/tls", "the run keeps files of its own"),
        ("configuration.yaml", "the run keeps files of its own"),
        ("W" * 300, "its name has 300 bytes; at most 200 are expected"),
    ],
)
def test_behaviour_name_stays_below_the_run(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(tmp_path, behaviors={name: {}})


def test_several_simulators_from_elsewhere_have_the_ports_that_were_chosen(tmp_path: Path) -> None:
    found = load_run(
        None,
        {"listen_settings": GUARDED, "env_settings": {"num_envs": "4", "base_port": "5005"}},
    )
    # 5005 is ML-Agents' default for builds, which is dropped only where an Editor is waited for.
    assert (found.env_settings.num_envs, found.env_settings.base_port) == (4, 5005)


@pytest.mark.parametrize("host", ["a b", "http://host", "host/path", "[::1]", "me@host", ""])
def test_host_is_a_name_or_an_address(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address of this machine"):
        loaded(tmp_path, listen_settings={**GUARDED, "host": host})


def test_secrets_are_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPO_TRAIN_TOKEN", "a-secret-of-this-test")
    found = load_run(None, {"listen_settings": GUARDED})
    assert "a-secret-of-this-test" not in dump(found)
