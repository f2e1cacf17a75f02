"""The agent as a process of its own, against a trainer of plain gRPC and ordinary protobuf."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ledger_env import BOTH, GO_ON, RAISE, TERMINATE, TRUNCATE
from plain_trainer import WAIT_S, serving

from envs.bridge import side_channels
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import AgentInfoProto
from envs.bridge.side_channels import SamplerKind, StatsAggregation, StatsMessage, Writer

HERE = Path(__file__).parent
LEDGER = "LedgerEnv?team=0"


def obs_of(agent: AgentInfoProto) -> list[float]:
    (observation,) = agent.observations
    assert list(observation.shape) == [3]
    return list(observation.float_data.data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_agents_of_one_message_are_the_areas_the_trainer_asks_for(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        hello = trainer.greet(seed=5, num_areas=3)
        assert (hello.name, hello.communication_version) == ("AcademySingleton", "1.5.0")
        assert hello.capabilities.hybridActions
        # It says that it could act, in a field that this trainer does not know, and is served.
        assert columns_pb2.Message.FromString(
            trainer.hello.SerializeToString()
        ).unity_output.can_act
        agents = trainer.begin()
        (brain,) = trainer.brains
        assert brain.brain_name == LEDGER
        assert list(brain.action_spec.discrete_branch_sizes) == [5]
        assert brain.action_spec.num_continuous_actions == 0
        assert len({agent.id for agent in agents}) == 3
        assert len({obs_of(agent)[0] for agent in agents}) == 3, "areas share their randomness"
        assert [obs_of(agent)[1:] for agent in agents] == [[1, 0]] * 3
        later = trainer.step(LEDGER, [GO_ON] * 3)
        assert [agent.reward for agent in later] == [11.0] * 3
        assert [agent.id for agent in later] == [agent.id for agent in agents]
        assert len(trainer.brains) == 1, "brain parameters are sent once only"
        trainer.answer(LEDGER, [GO_ON] * 3)
        trainer.close()
        assert process.wait(WAIT_S) == 0


def test_ended_agents_are_in_the_message_twice(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, _):
        trainer.greet(num_areas=4)
        first = trainer.begin()
        trainer.step(LEDGER, [GO_ON] * 4)
        agents = trainer.step(LEDGER, [TERMINATE, GO_ON, TRUNCATE, BOTH])
        decisions = [agent for agent in agents if not agent.done]
        ended = {agent.id: agent for agent in agents if agent.done}
        old = [agent.id for agent in first]
        assert set(ended) == {old[0], old[2], old[3]}
        interrupted = [ended[old[index]].max_step_reached for index in (0, 2, 3)]
        assert interrupted == [False, True, False], "what is both is an end by the task"
        for agent in ended.values():
            assert agent.reward == 12.0
            assert obs_of(agent)[1:] == [1, 2], "the end shows the last observation"
        assert [agent.reward for agent in decisions] == [0.0, 12.0, 0.0, 0.0]
        assert [obs_of(agent)[1:] for agent in decisions] == [[2, 0], [1, 2], [2, 0], [2, 0]]
        assert decisions[1].id == old[1]
        fresh = {decisions[index].id for index in (0, 2, 3)}
        assert len(fresh) == 3
        assert not fresh & set(old)


def test_reset_begins_new_episodes_and_ends_none(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, _):
        trainer.greet(num_areas=2)
        first = trainer.begin()
        trainer.step(LEDGER, [TERMINATE, GO_ON])
        agents = trainer.reset()
        assert not any(agent.done for agent in agents)
        assert [agent.reward for agent in agents] == [0.0, 0.0]
        assert [obs_of(agent)[1:] for agent in agents] == [[3, 0], [2, 0]]
        assert not {agent.id for agent in agents} & {agent.id for agent in first}
        numbers = [[obs_of(agent)[0] for agent in some] for some in (first, agents)]
        assert len({*numbers[0], *numbers[1]}) == 4, "a reset must not seed again"


def test_own_seed_areas_and_behavior_beat_the_trainers(log: Path) -> None:
    def numbers(trainer_seed: int, *arguments: str) -> list[float]:
        command = ("--env", "ledger_env.LedgerEnv", "--num-areas", "2", *arguments)
        with serving(*command, cwd=HERE, log=log) as (trainer, _):
            trainer.greet(seed=trainer_seed, num_areas=1)
            agents = trainer.begin()
            assert trainer.brains[0].brain_name == "Mine?team=0"
            return [obs_of(agent)[0] for agent in agents]

    one, two = numbers(3, "--behavior", "Mine"), numbers(4, "--behavior", "Mine")
    assert not set(one) & set(two)
    assert numbers(4, "--behavior", "Mine", "--seed", "3") == one


def test_parameters_are_applied_before_the_next_episode(log: Path) -> None:
    name = "ParameterEnv?team=0"
    with serving("--env", "ledger_env:ParameterEnv", cwd=HERE, log=log) as (trainer, _):
        trainer.greet(num_areas=2)
        agents = trainer.begin(side_channels.environment_parameters({"mass": 2.5}))
        assert [obs_of(agent)[0] for agent in agents] == [2.5, 2.5]
        heavier = side_channels.environment_parameters({"mass": 8.0})
        agents = trainer.step(name, [TERMINATE, GO_ON], heavier)
        decisions = [agent for agent in agents if not agent.done]
        assert [obs_of(agent)[0] for agent in decisions] == [8.0, 2.5]
        words = Writer().string("mass").int32(1).int32(3).int32(SamplerKind.UNIFORM)
        payload = words.float32(20.0).float32(30.0).payload()
        sampled = side_channels.frame(side_channels.ENVIRONMENT_PARAMETERS, payload)
        agents = trainer.step(name, [TERMINATE] * 2, sampled)
        again = trainer.step(name, [TERMINATE] * 2)
        drawn = [obs_of(agent)[0] for agent in [*agents, *again] if not agent.done]
        assert len(set(drawn)) == 4
        assert all(20.0 <= mass <= 30.0 for mass in drawn)


def test_parameters_nobody_takes_are_told_once(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        trainer.greet()
        trainer.begin(side_channels.environment_parameters({"mass": 2.5, "gravity": 9.8}))
        trainer.step(LEDGER, [GO_ON], side_channels.environment_parameters({"mass": 3.0}))
        trainer.answer(LEDGER, [GO_ON])
        trainer.close()
        assert process.wait(WAIT_S) == 0
    lines = [line for line in log.read_text().splitlines() if "set_parameters" in line]
    (line,) = lines
    assert "gravity, mass are ignored" in line


def test_stats_of_the_environment_travel_on_their_side_channel(log: Path) -> None:
    command = ("--env", "ledger_env:LedgerEnv", "--kwargs", '{"tell": true}')
    with serving(*command, cwd=HERE, log=log) as (trainer, _):
        trainer.greet(num_areas=2)
        trainer.begin()
        inbox = side_channels.Inbox()
        for env_step in (1, 2):
            trainer.step(LEDGER, [GO_ON] * 2)
            assert (
                inbox.read(trainer.side_channel)
                == (StatsMessage("Ledger/Step", env_step, StatsAggregation.AVERAGE),) * 2
            )


def test_arguments_for_unitys_player_are_accepted(log: Path, tmp_path: Path) -> None:
    player_log = tmp_path / "Player-0.log"
    unity = ("-nographics", "-batchmode", "-logFile", str(player_log))
    with serving(*unity, "--env", "CartPole-v1", cwd=tmp_path, log=log) as (trainer, process):
        trainer.greet()
        (agent,) = trainer.begin()
        assert trainer.brains[0].brain_name == "CartPole?team=0"
        assert len(agent.observations[0].float_data.data) == 4
        trainer.answer("CartPole?team=0", [1])
        trainer.close()
        assert process.wait(WAIT_S) == 0
    assert "the trainer closed" in player_log.read_text()
    assert log.read_text() == ""


def test_agent_ends_quietly_when_the_trainer_is_killed(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        trainer.greet()
        trainer.begin()
        trainer.vanish()
        assert process.wait(WAIT_S) == 0
    assert "connection to the trainer lost" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_exception_of_the_environment_is_shown_with_its_traceback(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        trainer.greet()
        trainer.begin()
        trainer.answer(LEDGER, [RAISE])
        assert process.wait(WAIT_S) == 1
    assert "Traceback" in log.read_text()
    assert log.read_text().endswith("ArithmeticError: the ledger does not add up\n")


def test_actions_for_another_behavior_end_the_agent(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        trainer.greet(num_areas=2)
        trainer.begin()
        trainer.answer("Another?team=0", [GO_ON] * 2)
        assert process.wait(WAIT_S) == 2
    assert f"answered {LEDGER} with 0 actions" in log.read_text()
    assert "2 agents wait" in log.read_text()


def test_trainer_of_another_protocol_is_refused(log: Path) -> None:
    with serving("--env", "ledger_env:LedgerEnv", cwd=HERE, log=log) as (trainer, process):
        trainer.greet(version="2.0.0")
        assert process.wait(WAIT_S) == 2
    assert "speaks protocol version '2.0.0'" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CartPolle-v1"], "Did you mean CartPole-v1"),
        (["ale/pong-v5"], "Did you mean ALE/Pong-v5"),  # of a package that nothing has imported
        (["Nothing.like.this"], "knows no environment of this id"),
        (["no_such_module:Env"], "there is no module 'no_such_module'"),
        (["ledger_env:LedgerEnw"], "Did you mean LedgerEnv"),
        (["ledger_env:a_number"], "a_number in .*ledger_env.py is a int"),
        (["ledger_env:not_an_environment"], "gave a builtins.object, expected a gymnasium.Env"),
        (["ledger_env:VolumeEnv"], r"\(8, 8, 8, 3\).* of rank 4. Supported are Box of rank 0 to 3"),
        (
            ["ledger_env:LedgerEnv", "--kwargs", '{"tel": 1}'],
            r"unexpected keyword argument 'tel'.*it takes \(tell: .*bool.* = False\)",
        ),
        (
            ["CartPole-v1", "--kwargs", '{"gravity": 1}'],
            r"gravity.*env_kwargs; it takes \(sutton_barto_reward",
        ),
        (
            ["ledger_env:LedgerEnv", "--video", "film.mp4"],
            r"It takes \(tell.*; to be filmed \(--video\), it has to take render_mode too",
        ),
        (["CartPole-v1", "--kwargs", "[1]"], "is no JSON object"),
        (["CartPole-v1", "--wrappers", "[1]"], "is no JSON list of names with their arguments"),
        (["CartPole-v1", "--wrappers", '[{"A": 1}]'], "is no JSON list of names"),
        (["CartPole-v1", "--wrappers", "{"], "is not JSON: "),
        (["CartPole-v1", "--wrappers", '["FrameStack"]'], "Did you mean FrameStackObservation"),
        (
            ["CartPole-v1", "--wrappers", '[{"FrameStackObservation": {"stack_sise": 4}}]'],
            "Did you mean 'stack_size'",
        ),
        (["CartPole-v1", "--num-areas", "0"], "whole number of at least 1"),
        (["CartPole-v1", "--num-aeras", "2"], "unrecognized arguments: --num-aeras 2"),
    ],
)
def test_mistakes_are_explained_and_end_with_two(
    log: Path, arguments: list[str], words: str
) -> None:
    with serving("--env", *arguments, cwd=HERE, log=log) as (_, process):
        assert process.wait(WAIT_S) == 2  # without a word to the trainer
    last_line = log.read_text().splitlines()[-1]
    assert re.search(words, last_line), log.read_text()
