"""A trainer made of plain gRPC and ordinary protobuf: the far side of the agent's process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import grpc

from envs.bridge.proto.communicator_pb2 import (
    RESET,
    AgentInfoProto,
    BrainParametersProto,
    UnityMessageProto,
    UnityRLInitializationOutputProto,
)
from envs.bridge.protocol import METHOD, SERVICE

WAIT_S = 60.0


class PlainTrainer:
    """Calls of the simulator come one by one; each has to be answered."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[UnityMessageProto] = SimpleQueue()
        self._answers: SimpleQueue[UnityMessageProto] = SimpleQueue()
        handler = grpc.unary_unary_rpc_method_handler(
            self._exchange, UnityMessageProto.FromString, UnityMessageProto.SerializeToString
        )
        self._server = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.brains: list[BrainParametersProto] = []
        self.side_channel = b""  # of the last message

    def _exchange(
        self, request: UnityMessageProto, context: grpc.ServicerContext
    ) -> UnityMessageProto:
        self._calls.put(request)
        return self._answers.get()

    def greet(
        self, seed: int = 1, num_areas: int = 1, version: str = "1.5.0"
    ) -> UnityRLInitializationOutputProto:
        """Answers the first call and gives what it said."""
        hello = self.hello = self._calls.get(timeout=WAIT_S)
        answer = UnityMessageProto()
        answer.header.status = 200
        welcome = answer.unity_input.rl_initialization_input
        welcome.seed, welcome.num_areas, welcome.communication_version = seed, num_areas, version
        self._answers.put(answer)
        return hello.unity_output.rl_initialization_output

    def begin(self, side_channel: bytes = b"") -> list[AgentInfoProto]:
        """Answers the second call with a reset and gives the agents' first words."""
        call = self._calls.get(timeout=WAIT_S)
        assert not call.HasField("unity_output")
        return self.reset(side_channel)

    def reset(self, side_channel: bytes = b"") -> list[AgentInfoProto]:
        """Answers with a reset."""
        answer = UnityMessageProto()
        answer.header.status = 200
        answer.unity_input.rl_input.command = RESET
        answer.unity_input.rl_input.side_channel = side_channel
        self._answers.put(answer)
        return self._agents()

    def step(
        self, behavior_id: str, branches: Sequence[int], side_channel: bytes = b""
    ) -> list[AgentInfoProto]:
        """Answers with one discrete action for each agent that asked; gives what comes next."""
        self.answer(behavior_id, branches, side_channel)
        return self._agents()

    def answer(self, behavior_id: str, branches: Sequence[int], side_channel: bytes = b"") -> None:
        """Answers like `step`, but expects no further call."""
        answer = UnityMessageProto()
        answer.header.status = 200
        answer.unity_input.rl_input.side_channel = side_channel
        for branch in branches:
            action = answer.unity_input.rl_input.agent_actions[behavior_id].value.add()
            action.discrete_actions.append(branch)
        self._answers.put(answer)

    def close(self) -> None:
        """Answers with goodbye."""
        answer = UnityMessageProto()
        answer.header.status = 400
        self._answers.put(answer)

    def vanish(self) -> None:
        """Stops without a word, as a killed trainer does."""
        stopped = self._server.stop(grace=None)
        self._answers.put(UnityMessageProto())  # lets the server's thread end
        stopped.wait()

    def _agents(self) -> list[AgentInfoProto]:
        output = self._calls.get(timeout=WAIT_S).unity_output
        self.brains += output.rl_initialization_output.brain_parameters
        self.side_channel = output.rl_output.side_channel
        (agents,) = output.rl_output.agentInfos.values()
        return list(agents.value)


@contextmanager
def serving(
    *arguments: str, cwd: Path, log: Path
) -> Iterator[tuple[PlainTrainer, subprocess.Popen[bytes]]]:
    """Starts `python -m envs.gym` with a trainer for it; ends what is left of both."""
    trainer = PlainTrainer()
    command = [sys.executable, "-m", "envs.gym", *arguments, "--mlagents-port", str(trainer.port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=output)
        try:
            yield trainer, process
        finally:
            process.kill()
            process.wait()
            trainer.vanish()
