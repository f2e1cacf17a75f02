"""Acting at the simulator, on the wire: what is assigned, what comes back, what must not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from one_simulator import fleet_and_client, pump, receive, receive_loss
from scripted_client import BEHAVIOR, agent, answer, bare, brain, greeting, step

from envs.batch import Actions, Choices
from envs.bridge import codec, limits
from envs.bridge.assignments import (
    Assignment,
    decode_assignment,
    decode_choices,
    encode_assignment,
    encode_choices,
    require_sound_choices,
)
from envs.bridge.client import PlayedStep, played_message
from envs.bridge.client_channels import write_stats
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import AgentInfoProto, UnityMessageProto
from envs.bridge.session import Session
from envs.bridge.side_channels import StatsAggregation, StatsMessage
from envs.bridge.simulator_message import NOTHING, SimulatorMessage
from envs.errors import BadDataError
from envs.graph_policy import PolicyGraph
from envs.lanes import LaneTable
from envs.spec import ActionSpec

NAN = float("nan")
SPEC = ActionSpec(2, (3,))
ACTOR = PolicyGraph(b"\x08\x0anot really ONNX", np.array([-0.5, 0.25], np.float32))


# Words on the wire.


def test_assignment_arrives_as_it_was_given() -> None:
    given = Assignment(17, {"Walker?team=0": ACTOR}, deterministic=True)
    message = columns_pb2.Message.FromString(encode_assignment(given, b"news"))
    found = decode_assignment(message.unity_input.assignment)
    assert (found.num_steps, found.deterministic) == (17, True)
    assert list(found.policies) == ["Walker?team=0"]
    assert found.policies["Walker?team=0"].model == ACTOR.model
    np.testing.assert_array_equal(found.policies["Walker?team=0"].log_std, [-0.5, 0.25])
    assert message.unity_input.rl_input.side_channel == b"news"
    assert message.header.status == 200


def test_assignment_without_a_policy_says_that_the_old_one_stays() -> None:
    message = columns_pb2.Message.FromString(encode_assignment(Assignment(1, {}), b""))
    assert decode_assignment(message.unity_input.assignment) == Assignment(1, {})


def test_assignment_of_no_steps_is_refused() -> None:
    with pytest.raises(BadDataError, match="assigned 0 steps; expected at least 1"):
        decode_assignment(columns_pb2.Assignment())


def choices_for(agents: Sequence[int], env_step: int) -> Choices:
    """Choices that reveal mix-ups: agent * 100 + env_step, and a fraction for the column."""
    number = np.array(agents, np.float32)[:, None] * 100 + env_step  # (N, 1)
    return Choices(
        (number + np.array([0.25, 0.5])).astype(np.float32),
        ((number + env_step) % 3).astype(np.int64),
        -(number + np.array([0.125, 0.375, 0.625])).astype(np.float32),
    )


def test_choices_arrive_as_they_were_made() -> None:
    given = choices_for([4, 5, 7], 3)
    found = decode_choices(BEHAVIOR, encode_choices(given), SPEC, 3)
    for name in ("continuous", "discrete", "log_probs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
        assert getattr(found, name).dtype == getattr(given, name).dtype


def changed(**columns: Any) -> columns_pb2.Choices:
    columns = {name: np.array(value) for name, value in columns.items()}
    return encode_choices(dataclasses.replace(choices_for([4, 5], 3), **columns))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            encode_choices(choices_for([4, 5, 6], 3)),
            r"\[6, 3, 9\] numbers .* found, \[4, 2, 6\] expected for 2 agents",
        ),
        (columns_pb2.Choices(), r"\[0, 0, 0\] numbers .* \[4, 2, 6\] expected"),
        (changed(log_probs=np.zeros((2, 2))), r"\[4, 2, 4\] numbers"),
        (columns_pb2.Choices(continuous=bytes(15)), r"\[3, 0, 0\] numbers"),
        (changed(continuous=[[1, NAN], [0, 0]]), "chose an action, .* NaN or infinite"),
        (changed(log_probs=[[0, 0, -np.inf], [0, 0, 0]]), "log-probability, that is NaN or inf"),
        (changed(discrete=[[0], [3]]), r"a branch index outside its branches of sizes \[3\]"),
        (changed(discrete=[[-1], [0]]), r"a branch index outside its branches of sizes \[3\]"),
    ],
    ids=["many", "none", "few", "odd", "nan", "infinite", "too high", "too low"],
)
def test_bad_choices_are_refused(found: columns_pb2.Choices, words: str) -> None:
    with pytest.raises(BadDataError, match=f"behaviour 'Walker.team=0': .*{words}"):
        choices = decode_choices(BEHAVIOR, found, SPEC, 2)
        require_sound_choices(BEHAVIOR, choices, SPEC)


# A session.

Story = list[list[AgentInfoProto]]  # the agents of each env_step


def story() -> Story:
    """Episodes that end, begin, are cut short, and are dropped for a NaN in the middle."""

    def one(number: int, env_step: int, **words: Any) -> AgentInfoProto:
        value = float(number * 100 + env_step)
        return agent(number, (value, -value), reward=value, **words)

    broken = agent(2, (NAN, 0.0))
    return [
        [one(1, 0), one(2, 0), one(3, 0)],
        [one(1, 1), one(2, 1), one(3, 1, done=True), one(4, 1)],
        [one(1, 2), broken, one(4, 2)],
        [one(2, 3), one(1, 3, done=True, max_step_reached=True), one(4, 3), one(5, 3)],
        [one(2, 4, done=True), one(6, 4), one(4, 4), one(5, 4)],
        [one(6, 5), one(4, 5, done=True), one(4, 5), one(5, 5)],  # an id that is used again
    ]


def waiting(agents: Sequence[AgentInfoProto]) -> list[int]:
    return [info.id for info in agents if not info.done]


def stat(value: float) -> bytes:
    """Bytes of the statistics channel."""
    return write_stats([StatsMessage("Height", value, StatsAggregation.AVERAGE)])


def acted(steps: Story, first_step: int) -> columns_pb2.Message:
    """What a simulator says that has made env_steps by itself, the first after `first_step` - 1."""
    all_steps = story()
    played = []
    for number, agents in enumerate(steps, start=first_step):
        (said,) = step({BEHAVIOR: agents}).unity_output.rl_output.agentInfos.values()
        before = waiting(all_steps[number - 1])
        played.append(
            PlayedStep(choices_for(before, number), said.SerializeToString(), stat(number))
        )
    return columns_pb2.Message.FromString(played_message(BEHAVIOR, played))


def begun(max_bad_episodes: int = 5, lanes: LaneTable | None = None) -> tuple[Session, LaneTable]:
    """A session whose simulator has said what its agents see first."""
    lanes = LaneTable() if lanes is None else lanes
    session = Session(0, lanes, max_bad_episodes)
    session.greet(session.parse(greeting().SerializeToString()), 1, 1)
    session.reset(b"")
    message = step({BEHAVIOR: story()[0]}, [brain(num_continuous=2, branches=[3])])
    session.step(session.parse(message.SerializeToString()))
    return session, lanes


def assigned(session: Session, steps: Story, first_step: int) -> list[SimulatorMessage]:
    """Assigns env_steps; gives what is heard of them, one by one."""
    session.assign(Assignment(len(steps), {}), b"")
    heard = session.step(acted(steps, first_step))
    return [*heard.earlier, heard._replace(earlier=())]


def require_same(found: Any, expected: Any, where: str = "") -> None:
    """Compares messages down to every number."""
    assert type(found) is type(expected), where
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, where
        np.testing.assert_array_equal(found, expected, where)
    elif dataclasses.is_dataclass(expected):
        for one in dataclasses.fields(expected):
            require_same(getattr(found, one.name), getattr(expected, one.name), one.name)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            require_same(found[key], expected[key], f"{where}[{key}]")
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected), where
        for one_found, one_expected in zip(found, expected, strict=True):
            require_same(one_found, one_expected, where)
    else:
        assert found == expected, where


@pytest.mark.parametrize("cuts", [(6,), (2, 6), (3, 4, 6)], ids=str)
def test_env_steps_in_one_message_equal_the_same_ones_in_many(cuts: tuple[int, ...]) -> None:
    session, _ = begun()
    one_by_one = [assigned(session, [agents], t)[0] for t, agents in enumerate(story()) if t]
    other, _ = begun()
    at_once: list[SimulatorMessage] = []
    for start, end in zip((1, *cuts), cuts, strict=False):
        at_once += assigned(other, story()[start:end], start)
    require_same(at_once, one_by_one)
    # And this is what they say.
    ended = [message.terminals.get(BEHAVIOR) for message in one_by_one]
    assert [None if t is None else t.agent_id.tolist() for t in ended] == [
        [3],
        None,
        [1],
        None,
        [4],
    ]
    assert ended[2] is not None
    assert (ended[2].truncated.tolist(), ended[2].reward.tolist()) == ([True], [103.0])
    asked = [message.decisions[BEHAVIOR] for message in one_by_one]
    assert [d.agent_id.tolist() for d in asked] == [
        [1, 2, 4], [1, 4], [4, 5], [6, 4, 5], [6, 4, 5]
    ]  # fmt: skip
    assert [len(message.dropped) for message in one_by_one] == [0, 1, 0, 0, 0]
    assert [s.value for message in one_by_one for s in message.stats] == [1, 2, 3, 4, 5]
    # Agent 2 is not heard from env_step 2 on, so what was chosen for it does not count.
    chose = [
        [divmod(int(number), 100) for number in message.choices[BEHAVIOR].continuous[:, 0]]
        for message in one_by_one
    ]
    assert chose == [
        [(1, 1), (2, 1), (3, 1)],
        [(1, 2), (2, 2), (4, 2)],
        [(1, 3), (4, 3)],
        [(4, 4), (5, 4)],
        [(6, 5), (4, 5), (5, 5)],
    ]


def test_acted_env_steps_say_what_answered_ones_do_and_the_choices_on_top() -> None:
    session, _ = begun()
    there = assigned(session, story()[1:], 1)
    central, _ = begun()
    for message, agents in zip(there, story()[1:], strict=True):
        central.answer({}, b"")
        data = step({BEHAVIOR: agents}).SerializeToString()
        answered = central.step(central.parse(data))
        assert answered.choices == {}
        require_same(message._replace(choices=NOTHING, stats=()), answered)


def test_trainer_can_answer_again_after_an_assignment() -> None:
    session, _ = begun()
    assigned(session, story()[1:3], 1)  # agents 1, 2 and 4 ask; 2 is not heard
    given = Actions(np.array([[1, 1], [4, 4]], np.float32), np.array([[1], [2]], np.int32))
    message = UnityMessageProto.FromString(session.answer({BEHAVIOR: given}, b""))
    rows = message.unity_input.rl_input.agent_actions[BEHAVIOR].value
    assert [list(row.continuous_actions) for row in rows] == [[1, 1], [0, 0], [4, 4]]
    assert [list(row.discrete_actions) for row in rows] == [[1], [0], [2]]


def without_choices(message: columns_pb2.Message) -> None:
    message.unity_output.played[0].choices.clear()


def without_last_choices(message: columns_pb2.Message) -> None:
    message.unity_output.choices.clear()


def without_one_step(message: columns_pb2.Message) -> None:
    del message.unity_output.played[1]


def central(message: columns_pb2.Message) -> None:
    del message.unity_output.played[:]
    message.unity_output.choices.clear()


def with_news(message: columns_pb2.Message) -> None:
    message.unity_output.rl_initialization_output.brain_parameters.add(brain_name="Late?team=0")


def with_an_intruder(message: columns_pb2.Message) -> None:
    first = message.unity_output.played[0].rl_output
    first.agent_infos["Intruder?team=0"] = first.agent_infos[BEHAVIOR]


def with_choices_of_an_intruder(message: columns_pb2.Message) -> None:
    last = message.unity_output
    last.choices["Intruder?team=0"].CopyFrom(last.choices[BEHAVIOR])


def with_choices_of_nobody(message: columns_pb2.Message) -> None:
    """Nobody is there after the first env_step, and yet there are choices."""
    message.unity_output.played[0].rl_output.agent_infos.clear()


def with_a_crowd(message: columns_pb2.Message) -> None:
    for number in range(limits.MOST_BEHAVIORS):
        message.unity_output.played[0].rl_output.agent_infos[f"B{number}"] = b""


def for_other_agents(message: columns_pb2.Message) -> None:
    message.unity_output.played[0].choices[BEHAVIOR].CopyFrom(
        encode_choices(choices_for([1, 2], 1))
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_choices, r"choices of \[0, 0, 0\] numbers .* \[6, 3, 9\] expected for 3 agents"),
        (without_last_choices, r"choices of \[0, 0, 0\] numbers .* expected for 3 agents"),
        (without_one_step, "2 env_steps with actions of its own found, 3 expected"),
        (central, "0 env_steps with actions of its own found, 3 expected"),
        (with_news, "brain parameters found in a message of assigned env_steps, none expected"),
        (
            with_an_intruder,
            r"of behaviour 'Intruder\?team=0' found .* those of 'Walker\?team=0' expected",
        ),
        (with_choices_of_an_intruder, r"of behaviour 'Intruder\?team=0' found .* those of 'Walker"),
        (
            with_choices_of_nobody,
            r"choices of \[6, 3, 9\] numbers .* \[0, 0, 0\] expected for 0 agents",
        ),
        (with_a_crowd, "of 257 behaviours found in one env_step, at most 256 expected"),
        (for_other_agents, r"choices of \[4, 2, 6\] numbers"),
    ],
)
def test_what_was_not_assigned_so_is_bad_data(
    spoil: Callable[[columns_pb2.Message], None], words: str
) -> None:
    session, _ = begun()
    message = acted(story()[1:4], 1)
    spoil(message)
    session.assign(Assignment(3, {}), b"")
    with pytest.raises(BadDataError, match=words):
        session.step(message)


def test_simulator_of_two_behaviours_is_given_no_more_assignments() -> None:
    session, _ = begun()
    session.can_act = True  # as its greeting says
    assigned(session, story()[1:3], 1)
    assert session.can_act
    session.answer({}, b"")
    late = step({BEHAVIOR: story()[2], "Late?team=0": [agent(1)]}, [brain("Late?team=0")])
    session.step(session.parse(late.SerializeToString()))
    assert not session.can_act


def test_env_steps_of_one_message_share_its_limit_of_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGEST_MASKS", 3 * 17)  # 17 agents with a branch of 3
    session, _ = begun()
    assert session.most_steps == 17 // (2 * 3)  # all three may end in each
    session.assign(Assignment(3, {}), b"")
    session.step(acted(story()[1:4], 1))
    monkeypatch.setattr(limits, "LARGEST_MASKS", 3 * 8)
    session, _ = begun()
    session.assign(Assignment(3, {}), b"")
    with pytest.raises(BadDataError, match="at most 2 expected"):
        session.step(acted(story()[1:4], 1))


@pytest.mark.parametrize("num_steps", [1, 2])
def test_simulator_that_acts_unasked_is_bad_data(num_steps: int) -> None:
    session, _ = begun()
    session.answer({}, b"")
    with pytest.raises(BadDataError, match=f"{num_steps} env_steps with actions of its own found"):
        session.step(acted(story()[1 : 1 + num_steps], 1))


# Losses in the middle.


def test_loss_in_the_middle_of_a_message_voids_agents_that_ended_before_in_it() -> None:
    """The trainer has not heard that agent 3 ended: its row must not be another agent's later."""
    with fleet_and_client(max_bad_episodes=0) as (fleet, client):
        hello = columns_pb2.Message.FromString(greeting().SerializeToString())
        hello.unity_output.can_act = True
        pump(fleet, client.send_bytes(hello.SerializeToString()))
        pump(fleet, client.send(bare()))
        assert fleet.can_act(0)
        first = step({BEHAVIOR: story()[0]}, [brain(num_continuous=2, branches=[3])])
        future = client.send(first)
        known = receive(fleet).decisions[BEHAVIOR].lane
        fleet.assign(0, Assignment(3, {}))
        assert answer(future).header.status == 200
        client.send_bytes(acted(story()[1:4], 1).SerializeToString())
        loss = receive_loss(fleet)
        assert "sensor 'Vector' holds nan at index 0" in str(loss.error)
        assert set(known.tolist()) <= set(loss.lanes["Walker"].tolist())
        assert len(known) == 3


def test_lanes_of_a_lost_message_are_used_again_once_each() -> None:
    session, lanes = begun(max_bad_episodes=0)
    session.assign(Assignment(3, {}), b"")
    with pytest.raises(BadDataError):
        session.step(acted(story()[1:4], 1))
    void = lanes.clear([0])["Walker"].tolist()
    assert sorted(set(void)) == sorted(void)
    lanes.recycle()
    again = lanes.agents(0, BEHAVIOR, "Walker").of_decisions(np.arange(6, dtype=np.int32))
    assert sorted(again.tolist()) == list(range(6))


def test_endings_that_the_trainer_has_heard_of_are_not_void_again() -> None:
    session, lanes = begun()
    heard = assigned(session, story()[1:4], 1)
    ended = heard[0].terminals[BEHAVIOR].lane.tolist()
    lanes.recycle()
    assert not set(ended) & set(lanes.clear([0])["Walker"].tolist())


def test_reset_in_the_middle_of_an_assignment_lets_it_be_forgotten() -> None:
    session, _ = begun()
    session.assign(Assignment(3, {}), b"")
    session.skip(acted(story()[1:4], 1))
    session.reset(b"")
    data = step({BEHAVIOR: story()[0]}).SerializeToString()
    heard = session.step(session.parse(data))
    assert (heard.choices, heard.earlier) == ({}, ())


# Trainers that know nothing of it.


def test_ordinary_readers_see_the_last_env_step_and_skip_the_rest() -> None:
    message = acted(story()[1:4], 1)
    seen = UnityMessageProto.FromString(message.SerializeToString()).unity_output
    (agents,) = seen.rl_output.agentInfos.values()
    assert [info.id for info in agents.value] == [2, 1, 4, 5]
    assert seen.rl_output.side_channel == stat(3)


def test_every_env_step_of_a_message_is_decoded_ahead_and_none_of_one_that_is_refused() -> None:
    session, _ = begun()
    data = acted(story()[1:4], 1).SerializeToString()
    decoders = {BEHAVIOR: session._behaviors[BEHAVIOR].decoder}
    found = [step[BEHAVIOR] for step in codec.decode_lists(data, decoders, 3)]
    ids = [[] if table is None else table.agent_id.tolist() for table in found]
    assert ids == [[agent.id for agent in agents] for agents in story()[1:4]]
    assert codec.decode_lists(data, decoders, 1) == []
