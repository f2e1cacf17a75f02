"""Half of the simulators step while the other half is being decided: `recv` waits for nobody.

That is what double-buffered simulators are for; here it needs no buffers, only two simulators.
"""

from __future__ import annotations

from pathlib import Path

from fleet_of_processes import PATIENCE_S, Trainer, plan, scripted

from envs.fleet import Fleet, SimulatorMessage


def heard(fleet: Fleet, wanted: set[int]) -> dict[int, SimulatorMessage]:
    """Gives the next message of each of these simulators; no other may say anything."""
    found: dict[int, SimulatorMessage] = {}
    while found.keys() != wanted:
        items = fleet.recv(timeout_s=PATIENCE_S)
        assert items, f"heard of {found.keys()}, expected {wanted}"
        for item in items:
            assert isinstance(item, SimulatorMessage)
            assert item.simulator in wanted
            found[item.simulator] = item
    return found


def test_one_half_steps_on_while_the_other_waits_for_its_actions(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=4)) as fleet:
        waiting = heard(fleet, {0, 1, 2, 3})
        for half, others in (({0, 1}, {2, 3}), ({2, 3}, {0, 1})):
            for _ in range(20):
                for number in half:
                    fleet.send(number, Trainer.zeros(waiting[number]))
                waiting |= heard(fleet, half)
            assert others <= waiting.keys()  # they have been waiting all the time
        for number, message in waiting.items():
            fleet.send(number, Trainer.zeros(message))
        heard(fleet, {0, 1, 2, 3})
