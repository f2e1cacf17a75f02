"""Which names may become a folder below the results of a run, whoever chose them."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qs, urlsplit

LONGEST_NAME_BYTES = 200  # file systems take 255, of which a step and a suffix need some
OUR_OWN = ("run_logs", "configuration.yaml")  # beside the behaviours' folders
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f]")


def stays_below(name: str) -> bool:
    """Tells whether a name, a path perhaps, stays below the folder that it is put in."""
    parts = re.split(r"[/\\]", name)
    # Windows takes these for another disk, and `a:b` too.
    drive = r"[A-Za-z]:" if os.name == "nt" else r"[A-Za-z]:[/\\]"
    has_drive = re.match(drive, name) is not None
    return bool(parts[0]) and ".." not in parts and any(p != "." for p in parts) and not has_drive


def objection_to_behavior_id(behavior_id: str) -> str | None:
    """Says why a behaviour of this id could not be stored; None: it can."""
    num_bytes = len(behavior_id.encode("utf-8", "replace"))
    if num_bytes > LONGEST_NAME_BYTES:
        return f"its name has {num_bytes} bytes; at most {LONGEST_NAME_BYTES} are expected"
    try:
        parts = urlsplit(behavior_id)
        team = parse_qs(parts.query).get("team", ["0"])[0]
        is_team = 0 <= int(team) < 2**31
    except ValueError:
        is_team = False
    if not is_team:
        return "behind its name ?team= and a whole number is expected, or nothing"
    if NOT_IN_NAMES.search(behavior_id):
        return "its name has control characters"
    parts = urlsplit(behavior_id)
    if not parts.path:
        return "it has no name"
    if not stays_below(parts.path):
        return "its name would be a folder outside of the run's"
    if re.split(r"[/\\]", parts.path)[0] in OUR_OWN:
        return f"the run keeps files of its own under {' and '.join(OUR_OWN)}"
    return None
