"""Cameras, crowds and goals through the whole program: wire, training, checkpoint, ONNX, eval."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from trainer_process import checkpoint, ppo_train, tiny_build, tiny_yaml

EPISODE = re.compile(r"^1D episode (\d+): return (-?\d+\.\d\d), length (\d+)$", re.MULTILINE)


def test_run_with_every_kind_of_sensor_is_trained_exported_and_evaluated(tmp_path: Path) -> None:
    words = ("--actions", "1,1", "--vectors", "1", "--images", "2", "--entities", "1")
    build = tiny_build(tmp_path, *words, "--image-format", "png", "--goal", "0")
    settings = tiny_yaml(
        tmp_path,
        max_steps=256,
        network_settings__normalize=True,
        network_settings__goal_conditioning_type="hyper",
    )
    ppo_train(settings.name, "--env", build.name, "--seed", 1, "--run-id", "eyes", cwd=tmp_path)
    run = tmp_path / "results" / "eyes"
    sensors = checkpoint(run, "1D")["spec"]["sensors"]
    assert sorted(len(sensor["shape"]) for sensor in sensors) == [1, 2, 3, 3]
    assert {sensor["dtype"] for sensor in sensors if len(sensor["shape"]) == 3} == {"uint8"}
    assert [sensor["observation_type"] for sensor in sensors].count(1) == 1
    inputs = onnx.load(str(run / "1D.onnx")).graph.input
    assert [value.name for value in inputs] == ["obs_0", "obs_1", "obs_2", "obs_3", "action_masks"]
    eval_words = ("eval", "--run-id", "eyes", "--episodes", 2, "--seed", 5)
    through_checkpoint = EPISODE.findall(ppo_train(*eval_words, cwd=tmp_path))
    assert len(through_checkpoint) == 2
    assert EPISODE.findall(ppo_train(*eval_words, "--onnx", cwd=tmp_path)) == through_checkpoint


def test_too_small_images_end_the_run_before_it_begins(tmp_path: Path) -> None:
    build = tiny_build(tmp_path, "--vectors", "0", "--images", "1")
    settings = tiny_yaml(tmp_path, network_settings__vis_encode_type="nature_cnn")
    said = ppo_train(
        settings.name, "--env", build.name, "--run-id", "small", cwd=tmp_path, exit_code=2
    )
    assert "20 x 20 pixels, and vis_encode_type nature_cnn needs at least 36 x 36" in said
    assert "Traceback" not in said
