from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli.main import VERBS, main

ROOT = Path(__file__).parents[3]


def test_help_lists_every_verb_without_importing_one() -> None:
    code = "import sys; sys.modules['torch'] = None; from trainer.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for name, verb in VERBS.items():
        assert f"  {name} " in done.stdout
        assert verb.summary in done.stdout


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ppo-train 0.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ["chekc", "behaviors.yaml"],
            "'chekc' is neither a verb nor a file. Did you mean 'check'?",
        ),
        (["zzzzzzzz"], "'zzzzzzzz' is neither a verb nor a file. `ppo-train --help` lists"),
        (["check"], "the following arguments are required: FILE.yaml"),
        (["check", "--fast", "a.yaml"], "unknown argument '--fast'"),
    ],
)
def test_wrong_line_is_one_message_without_trace_and_exit_code_2(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
