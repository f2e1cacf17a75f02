"""Figures of cost growth: how they come from what the probe prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth
from benchmarks.growth import Point, Shape


def mark(step: int, wall_s: float, step_log_s: float, resident: float, **parts: float) -> Any:
    seconds = {"simulators": 0.0, "bridge": 0.0, "inference": 0.0, "learning": 0.0, **parts}
    return {
        "wall_s": wall_s,
        "step": step,
        "step_log_s": step_log_s,
        "seconds": seconds,
        "megabytes": {"VmRSS": resident, "VmHWM": resident + 5},
    }


def test_parts_are_the_differences_between_the_first_and_the_last_update() -> None:
    marks = [
        mark(0, 10.0, 0.0, 300),
        mark(1000, 12.0, 0.5, 400, simulators=0.5, bridge=0.25, inference=1.0),
        mark(2000, 17.0, 0.75, 500, simulators=0.75, bridge=0.5, inference=2.0, learning=2.5),
        mark(3000, 22.0, 1.0, 600, simulators=1.5, bridge=0.75, inference=2.5, learning=5.0),
    ]
    point = growth._point(Shape(), marks)
    # 2,000 decisions in 10 s, of which the parts are 1 + 0.5 + 1.5 + 5
    assert point.microseconds == {
        "waiting": 500.0,
        "bridge": 250.0,
        "inference": 500.0,  # 1.5 s, of which 0.5 in the step log
        "step log": 250.0,
        "learning": 2500.0,
        "rest": 1000.0,
    }
    assert (point.total, point.agent_steps, point.megabytes) == (5000.0, 2000, 305)


def point(shape: Shape, microseconds: float) -> Point:
    return Point(shape, {"learning": microseconds}, 1, 1.0, 0.0)


def test_cost_that_grows_with_its_work_has_not_grown() -> None:
    wider = [point(Shape(observation=size), cost) for size, cost in ((8, 10.0), (64, 40.0))]
    assert growth.growth("observation", wider) == [1.0, pytest.approx(0.5)]  # 4 x for 8 x
    images = [point(replace(growth.CAMERA, image=size), size**2) for size in (84, 256)]
    assert growth.growth("image", images) == [1.0, pytest.approx(1.0)]
    more = [point(Shape(simulators=count), cost) for count, cost in ((1, 10.0), (64, 20.0))]
    assert growth.growth("simulators", more) == [1.0, 2.0]
    text = growth.table({"simulators": [replace(one, microseconds=parts(one)) for one in more]})
    assert "| simulators | 64 |" in text
    assert "**2.00**" in text


def parts(one: Point) -> dict[str, float]:
    return dict.fromkeys(growth.PARTS, 0.0) | one.microseconds


def test_every_point_has_a_file_of_its_own_and_the_middle_is_on_every_axis() -> None:
    names = {
        growth.path_of(Path(), axis, shape)
        for axis, shapes in growth.AXES.items()
        for shape in shapes
    }
    assert len(names) == sum(len(shapes) for shapes in growth.AXES.values())
    for axis in ("simulators", "agents", "observation", "buffer"):
        assert Shape() in growth.AXES[axis]
