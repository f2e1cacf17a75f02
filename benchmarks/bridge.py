"""What the bridge costs: from a simulator's bytes to columns, and from actions back to bytes.

    python -m benchmarks.bridge            prints the table and writes results/bridge.json
    python -m benchmarks.bridge --json     prints the same as JSON

The peer is ordinary protobuf: the same messages parsed and answered by field access, as
mlagents-envs does it, in turn with ours. Round trips are those of a fleet with null simulators in
processes of their own, over gRPC, answered with actions made before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks import machine, report
from envs.batch import Actions, Float32
from envs.bridge.proto.communicator_pb2 import BrainParametersProto, UnityMessageProto
from envs.bridge.session import Session
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorMessage
from envs.lanes import LaneTable

BEHAVIOR = "Walker?team=0"
NUM_OBSERVATIONS, NUM_CONTINUOUS = 243, 39
FIRST_ID = 1000
MUST_US = {10: 2.5, 100: 0.6}
ALL_GO_ON, ONE_END = "all go on", "one of 20 messages with an end"
SPARSE_REWARDS, ANY_SUBSET = "sparse rewards", "any subset"
KINDS = {ALL_GO_ON: 8, ONE_END: 20, SPARSE_REWARDS: 64, ANY_SUBSET: 64}  # different messages
REQUIRED = (ALL_GO_ON, SPARSE_REWARDS)
REWARD_CHANCE = 0.3
MESSAGES_PER_ROUND = 64
ROUND_TRIPS = ((1, 10), (4, 10), (1, 100), (4, 100))  # simulators, agents


def message(num_agents: int, seed: int, kind: str, with_brain: bool = False) -> bytes:
    """Gives a Walker-shaped message of one of KINDS, as Unity writes it."""
    generator = np.random.default_rng(seed)
    built = UnityMessageProto()
    built.header.status = 200
    if with_brain:
        brain = BrainParametersProto(brain_name=BEHAVIOR)
        brain.action_spec.num_continuous_actions = NUM_CONTINUOUS
        built.unity_output.rl_initialization_output.brain_parameters.append(brain)
    rows = [*range(num_agents)]
    if kind == ANY_SUBSET:
        size = int(generator.integers(1, num_agents + 1))
        rows = sorted(generator.choice(num_agents, size, replace=False).tolist())
    agents = built.unity_output.rl_output.agentInfos[BEHAVIOR].value
    for row in rows:
        agent = agents.add(id=FIRST_ID + row, reward=0.1 + row)
        agent.done = kind == ONE_END and seed % 20 == 19 and row == num_agents // 2
        if kind == SPARSE_REWARDS and generator.random() > REWARD_CHANCE:
            agent.reward = 0.0  # proto3 leaves it out: another structure almost every time
        observation = agent.observations.add(shape=[NUM_OBSERVATIONS], dimension_properties=[1])
        observation.name = f"StackingSensor_size1_VectorSensor_size{NUM_OBSERVATIONS}"
        observation.float_data.data.extend(generator.standard_normal(NUM_OBSERVATIONS).tolist())
    return built.SerializeToString()


class Ours:
    """The session of one simulator: envelope, columns, lanes, answer."""

    def __init__(self, num_agents: int, actions: Float32) -> None:
        self._session = Session(0, LaneTable())
        discrete = np.empty((num_agents, 0), np.int32)
        self._actions = {
            num_rows: {BEHAVIOR: Actions(actions[:num_rows], discrete[:num_rows])}
            for num_rows in range(1, num_agents + 1)
        }
        first = message(num_agents, 0, ALL_GO_ON, with_brain=True)
        self._session.step(self._session.parse(first))
        self._session.answer({}, b"")

    def __call__(self, data: bytes) -> bytes:
        """Decodes a message and encodes its answer."""
        decoded = self._session.step(self._session.parse(data))
        actions = self._actions[len(decoded.decisions[BEHAVIOR])]
        return self._session.answer(actions, b"")


class Ordinary:
    """The same by field access."""

    def __init__(self, actions: Float32) -> None:
        self._actions = actions

    def __call__(self, data: bytes) -> bytes:
        """Decodes a message and encodes its answer."""
        agents = UnityMessageProto.FromString(data).unity_output.rl_output.agentInfos[BEHAVIOR]
        going = [agent for agent in agents.value if not agent.done]
        np.array([agent.observations[0].float_data.data for agent in going], np.float32)
        np.array([agent.reward for agent in going], np.float32)
        np.array([agent.id for agent in going], np.int32)
        answer = UnityMessageProto()
        answer.header.status = 200
        listed = answer.unity_input.rl_input.agent_actions[BEHAVIOR].value
        for row in self._actions[: len(going)]:
            numbers = row.tolist()
            action = listed.add()
            action.vector_actions_deprecated.extend(numbers)
            action.continuous_actions.extend(numbers)
        return answer.SerializeToString()


def require_same_answers(ours: Ours, peer: Ordinary, messages: Sequence[bytes]) -> None:
    """Raises RuntimeError unless both answer every message alike."""
    for data in messages:
        found, expected = (UnityMessageProto.FromString(by(data)) for by in (ours, peer))
        if found != expected:
            raise RuntimeError("the two ways answer differently; their times mean nothing")


def num_rows(data: bytes) -> int:
    """Counts the agents of a message."""
    agents = UnityMessageProto.FromString(data).unity_output.rl_output.agentInfos[BEHAVIOR].value
    return len(agents)


def microseconds(answer: Callable[[bytes], bytes], messages: Sequence[bytes]) -> float:
    """Times one round and gives microseconds of processor time per message."""
    started = time.thread_time()
    for turn in range(MESSAGES_PER_ROUND):
        answer(messages[turn % len(messages)])
    return (time.thread_time() - started) * 1e6 / MESSAGES_PER_ROUND


def measure_codec(num_agents: int, num_rounds: int) -> tuple[list[report.TableRow], object]:
    """Times decoding and encoding, ours and the peer's in turn."""
    actions = np.random.default_rng(0).uniform(-1, 1, (num_agents, NUM_CONTINUOUS))
    rows, raw = [], {}
    for what, num_messages in KINDS.items():
        messages = [message(num_agents, seed, what) for seed in range(num_messages)]
        sizes = [num_rows(data) for data in messages]
        num_steps = statistics.mean(
            sizes[turn % num_messages] for turn in range(MESSAGES_PER_ROUND)
        )
        ours = Ours(num_agents, actions.astype(np.float32))
        peer = Ordinary(actions.astype(np.float32))
        require_same_answers(ours, peer, messages)
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(num_rounds):
            times["ours"].append(microseconds(ours, messages) / num_steps)
            times["peer"].append(microseconds(peer, messages) / num_steps)
        middle = {who: statistics.median(values) for who, values in times.items()}
        must = MUST_US[num_agents] if what in REQUIRED else None
        rows.append(
            report.TableRow(
                work=f"decode + encode, Walker, {num_agents} agents per message, {what}",
                ours=f"{middle['ours']:.2f} us per agent-step",
                peer=f"protobuf by fields {middle['peer']:.2f} us",
                ratio=round(middle["peer"] / middle["ours"], 1),
                must="" if must is None else f"< {must} us",
                met=None if must is None else middle["ours"] < must,
            )
        )
        raw[f"{num_agents} agents, {what}"] = {
            who: [round(value, 4) for value in values] for who, values in times.items()
        }
    return rows, raw


def measure_round_trips(
    num_simulators: int, num_agents: int, seconds: float
) -> tuple[report.TableRow, object]:
    """Runs a fleet of null simulators and counts agent-steps."""
    shape = ["--observations", str(NUM_OBSERVATIONS), "--continuous", str(NUM_CONTINUOUS)]
    command = [sys.executable, "-m", "envs.testing.null", *shape, "--behavior", BEHAVIOR]
    launch = LaunchPlan(command=(*command, "--agents", str(num_agents)), kind="gym")
    actions = np.zeros((num_agents, NUM_CONTINUOUS), np.float32)
    answer = {BEHAVIOR: Actions(actions, np.empty((num_agents, 0), np.int32))}
    with (
        tempfile.TemporaryDirectory(prefix="ppo-train-bench-") as folder,
        Fleet(
            FleetPlan(launch=launch, num_simulators=num_simulators, logs_dir=Path(folder))
        ) as fleet,
    ):
        num_steps, started, warm = 0, time.perf_counter(), set[int]()
        while len(warm) < num_simulators or time.perf_counter() - started < seconds:
            for item in fleet.recv():
                if not isinstance(item, SimulatorMessage):
                    raise item.error
                if len(warm) < num_simulators:  # count from when the last one has come
                    warm.add(item.simulator)
                    num_steps, started = 0, time.perf_counter()
                num_steps += num_agents
                fleet.send(item.simulator, answer)
        rate = num_steps / (time.perf_counter() - started)
    row = report.TableRow(
        work=f"round trips, Walker, {num_simulators} null simulators x {num_agents} agents",
        ours=f"{rate:,.0f} agent-steps/s",
        peer="",
        ratio=None,
        must="",
        met=None,
    )
    return row, {"agent_steps_per_s": round(rate), "seconds": seconds}


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each round trip figure")
    parser.add_argument("--json", action="store_true", help="print JSON, and write no file")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    about = machine.describe()
    report.warn_if_busy(about)
    rows: list[report.TableRow] = []
    raw: dict[str, object] = {}
    for num_agents in MUST_US:
        found, times = measure_codec(num_agents, options.rounds)
        rows += found
        raw[f"codec, {num_agents} agents"] = times
    for num_simulators, num_agents in ROUND_TRIPS:
        row, figures = measure_round_trips(num_simulators, num_agents, options.seconds)
        rows.append(row)
        raw[row.work] = figures
    if options.json:
        document = {"machine": about, "table": [asdict(row) for row in rows], "measurements": raw}
        print(json.dumps(document, indent=1))
    else:
        report.publish("bridge", about, rows, raw, options.results)


if __name__ == "__main__":
    main()
