from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from envs.bridge.arguments import parse_simulator_arguments


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--name", default="")
    parser.add_argument("--quick", action="store_true")
    return parse_simulator_arguments(parser, arguments)


def test_own_arguments_are_read_between_those_of_the_player() -> None:
    options = parse(
        "-nographics", "-batchmode", "--mlagents-port", "5005", "-screen-width", "80",
        "--seed", "-3", "--quick", "--name=-x", "-force-vulkan",
    )  # fmt: skip
    assert vars(options) == {"mlagents_port": 5005, "seed": -3, "quick": True, "name": "-x"}


def test_value_may_be_empty() -> None:
    assert parse("--name", "", "--mlagents-port", "1").name == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "1"], "required: --mlagents-port"),
        (["--mlagents-port", "1", "--sed", "1"], "unrecognized arguments: --sed 1"),
        (["--mlagents-port", "1", "stray"], "unrecognized arguments: stray"),
    ],
)
def test_mistakes_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_log_file_takes_all_output_even_of_a_mistake(tmp_path: Path) -> None:
    log = tmp_path / "Player-0.log"
    done = subprocess.run(
        [sys.executable, "-m", "envs.testing.tiny", "-logFile", str(log)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == ("", "")
    assert "--mlagents-port" in log.read_text()
