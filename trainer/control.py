"""The control and health endpoint of a run: HTTP, or HTTPS where others reach it, in threads.

Nothing here touches the run. Commands wait in a queue until the run's loop takes them between two
turns; health and metrics come from what the loop last left here.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTimeError
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Full, Queue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from envs.tls import LOOPBACK, is_every_address
from trainer.config.errors import ConfigError, UserError
from trainer.config.settings import ControlSettings, ListenSettings
from trainer.control_client import COMMAND_WAIT_S, FILE, Address, CommandError, read_address
from trainer.control_metrics import RunCollector, exposition
from trainer.control_server import ControlServer, Reply
from trainer.listening import control_token, identity_of
from trainer.reporter import RunProgress, status_text

if TYPE_CHECKING:
    from trainer.control_health import HealthServer

VERBS = ("status", "pause", "continue", "checkpoint", "export", "set", "stop")
MOST_QUEUED = 64
# What a run does when its loop is over, in words that follow "it".
SAVES = "saves and exports what it has learnt"
CLOSES = "closes its simulators"
EVALUATES = (
    "plays what it has saved last (evaluation_episodes), for a quarter of an hour at most; Ctrl-C "
    "or SIGTERM ends that at once, and loses nothing but the score"
)
# An update of millions of decisions, or a checkpoint on a slow disk, is no hang.
LONG_PART_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Command:
    """Something that a user wants of a run; the loop gives the reply."""

    verb: str
    arguments: Mapping[str, object]
    reply: Future[str] = field(default_factory=Future)


class Pulse:
    """When the loop last turned, and how long it may take for the next time."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._usual_s = limit_s
        self._clock = clock
        self._beat: tuple[float, float] = (clock(), limit_s)  # moment, limit; replaced together

    def beat(self) -> None:
        """Takes note of a turn."""
        self._beat = (self._clock(), self._usual_s)

    @contextmanager
    def long_part(self) -> Iterator[None]:
        """Inside the block the loop may take `LONG_PART_LIMIT_S`: it learns or saves."""
        self._beat = (self._clock(), max(self._usual_s, LONG_PART_LIMIT_S))
        try:
            yield
        finally:
            self.beat()

    @property
    def age_s(self) -> float:
        """Seconds since the loop last showed that it lives."""
        return self._clock() - self._beat[0]

    def reading(self) -> tuple[float, float]:
        """Gives the age and the limit that belongs to it, in seconds."""
        moment, limit_s = self._beat
        return self._clock() - moment, limit_s


class Control:
    """What the endpoint and the loop share. A context manager: inside it the endpoint is open.

    Without a port nothing listens, and no command ever comes.
    """

    def __init__(
        self,
        settings: ControlSettings,
        run_id: str,
        logs: Path,
        listen: ListenSettings | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            settings: host, port and token, and how long the loop may stand still.
            run_id: of the run.
            logs: folder of `control.json`, and of a generated certificate.
            listen: certificate, if there is to be TLS.
        """
        self._listen = listen or ListenSettings()
        self._settings = settings
        self._run_id = run_id
        self._path = logs / FILE
        self._queue: Queue[Command] = Queue(MOST_QUEUED)
        self._is_open = False
        self._lock = threading.Lock()  # between a command that comes and the end
        self._progress: RunProgress | None = None
        self._server: ControlServer | None = None
        self._health_server: HealthServer | None = None
        self._ending: str | None = None  # what it does, once the loop is over
        self._address: Address | None = None
        self.pulse = Pulse(settings.stall_limit_s)

    # The run's side.

    def __enter__(self) -> Self:
        """Listens, and writes where.

        Raises:
            ConfigError: the run is running already, the port is in use, or token, certificate or
                key cannot be used.
        """
        port = self._settings.port
        if port is None:
            return self
        other = read_address(self._path)
        if other is not None and other.pid != os.getpid() and other.answers():
            raise ConfigError(
                f"Run '{self._run_id}' is running already (pid {other.pid}, {self._path}). Stop it "
                f"with `ppo-train stop --run-id {self._run_id}`, or choose another --run-id."
            )
        host = self._settings.host
        token = control_token(self._settings) or secrets.token_urlsafe(32)
        identity = None
        if self._listen.has_tls:
            identity = identity_of(self._listen, self._path.parent, host, "http/1.1")
        tls = None if identity is None else identity.tls
        health_port = self._open_health()
        try:
            self._server = ControlServer(port, token, self._answer, host, tls)
        except OSError as error:
            self._close_health()
            raise ConfigError(
                f"control_settings.port is {port}, but nothing can listen there on {host}: "
                f"{error.strerror or error}. Choose another port, or 0 for one that is free; host "
                f"is an address of this machine."
            ) from error
        self.pulse.beat()
        self._is_open = True
        self._address = Address(
            self._run_id,
            os.getpid(),
            self._server.port,
            token,
            LOOPBACK if is_every_address(host) else host,
            None if identity is None else identity.fingerprint,
            health_port=health_port,
        )
        self._server.start()
        self._address.write(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Refuses what still waits, closes the port and removes the file."""
        if self._server is None:
            return
        with self._lock:
            self._is_open = False
        for command in self.take():
            command.reply.set_exception(self._ended())
        self._server.stop()
        self._server = None
        self._close_health()
        if read_address(self._path) == self._address:
            self._path.unlink(missing_ok=True)

    def _open_health(self) -> int | None:
        """Opens gRPC's health service if it is asked for; gives its port."""
        port = self._settings.health_port
        if port is None:
            return None
        try:
            from trainer.control_health import HealthServer
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"control_settings.health_port is {port}, but the package {error.name} is not "
                f"installed: pip install 'ppo-train[grpc]', or leave health_port out."
            ) from error
        try:
            self._health_server = HealthServer(port, self._is_alive, self._is_training)
        except OSError as error:
            raise ConfigError(
                f"control_settings.health_port is {port}, but nothing can listen there: "
                f"{error.strerror}. Choose another port, or 0 for one that is free."
            ) from error
        return self._health_server.port

    def _close_health(self) -> None:
        if self._health_server is not None:
            self._health_server.stop()
            self._health_server = None

    def _is_alive(self) -> bool:
        age_s, limit_s = self.pulse.reading()
        return age_s <= limit_s

    def _is_training(self) -> bool:
        """Whether simulators play and the run learns from them (or acts, without learning)."""
        progress = self._progress
        if progress is None or self.is_ending:
            return False
        return bool(progress.behaviors) and progress.num_simulators > 0 and not progress.is_paused

    @property
    def port(self) -> int | None:
        """Where it listens; None when it does not."""
        return None if self._server is None else self._server.port

    def publish(self, progress: RunProgress) -> None:
        """Takes how the run is doing now; it is read by other threads."""
        self._progress = progress

    @contextmanager
    def ending(self, doing: str, progress: RunProgress | None = None) -> Iterator[None]:
        """The loop is over, and the block does what comes then, for as long as it takes.

        From now on every command is answered at once, with what the run does.

        Args:
            doing: in words that follow "it".
            progress: of the run as it ends.
        """
        if progress is not None:
            self.publish(replace(progress, steps_per_s=0.0, left_s=None, is_paused=False))
        with self._lock:
            self._ending = doing
        for command in self.take():
            command.reply.set_exception(self._ended())
        try:
            with self.pulse.long_part():
                yield
        finally:
            self._ending = CLOSES

    @property
    def is_ending(self) -> bool:
        """Whether the loop is over."""
        return self._ending is not None

    def take(self) -> Iterator[Command]:
        """Gives the commands that wait; each has to be replied to."""
        while not self._queue.empty():  # nobody else takes any
            command = self._queue.get_nowait()
            if command.reply.set_running_or_notify_cancel():  # else nobody waits any more
                yield command

    # The endpoint's side: any thread.

    def _answer(self, method: str, path: str, arguments: Mapping[str, object]) -> Reply:
        """Answers a request whose token, where it needs one, was right."""
        if method == "GET" and path == "/healthz":
            return self._health()
        if method == "GET" and path == "/metrics":
            collector = RunCollector(
                lambda: self._progress, self._queue.qsize, lambda: self.pulse.age_s
            )
            return Reply(200, exposition(collector), "text/plain; version=0.0.4; charset=utf-8")
        verb = path.removeprefix("/commands/")
        if method == "POST" and verb != path and verb in VERBS:
            return self._command(verb, arguments)
        return Reply.message(404, f"There is no {path}; commands are {', '.join(VERBS)}.")

    def _health(self) -> Reply:
        age_s, limit_s = self.pulse.reading()
        is_alive = age_s <= limit_s
        return Reply.json(
            200 if is_alive else 503,
            {"is_alive": is_alive, "loop_age_s": round(age_s, 3), "limit_s": limit_s},
        )

    def _command(self, verb: str, arguments: Mapping[str, object]) -> Reply:
        if verb == "status":
            return Reply.message(200, self._status())
        command = Command(verb, arguments)
        try:
            self._enqueue(command)
            return Reply.message(200, command.reply.result(COMMAND_WAIT_S))
        except NotInTimeError:
            return self._give_up(command)
        except StoppingError as error:
            run = f"Run '{self._run_id}'"
            if verb == "stop":
                return Reply.message(200, f"{run} is already stopping: it {error}.")
            words = f"`{verb}` was not carried out: {run} is stopping. It {error}."
            return Reply.message(503, words)
        except (EndedError, CancelledError):
            return Reply.message(503, str(self._ended()))
        except CommandError as error:
            return Reply.message(400, str(error))
        except (UserError, OSError) as error:  # such as a disk that is full
            return Reply.message(500, f"{verb} failed, the run goes on: {error}")
        except Exception as error:  # a defect, which ends the run with its trace
            return Reply.message(500, f"{verb} failed: {type(error).__name__}: {error}")

    def _enqueue(self, command: Command) -> None:
        with self._lock:
            if not self._is_open or self._ending is not None:
                raise self._ended()
            try:
                self._queue.put_nowait(command)
            except Full:
                raise CommandError(
                    f"{MOST_QUEUED} commands wait already, and `{command.verb}` is not one of "
                    f"them. Wait for the run's next turn, then ask again."
                ) from None

    def _give_up(self, command: Command) -> Reply:
        if command.reply.cancel():
            return Reply.message(
                503,
                f"The run did not come to `{command.verb}` within {COMMAND_WAIT_S:.0f} s, and will "
                f"not carry it out. GET /healthz says how long its loop has been busy.",
            )
        try:
            return Reply.message(200, command.reply.result())  # it is at it
        except Exception as error:
            return Reply.message(500, f"{command.verb} failed: {error}")

    def _status(self) -> str:
        age_s, _ = self.pulse.reading()
        head = f"Run '{self._run_id}' (pid {os.getpid()}), last sign of its loop {age_s:.1f} s ago:"
        if self._progress is None:
            return f"{head} it starts; no simulator has been heard yet."
        stopping = "" if self._ending is None else f" it is stopping. It {self._ending}."
        text = f"{head}{stopping}\n{status_text(self._progress)}"
        if self._health_server is not None:
            text += f"\ngRPC health checks on {LOOPBACK}:{self._health_server.port}"
        return text

    def _ended(self) -> EndedError:
        if self._is_open and self._ending is not None:
            return StoppingError(self._ending)
        return EndedError(f"Run '{self._run_id}' is ending and takes no more commands.")


class EndedError(UserError):
    """A command came when the loop was over."""


class StoppingError(EndedError):
    """It came when the loop was over, and the run does what these words say of "it"."""
