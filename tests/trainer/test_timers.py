"""Where the time of a run goes, also beside its loop."""

from __future__ import annotations

import json

from pytest import approx, raises

from trainer.reporter import shares_line
from trainer.timers import LEARNING, WAITING, Timers


def spent(timers: Timers, **seconds: float) -> None:
    for part, value in seconds.items():
        timers._seconds[part] = value


def test_learner_in_the_loop_has_no_share_of_its_own() -> None:
    timers = Timers()
    spent(timers, simulators=6.0, learning=2.0)
    assert timers.learner_share is None
    line = shares_line(timers.shares(), timers.learner_share)
    assert line == "simulators 75 % · bridge 0 % · inference 0 % · learning 25 % · saving 0 %"
    assert "learner" not in json.loads(timers.to_json({}))["children"]
    with raises(KeyError), timers.measure(WAITING):
        pass


def test_learner_beside_the_loop_takes_none_of_its_time() -> None:
    timers = Timers()
    timers.add(WAITING)
    spent(timers, simulators=6.0, learning=1.0)
    timers._seconds[WAITING] = 3.0
    timers.count_beside(4.0)
    timers.count_beside(2.5)
    assert sum(timers.shares().values()) == approx(1.0)
    assert timers.collecting_s == 6.0
    assert shares_line(timers.shares(), timers.learner_share) == (
        "simulators 60 % · bridge 0 % · inference 0 % · learning 10 % · saving 0 % · waiting for "
        "the learner 30 %; beside it the learner, busy 65 %"
    )
    tree = json.loads(timers.to_json({}))
    assert tree["children"]["learner"] == {
        "total": 6.5,
        "count": 2,
        "self": 6.5,
        "is_parallel": True,
    }
    # As ever: what is left of the total when the loop's own parts are taken away.
    assert tree["self"] == approx(tree["total"] - 10.0)
    assert tree["children"][LEARNING]["total"] == 1.0
