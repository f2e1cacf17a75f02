"""The guide for users of ML-Agents names what is refused, and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.cli.main import VERBS
from trainer.config.behavior_settings import BehaviorSettings
from trainer.config.flags import ALL_FLAGS, RETIRED
from trainer.config.later import LATER_KEYS, LATER_SIGNALS, LATER_TRAINERS

GUIDE = (Path(__file__).parents[1] / "docs" / "migrating-from-ml-agents.md").read_text()
NOT_YET = GUIDE.partition("## What is not there yet")[2].partition("\n## ")[0]


def test_guide_names_everything_that_stops_a_run() -> None:
    for word in (*LATER_SIGNALS, *LATER_TRAINERS, *LATER_KEYS.get(BehaviorSettings, {})):
        assert word in NOT_YET, word
    assert "curriculum" in NOT_YET


def test_guide_refuses_nothing_that_works() -> None:
    for row in re.findall(r"^\| (.*?) \|", NOT_YET, re.MULTILINE):
        for key in re.findall(r"`(\w+):?`", row):
            assert key not in BehaviorSettings.model_fields, key


def test_commands_and_flags_of_the_guide_exist() -> None:
    for line in re.findall(r"ppo-train ([a-z][a-z-]+)(?=[ `\n])", GUIDE):
        assert line in VERBS, line
    known = {flag.option for flag in ALL_FLAGS} | RETIRED.keys()
    known |= {"--remove", "--editor", "--from-step", "--sampler", "--curriculum", "--flag"}
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", GUIDE):
        assert option in known, option
