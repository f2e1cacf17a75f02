from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from trainer.config.errors import ConfigError
from trainer.config.settings import RunSettings, TorchSettings
from trainer.device import choose_device, choose_num_threads

ALL_CORES = len(os.sched_getaffinity(0))


def run_settings(**sections: Any) -> RunSettings:
    return RunSettings.model_validate(sections)


def behavior(batch_size: int, hidden_units: int, num_layers: int) -> dict[str, Any]:
    return {
        "hyperparameters": {"batch_size": batch_size, "buffer_size": 10 * batch_size},
        "network_settings": {"hidden_units": hidden_units, "num_layers": num_layers},
    }


SMALL = behavior(64, 64, 2)  # 64 rows * 2 networks * 2 layers * 64 * 64 = 1 million multiply-adds
LARGE = behavior(2048, 512, 3)  # 2048 * 2 * 3 * 512 * 512 = 3,221 million


def test_cpu_is_chosen_when_asked_for() -> None:
    assert choose_device(TorchSettings(device="cpu")) == torch.device("cpu")


def test_without_a_setting_cuda_is_chosen_if_it_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(TorchSettings()).type == expected


@pytest.mark.parametrize("device", ["cuda:97", "xpu:97"])
def test_device_that_is_not_there_is_an_error_that_says_what_to_do(device: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose_device(TorchSettings(device=device))
    message = str(error.value)
    for words in (f"torch_settings.device is {device}", torch.__version__, ". Set it to cpu"):
        assert words in message
    assert "\n" not in message


def test_given_number_of_threads_is_taken_as_it_is() -> None:
    settings = run_settings(behaviors={"Crab": SMALL}, torch_settings={"num_threads": 7})
    assert choose_num_threads(settings) == 7


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, 1),
        ({"behaviors": {"Crab": SMALL}}, 1),
        ({"behaviors": {"Crab": LARGE}}, ALL_CORES),
        ({"behaviors": {"Crab": SMALL, "Whale": LARGE}}, ALL_CORES),
        ({"behaviors": {"Crab": SMALL}, "default_settings": LARGE}, ALL_CORES),
    ],
)
def test_small_updates_stay_on_one_thread(sections: dict[str, Any], expected: int) -> None:
    assert choose_num_threads(run_settings(**sections)) == expected
