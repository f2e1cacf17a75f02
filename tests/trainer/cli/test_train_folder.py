"""What a run leaves behind and says: ML-Agents' layout, tags, keys and lines."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import FinishedRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_process import ppo_train, run_events, tiny_build, tiny_yaml, tree, tree_of

from trainer.config.load import load_run
from trainer.config.write import dump

SUMMARY = (
    r"\[INFO\] 1D\. Step: {step}\. Time Elapsed: \d+\.\d{{3}} s\. Mean Reward: -?\d+\.\d{{3}}\. "
    r"Std of Reward: \d+\.\d{{3}}\. (Training|Not Training)\."
)
MLAGENTS = Path(__file__).parents[1] / "mlagents_runs"


def checkpoint_steps(run: FinishedRun) -> list[int]:
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in run.folder.glob("1D/1D-*.pt"))
    assert len(steps) == 4
    assert all(800 * (i + 1) <= step for i, step in enumerate(steps[:-1]))
    assert 3000 <= steps[-1] < 3004
    return steps


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_tree_is_that_of_ml_agents(finished_run: FinishedRun) -> None:
    steps = checkpoint_steps(finished_run)
    # Saved at the first update that ends at or behind a multiple of 800, with a message to spare.
    assert all(step < 800 * (i + 1) + 64 + 4 for i, step in enumerate(steps[:-1]))
    assert tree(finished_run.folder) == tree_of("1D", steps, num_simulators=2)
    assert (finished_run.folder / "1D.onnx").read_bytes() == (
        finished_run.folder / f"1D/1D-{steps[-1]}.onnx"
    ).read_bytes()


def test_tensorboard_has_the_tags_of_ml_agents_at_multiples_of_summary_freq(
    finished_run: FinishedRun,
) -> None:
    events = events_of(finished_run.folder / "1D")
    tags = events.Tags()
    assert set(tags["scalars"]) >= {
        "Environment/Cumulative Reward",
        "Environment/Episode Length",
        "Losses/Policy Loss",
        "Losses/Value Loss",
        "Policy/Beta",
        "Policy/Entropy",
        "Policy/Epsilon",
        "Policy/Extrinsic Reward",
        "Policy/Extrinsic Value Estimate",
        "Policy/Learning Rate",
    }
    assert tags["histograms"] == ["Environment/Cumulative Reward_hist"]
    assert tags["tensors"] == ["Hyperparameters/text_summary"]
    for tag in tags["scalars"]:
        assert [point.step for point in events.Scalars(tag)] == list(range(500, 3001, 500)), tag
    rates = [point.value for point in events.Scalars("Policy/Learning Rate")]
    assert rates == pytest.approx([5e-3] * 6)  # constant
    lengths = [point.value for point in events.Scalars("Environment/Episode Length")]
    # The shortest episode has 5 transitions, of which ML-Agents does not count the last.
    assert 4.0 <= lengths[-1] < 4.5


def test_training_status_lists_the_checkpoints(finished_run: FinishedRun) -> None:
    status = json.loads((finished_run.folder / "run_logs" / "training_status.json").read_text())
    assert status.keys() == {"1D", "metadata"}
    assert status["metadata"].keys() == {
        "stats_format_version",
        "mlagents_version",
        "torch_version",
    }
    entry = status["1D"]
    assert entry.keys() == {"checkpoints", "final_checkpoint"}
    assert [checkpoint["steps"] for checkpoint in entry["checkpoints"]] == (
        checkpoint_steps(finished_run)
    )
    for checkpoint in entry["checkpoints"]:
        step = checkpoint["steps"]
        assert checkpoint.keys() == {
            "steps",
            "file_path",
            "reward",
            "creation_time",
            "auxillary_file_paths",
        }
        assert checkpoint["file_path"] == f"results/first/1D/1D-{step}.onnx"
        assert checkpoint["auxillary_file_paths"] == [f"results/first/1D/1D-{step}.pt"]
        assert -1.2 < checkpoint["reward"] <= 1.02
    assert entry["final_checkpoint"]["file_path"] == "results/first/1D.onnx"


def kinds(value: object) -> object:
    """Gives keys and types; lists by their last entry."""
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [kinds(value[-1])]
    return type(value).__name__


def test_training_status_is_laid_out_as_the_real_mlagents_learn_does(
    finished_run: FinishedRun,
) -> None:
    theirs = json.loads((MLAGENTS / "hybrid/run_logs/training_status.json").read_text())
    ours = json.loads((finished_run.folder / "run_logs/training_status.json").read_text())
    assert list(ours) == ["1D", "metadata"]
    assert kinds(ours["1D"]) == kinds(theirs["Crab"])
    assert kinds(ours["metadata"]) == kinds(theirs["metadata"])
    assert ours["metadata"]["stats_format_version"] == theirs["metadata"]["stats_format_version"]


def test_timers_have_the_tree_of_ml_agents(finished_run: FinishedRun) -> None:
    timers = json.loads((finished_run.folder / "run_logs" / "timers.json").read_text())
    assert timers["name"] == "root"
    assert {"gauges", "metadata", "total", "count", "self", "children"} <= timers.keys()
    assert {
        "timer_format_version",
        "start_time_seconds",
        "end_time_seconds",
        "python_version",
        "command_line_arguments",
        "mlagents_version",
        "mlagents_envs_version",
        "communication_protocol_version",
        "pytorch_version",
        "numpy_version",
    } == timers["metadata"].keys()
    assert timers["metadata"]["communication_protocol_version"] == "1.5.0"
    # Six summaries, under the names that mlagents-learn gives them.
    for statistic in (
        "Environment.CumulativeReward",
        "Environment.EpisodeLength",
        "IsTraining",
        "Losses.PolicyLoss",
        "Losses.ValueLoss",
        "Policy.Beta",
        "Policy.Entropy",
        "Policy.Epsilon",
        "Policy.ExtrinsicReward",
        "Policy.ExtrinsicValueEstimate",
        "Policy.LearningRate",
        "Step",
    ):
        gauge = timers["gauges"][f"1D.{statistic}.mean"]
        assert gauge.keys() == {"value", "min", "max", "count"}
        assert gauge["count"] == 6
        assert gauge["min"] <= gauge["value"] <= gauge["max"]
    assert timers["gauges"]["1D.Policy.LearningRate.mean"]["value"] == pytest.approx(5e-3)
    assert timers["gauges"]["1D.Step.mean"] == {"value": 3000, "min": 500, "max": 3000, "count": 6}
    parts = timers["children"]
    assert parts["learning"]["count"] == 3000 // 64
    assert sum(part["total"] for part in parts.values()) <= timers["total"]


def test_log_of_events_tells_the_run_from_start_to_end(finished_run: FinishedRun) -> None:
    events = run_events(finished_run.folder)
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert [event["event"] for event in events[:3]] == ["start", "connected", "connected"]
    start, end = events[0], events[-1]
    configuration = (finished_run.folder / "configuration.yaml").read_bytes()
    assert start["settings_sha256"] == hashlib.sha256(configuration).hexdigest()
    assert (start["step"], start["seed"], start["resume"]) == (0, 1, False)
    assert start["command"][1:3] == ["settings.yaml", "--env"]
    assert {event["simulator"] for event in events[1:3]} == {0, 1}
    assert {event["behavior_id"] for event in events[1:3]} == {"1D?team=0"}
    steps = checkpoint_steps(finished_run)
    checkpoints = [event for event in events if event["event"] == "checkpoint"]
    assert [event["step"] for event in checkpoints] == steps
    assert [event["is_final"] for event in checkpoints] == [False, False, False, True]
    assert [event["path"] for event in events if event["event"] == "export"] == [
        *(f"results/first/1D/1D-{step}.onnx" for step in steps),
        "results/first/1D.onnx",
    ]
    assert (end["event"], end["exit_code"]) == ("end", 0)
    assert end["reason"] == "all behaviors have reached max_steps"
    assert end["step"] == steps[-1]


def test_log_of_events_has_every_number_that_tensorboard_has(finished_run: FinishedRun) -> None:
    summaries = [e for e in run_events(finished_run.folder) if e["event"] == "summary"]
    assert [event["step"] for event in summaries] == list(range(500, 3001, 500))
    shown = events_of(finished_run.folder / "1D")
    tags = shown.Tags()["scalars"]
    for event in summaries:
        # Intervals shorter than what the processors' clocks can measure have no idle cores.
        assert set(tags) - event["values"].keys() <= {"Speed/Idle Cores"}
        assert event["values"].keys() <= set(tags)
        assert event["mean_reward"] == pytest.approx(
            event["values"]["Environment/Cumulative Reward"]
        )
    for tag in tags:
        points = [point.value for point in shown.Scalars(tag)]
        written = [event["values"][tag] for event in summaries if tag in event["values"]]
        assert written == pytest.approx(points, rel=1e-6), tag  # TensorBoard keeps float32


def test_configuration_is_complete_and_loads_again(finished_run: FinishedRun) -> None:
    path = finished_run.folder / "configuration.yaml"
    settings = load_run(path)
    assert dump(settings) == path.read_text()
    assert settings.behaviors == load_run(finished_run.settings).behaviors
    assert settings.env_settings.env_path == "tiny.x86_64"
    assert settings.env_settings.num_envs == 2
    assert settings.env_settings.seed == 1
    assert settings.checkpoint_settings.run_id == "first"


@pytest.mark.parametrize(
    "line",
    [
        r"\[INFO\] Watch the curves: \S*tensorboard --logdir results",
        r"\[INFO\] Connected to Unity environment with package version \S+ and communication "
        r"version 1\.5\.0",
        r"\[INFO\] Connected new brain: 1D\?team=0",
        r"\[INFO\] Hyperparameters for behavior name 1D:",
        r"\[INFO\] Starting training from step 0 and saving to results/first/1D\.",
        *(SUMMARY.format(step=step) for step in range(500, 3001, 500)),
        *(rf"\[INFO\] Exported results/first/1D/1D-{step}\d\d\.onnx" for step in (8, 16, 24, 30)),
        r"\[INFO\] Copied results/first/1D/1D-300\d\.onnx to results/first/1D\.onnx\.",
    ],
)
def test_console_has_the_lines_of_ml_agents(finished_run: FinishedRun, line: str) -> None:
    assert re.search(rf"^{line}", finished_run.output, re.MULTILINE), finished_run.output


def test_final_onnx_has_the_interface_that_unity_reads(finished_run: FinishedRun) -> None:
    session = onnxruntime.InferenceSession(finished_run.folder / "1D.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["obs_0", "action_masks"]
    names = [entry.name for entry in session.get_outputs()]
    assert names == [
        "version_number",
        "memory_size",
        "continuous_actions",
        "continuous_action_output_shape",
        "deterministic_continuous_actions",
        "discrete_actions",
        "discrete_action_output_shape",
        "deterministic_discrete_actions",
    ]
    goals = np.array([[1.0], [-1.0]], np.float32)
    feed = {"obs_0": goals, "action_masks": np.ones((2, 2), np.float32)}
    answers = dict(zip(names, session.run(None, feed), strict=True))
    assert answers["version_number"].tolist() == [3.0]
    assert answers["memory_size"].tolist() == [0.0]
    assert answers["continuous_action_output_shape"].tolist() == [1.0]
    assert answers["discrete_action_output_shape"].tolist() == [[2.0]]
    for name in ("continuous_actions", "deterministic_continuous_actions"):
        assert answers[name].shape == (2, 1)
    for name in ("discrete_actions", "deterministic_discrete_actions"):
        assert answers[name].dtype == np.int64
        assert answers[name].shape == (2, 1)


def test_environment_parameters_have_their_lesson_in_curves_and_status(tmp_path: Path) -> None:
    build = tiny_build(tmp_path)
    settings = tiny_yaml(tmp_path, max_steps=200, summary_freq=100)
    settings.write_text(settings.read_text() + "\nenvironment_parameters: {mass: 2.5}\n")
    said = ppo_train(settings.name, "--env", build.name, cwd=tmp_path)
    assert "[INFO] Parameter 'mass' is in lesson 'mass' and has value 'Float: value=2.5'." in said
    run = tmp_path / "results" / "ppo"
    curve = events_of(run / "1D").Scalars("Environment/Lesson Number/mass")
    assert [(point.step, point.value) for point in curve] == [(100, 0.0), (200, 0.0)]
    status = json.loads((run / "run_logs" / "training_status.json").read_text())
    assert status["mass"] == {"lesson_num": 0}
