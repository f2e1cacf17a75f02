"""Where a running run can be reached, and how to ask it for something.

Needs no torch: the verbs that talk to a run answer at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from envs.tls import LOOPBACK, DoorError, Trust, address_words, is_loopback
from trainer.atomic_file import atomic_path
from trainer.config.errors import UserError

FILE = "control.json"
OWNER_ONLY = 0o600
TOKEN_IS_RIGHT = "/token"
WRITTEN = ("run_id", "pid", "port", "token", "host", "fingerprint", "health_port")
# A run answers between two turns of its loop; an update or a checkpoint may lie between.
COMMAND_WAIT_S = 600.0
KNOCK_WAIT_S = 5.0


class CommandError(UserError):
    """A command that a run does not carry out; nothing of it has happened."""


@dataclass(frozen=True, slots=True)
class Address:
    """What `run_logs/control.json` holds."""

    run_id: str
    pid: int
    port: int
    token: str = field(repr=False)
    host: str = LOOPBACK
    fingerprint: str | None = None  # of the certificate; None: no TLS, unless an authority is named
    ca_file: str | None = None
    is_distant: bool = False  # another machine's: its process cannot be looked at
    health_port: int | None = None  # of gRPC's health service, on this machine

    @property
    def words(self) -> str:
        """Who is asked, for messages."""
        if self.is_distant:
            return f"The run at {address_words(self.host, self.port)}"
        return f"Run '{self.run_id}' (pid {self.pid}, port {self.port})"

    @property
    def advice(self) -> str:
        """What to do when it does not answer."""
        if self.is_distant:
            return (
                "Is it running with --control and --control-host, is this its port, and does its "
                "firewall let you through?"
            )
        return "It has probably just ended: look at the last line of its run_logs/events.jsonl."

    def write(self, path: Path) -> None:
        """Writes the file, readable by its owner alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            partial.touch(mode=OWNER_ONLY)
            partial.chmod(OWNER_ONLY)  # a killed writer may have left one with other rights
            document = {key: asdict(self)[key] for key in WRITTEN}
            partial.write_text(json.dumps(document, indent=2) + "\n")

    def answers(self) -> bool:
        """Whether the run that wrote this still lives: the process, the port and the token."""
        if not is_alive(self.pid):
            return False
        try:
            return self.request("GET", TOKEN_IS_RIGHT, timeout_s=KNOCK_WAIT_S)[0] == 200
        except (OSError, HTTPException, DoorError):
            return False

    @property
    def trust(self) -> Trust | None:
        """How TLS knows the run; None: there is no TLS, as on loopback nobody asked for it."""
        if self.fingerprint is not None or self.ca_file is not None:
            return Trust(self.ca_file, self.fingerprint)
        return None if is_loopback(self.host) else Trust()

    def request(
        self, method: str, path: str, body: object = None, *, timeout_s: float
    ) -> tuple[int, str]:
        """Sends one request with the token; gives HTTP status and body.

        Raises:
            OSError: nobody listens, or does not answer in time.
            HTTPException: who listens does not speak HTTP.
            DoorError: who listens is not the run that is meant, or does not speak TLS.
        """
        connection = HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.connect()
            if self.trust is not None:
                connection.sock = self.trust.wrap(connection.sock, self.host, "http/1.1")
            content = None if body is None else json.dumps(body)
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    if os.name == "nt":  # there os.kill would end it; the port has to tell
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def read_address(path: Path) -> Address | None:
    """Reads a control file; None when there is none, or none that can be understood."""
    try:
        document = json.loads(path.read_bytes())
        return Address(
            str(document["run_id"]),
            int(document["pid"]),
            int(document["port"]),
            str(document["token"]),
            str(document.get("host", LOOPBACK)),
            document.get("fingerprint"),
            health_port=document.get("health_port"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def live_address(folder: Path) -> Address | None:
    """Gives where the run in `folder` can be reached; None when it does not run.

    Training comes before acting alone, which may happen beside it.
    """
    for logs in (folder / "run_logs", folder / "run_logs" / "inference"):
        address = read_address(logs / FILE)
        if address is not None and address.answers():
            return address
    return None


def command(address: Address, verb: str, arguments: Mapping[str, object]) -> str:
    """Has a run carry out a command; gives what it says of it.

    Raises:
        CommandError: it refuses, or has just ended.
    """
    path = f"/commands/{verb}"
    try:
        status, body = address.request("POST", path, dict(arguments), timeout_s=COMMAND_WAIT_S + 10)
        document = json.loads(body)
        message = str(document["message"])
    except DoorError as error:
        raise CommandError(f"{address.words} cannot be asked: {error}") from error
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(
            f"{address.words} did not answer `{verb}`: {reason}. {address.advice}"
        ) from error
    if status != 200:
        raise CommandError(message)
    return message
