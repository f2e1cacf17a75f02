from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config.flags import ALL_FLAGS, TOP_LEVEL, UsageError, flag_of, parse_train
from trainer.config.load import load_run
from trainer.config.settings import RunSettings

# Every flag of mlagents-learn 1.1.0 with the key it sets (reference/mlagents-config.md, 5.1).
ML_AGENTS_FLAGS = [
    ("--env", "env_settings", "env_path", "game"),
    ("--resume", "checkpoint_settings", "resume", None),
    ("--deterministic", "network_settings", "deterministic", None),
    ("--force", "checkpoint_settings", "force", None),
    ("--resume-or-start", "checkpoint_settings", "resume_or_start", None),
    ("--control", "control_settings", "port", "7000"),
    ("--host", "listen_settings", "host", "127.0.0.2"),
    ("--control-health", "control_settings", "health_port", "7001"),
    ("--run-id", "checkpoint_settings", "run_id", "run 1"),
    ("--initialize-from", "checkpoint_settings", "initialize_from", "old"),
    ("--seed", "env_settings", "seed", "-1"),
    ("--inference", "checkpoint_settings", "inference", None),
    ("--base-port", "env_settings", "base_port", "6000"),
    ("--num-envs", "env_settings", "num_envs", "1"),
    ("--num-areas", "env_settings", "num_areas", "3"),
    ("--act-at", "env_settings", "act_at", "simulator"),
    ("--debug", TOP_LEVEL, "debug", None),
    ("--max-lifetime-restarts", "env_settings", "max_lifetime_restarts", "-1"),
    ("--restarts-rate-limit-n", "env_settings", "restarts_rate_limit_n", "2"),
    ("--restarts-rate-limit-period-s", "env_settings", "restarts_rate_limit_period_s", "30"),
    ("--results-dir", "checkpoint_settings", "results_dir", "out"),
    ("--timeout-wait", "env_settings", "timeout_wait", "5"),
    ("--width", "engine_settings", "width", "100"),
    ("--height", "engine_settings", "height", "100"),
    ("--quality-level", "engine_settings", "quality_level", "0"),
    ("--time-scale", "engine_settings", "time_scale", "1.5"),
    ("--target-frame-rate", "engine_settings", "target_frame_rate", "-1"),
    ("--capture-frame-rate", "engine_settings", "capture_frame_rate", "0"),
    ("--no-graphics", "engine_settings", "no_graphics", None),
    ("--no-graphics-monitor", "engine_settings", "no_graphics_monitor", None),
    ("--torch-device", "torch_settings", "device", "cuda:0"),
    ("--reproducible", TOP_LEVEL, "reproducible", None),
]


@pytest.mark.parametrize(("flag", "section", "key", "value"), ML_AGENTS_FLAGS)
def test_flag_sets_its_key_and_nothing_else(
    flag: str, section: str, key: str, value: str | None
) -> None:
    found = parse_train([flag] if value is None else [flag, value])
    assert found.overrides == {section: {key: True if value is None else value}}
    overrides = {name: dict(keys) for name, keys in found.overrides.items()}
    if flag == "--control-health":
        overrides[section]["port"] = "0"  # there is no health of an endpoint without it
    load_run(None, overrides)  # the settings know the key


# Those that mean nothing by themselves.
LISTENING = {
    "--host": ("listen_settings", "host", "0.0.0.0"),
    "--tls": ("listen_settings", "tls", "generate"),
    "--token-file": ("listen_settings", "token_file", "token.txt"),
    "--control": ("control_settings", "port", "0"),
    "--control-host": ("control_settings", "host", "::"),
    "--control-token-file": ("control_settings", "token_file", "other.txt"),
}
PAIR = {
    "--tls-cert": ("listen_settings", "tls_cert", "c.pem"),
    "--tls-key": ("listen_settings", "tls_key", "k.pem"),
}


@pytest.mark.parametrize("flags", [LISTENING, PAIR])
def test_flags_that_belong_together_set_their_keys(flags: dict[str, tuple[str, str, str]]) -> None:
    found = parse_train([word for flag, (*_, value) in flags.items() for word in (flag, value)])
    expected: dict[str, dict[str, str]] = {}
    for section, key, value in flags.values():
        expected.setdefault(section, {})[key] = value
    assert found.overrides == expected
    load_run(None, found.overrides)


def test_no_flag_of_ours_is_missing_from_the_list() -> None:
    listed = {flag for flag, *_ in ML_AGENTS_FLAGS} | {"--env-args"}
    assert {flag.option for flag in ALL_FLAGS} == listed | {*LISTENING, *PAIR}


def test_flag_left_out_overrides_nothing() -> None:
    found = parse_train(["run.yaml"])
    assert found.config_path == Path("run.yaml")
    assert found.overrides == {}


def test_file_may_stand_behind_flags() -> None:
    found = parse_train(["--run-id", "x", "run.yaml", "--resume"])
    assert found.config_path == Path("run.yaml")
    assert found.overrides == {"checkpoint_settings": {"run_id": "x", "resume": True}}


def test_env_args_swallow_the_rest_of_the_line() -> None:
    found = parse_train(["run.yaml", "--env", "g", "--env-args", "--seed", "5", "run2.yaml", "-x"])
    assert found.overrides == {
        "env_settings": {"env_path": "g", "env_args": ["--seed", "5", "run2.yaml", "-x"]}
    }
    assert load_run(None, found.overrides).env_settings.env_args == (
        "--seed",
        "5",
        "run2.yaml",
        "-x",
    )


def test_equals_sign_and_unambiguous_prefix_work() -> None:
    found = parse_train(["--run-id=x", "--env-a", "-v"])
    assert found.overrides == {
        "checkpoint_settings": {"run_id": "x"},
        "env_settings": {"env_args": ["-v"]},
    }


@pytest.mark.parametrize("flag", ["--train", "--torch", "--tensorflow"])
def test_retired_flag_warns_and_does_nothing(flag: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_train([flag]).overrides == {}
    assert f"{flag} has no effect" in caplog.text


def test_load_counts_as_resume(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_train(["--load"]).overrides == {"checkpoint_settings": {"resume": True}}
    assert "--load read as --resume" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--num-env-s", "3"], r"unknown argument '--num-env-s'\. Did you mean --num-envs\?"),
        (["a.yaml", "b.yaml"], r"unknown argument 'b.yaml'\. `ppo-train --help` lists all"),
        (["--run-id"], r"argument --run-id: expected one argument"),
        (["--sampler=s.yaml"], r"before 1\.0\. .*upgrade OLD\.yaml --sampler FILE"),
        (["--slow"], r"--slow belongs to ML-Agents before 1\.0\. Write --time-scale 1\."),
        (["--re"], r"ambiguous option: --re could match"),
    ],
)
def test_wrong_command_line_says_what_is_wrong(line: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_train(line)


@pytest.mark.parametrize("flag", ALL_FLAGS)
def test_flag_is_found_again_from_its_key(flag: object) -> None:
    known = next(candidate for candidate in ALL_FLAGS if candidate is flag)
    path = (known.section, known.key) if known.section else (known.key,)
    assert flag_of(path) == known.option


def test_flags_name_keys_that_exist() -> None:
    for flag in ALL_FLAGS:
        if flag.section and flag.section != "network_settings":
            section = getattr(RunSettings(), flag.section)
            assert hasattr(section, flag.key), flag
