"""The control endpoint by itself: a loop of the test's own stands for the run's."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trainer.config.errors import ConfigError
from trainer.config.settings import ControlSettings
from trainer.control import LONG_PART_LIMIT_S, MOST_QUEUED, Command, Control, Pulse
from trainer.control_client import (
    Address,
    CommandError,
    command,
    live_address,
    read_address,
)
from trainer.reporter import BehaviorProgress, RunProgress, Speed

PROGRESS = RunProgress(
    behaviors=(
        BehaviorProgress("Walker", 1200, 5000, 3.5, 40.0),
        BehaviorProgress('Odd "name"\n', 7, 10, None, None),
    ),
    steps_per_s=250.5,
    elapsed_s=61.0,
    left_s=None,
    shares={"learning": 0.25, "simulators": 0.75},
    num_simulators=3,
    last_checkpoint="results/run/Walker/Walker-1000.pt",
    num_restarts=2,
    num_checkpoints=4,
    is_paused=True,
)


def test_commands_are_answered_at_once_when_the_loop_is_over(tmp_path: Path) -> None:
    control = opened(tmp_path)
    with control:
        control.publish(PROGRESS)
        address = address_of(tmp_path)
        waiting = {}
        asking = {  # they come while the loop is busy with its last turn
            verb: threading.Thread(
                target=lambda verb=verb: waiting.update({verb: told(address, verb)})
            )
            for verb in ("stop", "export")
        }
        for thread in asking.values():
            thread.start()
        while control._queue.qsize() < len(asking):
            pass
        with control.ending("sweeps", PROGRESS):
            for thread in asking.values():
                thread.join(10)
            later = {verb: told(address, verb) for verb in ("stop", "set", "pause", "continue")}
            status = told(address, "status")
        between = told(address, "stop")
    refusal = "`{}` was not carried out: Run 'run' is stopping. It sweeps."
    assert waiting == {
        "stop": "Run 'run' is already stopping: it sweeps.",
        "export": refusal.format("export"),
    }
    assert later == {
        "stop": "Run 'run' is already stopping: it sweeps.",
        **{verb: refusal.format(verb) for verb in ("set", "pause", "continue")},
    }
    assert "s ago: it is stopping. It sweeps.\nWalker: step 1,200 of 5,000" in status
    assert "0 steps/s" in status  # not paused, nor at the pace of before
    assert between == "Run 'run' is already stopping: it closes its simulators."


def told(address: Address, verb: str) -> str:
    """Asks over the real endpoint; gives what it says, carried out or not."""
    try:
        return command(address, verb, {})
    except CommandError as error:
        return str(error)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def opened(logs: Path, port: int | None = 0) -> Control:
    return Control(ControlSettings(port=port, stall_limit_s=60), "run", logs)


def address_of(logs: Path) -> Address:
    address = read_address(logs / "control.json")
    assert address is not None
    return address


def asked(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


@contextmanager
def loop_that_says(control: Control, reply: str | Exception) -> Iterator[list[object]]:
    """Takes commands as a run does, until the block ends; gives what was taken."""
    taken: list[object] = []
    is_over = threading.Event()

    def turn() -> None:
        while not is_over.wait(0.01):
            for order in control.take():
                taken.append((order.verb, dict(order.arguments), threading.current_thread().name))
                if isinstance(reply, Exception):
                    order.reply.set_exception(reply)
                else:
                    order.reply.set_result(reply)

    thread = threading.Thread(target=turn, name="loop")
    thread.start()
    try:
        yield taken
    finally:
        is_over.set()
        thread.join()


def test_without_a_port_nothing_listens_and_no_file_appears(tmp_path: Path) -> None:
    before = threading.active_count()
    with opened(tmp_path, None) as control:
        assert control.port is None
        assert threading.active_count() == before
        assert list(control.take()) == []
    assert list(tmp_path.iterdir()) == []


def test_file_says_where_is_the_owners_alone_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    with opened(tmp_path) as control:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        document = json.loads(path.read_text())
        assert document["port"] == control.port
        assert document["pid"] == os.getpid()
        assert len(document["token"]) >= 40
        assert address_of(tmp_path).answers()
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        places = [line.split()[1] for line in lines if line.split()[3] == "0A"]
        mine = [place for place in places if place.endswith(f":{control.port:04X}")]
        assert mine == [f"0100007F:{control.port:04X}"]


def test_file_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    stale = Address("run", done.pid, 1, "old")
    stale.write(tmp_path / "control.json")
    assert live_address(tmp_path.parent) is None
    with opened(tmp_path):
        assert address_of(tmp_path).token != "old"


def test_file_whose_pid_and_port_are_others_by_now_is_stale(tmp_path: Path) -> None:
    """The worst a kill can leave: both numbers are in use again, by someone else."""
    logs, others = tmp_path / "run_logs", tmp_path / "others"
    with opened(others) as other:
        assert other.port is not None
        stale = Address("run", os.getppid(), other.port, "not its token")
        stale.write(logs / "control.json")
        assert live_address(tmp_path) is None
        with opened(logs):
            assert address_of(logs).port != other.port


def test_second_start_of_a_running_run_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        mine = address_of(tmp_path)
        # Another process has the same answer to give: only its number differs.
        Address(mine.run_id, os.getppid(), mine.port, mine.token).write(tmp_path / "control.json")
        with pytest.raises(ConfigError, match=r"'run' is running already .*ppo-train stop"):
            opened(tmp_path).__enter__()


def test_end_leaves_the_file_of_another_run_alone(tmp_path: Path) -> None:
    other = Address("run", 1, 1, "other")
    with opened(tmp_path):
        other.write(tmp_path / "control.json")
    assert address_of(tmp_path) == other


def test_port_in_use_is_a_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"control_settings.port is {port}, but nothing can"):
            opened(tmp_path, port).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_health_follows_the_loop_and_not_the_length_of_an_update() -> None:
    clock = Clock()
    pulse = Pulse(60.0, clock)
    clock.now_s += 59
    assert pulse.reading() == (59.0, 60.0)
    clock.now_s += 2
    assert pulse.reading() == (61.0, 60.0)  # it hangs
    pulse.beat()
    with pulse.long_part():
        clock.now_s += 1800  # an update of half an hour
        assert pulse.reading() == (1800.0, LONG_PART_LIMIT_S)
    assert pulse.reading() == (0.0, 60.0)  # and its end is a sign of life


def test_healthz_says_503_when_the_loop_hangs(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        clock = Clock()
        control.pulse = Pulse(60.0, clock)
        clock.now_s += 12
        code, body = asked(control.port, "GET", "/healthz")
        assert code == 200
        assert json.loads(body) == {"is_alive": True, "loop_age_s": 12.0, "limit_s": 60.0}
        clock.now_s += 50
        code, body = asked(control.port, "GET", "/healthz")
        assert code == 503
        assert json.loads(body)["loop_age_s"] == 62.0


def test_metrics_are_read_by_prometheus_own_parser(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        control.publish(PROGRESS)
        code, body = asked(control.port, "GET", "/metrics")
    assert code == 200
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    age_s = found.pop(("ppo_train_loop_age_seconds",))
    assert 0 <= age_s < 60
    assert found == {
        ("ppo_train_commands_queued",): 0,
        ("ppo_train_steps_total", "Walker"): 1200,
        ("ppo_train_steps_total", 'Odd "name"\n'): 7,
        ("ppo_train_max_steps", "Walker"): 5000,
        ("ppo_train_max_steps", 'Odd "name"\n'): 10,
        ("ppo_train_mean_reward", "Walker"): 3.5,
        ("ppo_train_mean_episode_length", "Walker"): 40,
        ("ppo_train_steps_per_second",): 250.5,
        ("ppo_train_elapsed_seconds",): 61,
        ("ppo_train_time_share", "learning"): 0.25,
        ("ppo_train_time_share", "simulators"): 0.75,
        ("ppo_train_simulators_alive",): 3,
        ("ppo_train_paused",): 1,
        ("ppo_train_simulator_restarts_total",): 2,
        ("ppo_train_checkpoints_total",): 4,
    }


def test_metrics_have_what_is_known_of_the_last_summarys_speed(tmp_path: Path) -> None:
    speed = Speed(500.0, None, 12.5, 3.25)
    with opened(tmp_path) as control:
        assert control.port is not None
        control.publish(replace(PROGRESS, speed=speed, bottleneck="all simulators: balanced"))
        _, body = asked(control.port, "GET", "/metrics")
        status = told(address_of(tmp_path), "status")
    lines = body.splitlines()
    assert "ppo_train_collecting_steps_per_second 500.0" in lines
    assert "ppo_train_decisions_per_forward_pass 12.5" in lines
    assert "ppo_train_idle_cores 3.25" in lines
    assert "ppo_train_update_seconds" not in body
    assert "up to the last summary: all simulators: balanced" in str(status)


def test_metrics_before_the_first_turn_have_what_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        code, body = asked(control.port, "GET", "/metrics")
    assert code == 200
    names = {family.name for family in text_string_to_metric_families(body)}
    assert names == {"ppo_train_loop_age_seconds", "ppo_train_commands_queued"}


def test_command_is_carried_out_in_the_loop_and_its_reply_comes_back(tmp_path: Path) -> None:
    with opened(tmp_path) as control, loop_that_says(control, "done") as taken:
        address = address_of(tmp_path)
        assert command(address, "set", {"values": {"beta": "0"}}) == "done"
    assert taken == [("set", {"values": {"beta": "0"}}, "loop")]


def test_refusal_and_failure_come_back_as_errors(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        address = address_of(tmp_path)
        with (
            loop_that_says(control, CommandError("is paused already")),
            pytest.raises(CommandError, match=r"^is paused already$"),
        ):
            command(address, "pause", {})
        with (
            loop_that_says(control, OSError(28, "No space left")),
            pytest.raises(CommandError, match=r"checkpoint failed, the run goes on: .*No space"),
        ):
            command(address, "checkpoint", {})


def test_status_needs_no_turn_of_the_loop(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        address = address_of(tmp_path)
        assert "no simulator has been heard yet" in command(address, "status", {})
        control.publish(PROGRESS)
        text = command(address, "status", {})
    assert "Walker: step 1,200 of 5,000; mean reward 3.500 (last 100 episodes)" in text
    assert "paused   elapsed 0:01:01" in text
    assert "checkpoints 4, the last: results/run/Walker/Walker-1000.pt" in text


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer wrong", "bearer ü", "Basic {}"])
def test_without_the_token_no_command_reaches_the_queue(tmp_path: Path, token: str | None) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        right = address_of(tmp_path).token
        headers = {} if token is None else {"Authorization": token.format(right)}
        code, body = asked(control.port, "POST", "/commands/stop", b"{}", **headers)
        assert code == 401
        assert right not in body
        assert list(control.take()) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/commands/stop", b"[1]", 400),
        ("POST", "/commands/stop", b"{", 400),
        ("POST", "/commands/stop", b"[" * 60_000, 400),
        ("POST", "/commands/stop", b"\xff\xfe", 400),
        ("POST", "/commands/stop", b"{" + b" " * (1 << 16) + b"}", 413),
        ("POST", "/commands/explode", b"{}", 404),
        ("POST", "/commands/", b"{}", 404),
        ("POST", "/healthz", b"{}", 404),
        ("GET", "/commands/stop", None, 404),
        ("GET", "/../control.json", None, 404),
        ("PUT", "/commands/stop", b"{}", 501),
    ],
)
def test_requests_that_make_no_sense_get_a_code_and_no_command(
    tmp_path: Path, method: str, path: str, body: bytes | None, code: int
) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        token = address_of(tmp_path).token
        found, _ = asked(control.port, method, path, body, Authorization=f"Bearer {token}")
        assert found == code
        assert list(control.take()) == []
        assert asked(control.port, "GET", "/healthz")[0] == 200


def test_web_page_behind_another_name_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        assert control.port is not None
        assert asked(control.port, "GET", "/metrics", Host="evil.example:80")[0] == 403
        assert asked(control.port, "GET", "/metrics", Host="localhost")[0] == 200


def test_full_queue_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        address = address_of(tmp_path)
        for _ in range(MOST_QUEUED):
            control._enqueue(Command("pause", {}))
        with pytest.raises(CommandError, match=f"{MOST_QUEUED} commands wait already"):
            command(address, "pause", {})
        assert len(list(control.take())) == MOST_QUEUED


def test_command_that_waits_when_the_run_ends_hears_so(tmp_path: Path) -> None:
    control = opened(tmp_path)
    said: list[str] = []

    def ask(address: Address) -> None:
        try:
            command(address, "checkpoint", {})
        except CommandError as error:
            said.append(str(error))

    with control:
        thread = threading.Thread(target=ask, args=(address_of(tmp_path),))
        thread.start()
        while not control._queue.qsize():
            thread.join(0.01)
    thread.join()
    assert said == ["Run 'run' is ending and takes no more commands."]


def test_command_nobody_came_to_in_time_is_never_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.control.COMMAND_WAIT_S", 0.05)
    with opened(tmp_path) as control:
        with pytest.raises(CommandError, match=r"did not come to `stop`.*will not carry it out"):
            command(address_of(tmp_path), "stop", {})
        assert list(control.take()) == []
