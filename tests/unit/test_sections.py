"""The parts of the review page: what is chosen, what is said, and what is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.errors import NotFoundError
from airlock.core.evidence import Evidence, GateResult, Metric, Verdict
from airlock.services.evaluate import keep_evidence
from airlock.services.one_moment import at_one_moment
from airlock.services.overview import reading
from airlock.services.past import Point, comments_on, earlier_releases, trends
from airlock.services.releases import find_release, open_case
from airlock.web import sections
from airlock.web.drawing import LINE, SPARK_HEIGHT, SPARK_WIDTH, bar, place_on_line, spark
from tests.support.deployments import World, fast_folder, make_world
from tests.support.gallery import sequence

pytestmark = pytest.mark.requirement("A-4")

NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def evidence(gate: str, *metrics: Metric, **details: object) -> Evidence:
    result = GateResult(verdict=Verdict.PASSED, summary="x", metrics=[*metrics], details=dict(details))
    return Evidence(release_id="r", manifest_digest="0" * 64, gate=gate, config={}, result=result)


@given(st.lists(NUMBER, min_size=1, max_size=12), NUMBER, st.none() | NUMBER)
def test_a_trend_stays_in_its_picture_and_ends_with_this_release(
    past: list[float], now: float, limit: float | None
) -> None:
    points = [Point(str(place), f"r{place}", value) for place, value in enumerate(past)]
    metric = Metric(name="m", value=now, threshold=limit)
    drawn = spark(points, metric)
    assert drawn is not None
    assert drawn == spark(points, metric), "the same numbers, the same picture"
    places = [tuple(map(float, pair.split(","))) for pair in drawn["points"].split()]
    assert len(places) == len(past) + 1
    assert all(0 <= x <= SPARK_WIDTH and 0 <= y <= SPARK_HEIGHT for x, y in places)
    assert places[-1] == (drawn["x"], drawn["y"])
    assert (drawn["limit"] is None) is (limit is None)
    assert drawn["words"].endswith(f"now {now:.4g}")


def test_without_a_past_or_a_value_there_is_no_trend() -> None:
    assert spark([], Metric(name="m", value=1.0)) is None
    assert spark([Point("1", "r", 1.0)], Metric(name="m", value=None)) is None


@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_value_interval_and_limit_stand_on_the_line(
    value: float, low: float, high: float, limit: float
) -> None:
    drawn = place_on_line(Metric(name="m", value=value, interval=(low, high), threshold=limit))
    assert drawn is not None
    assert all(0 <= place <= LINE for place in drawn.values())
    assert (drawn["value"] <= drawn["limit"]) or value > limit


def test_a_bar_never_leaves_its_place() -> None:
    assert bar(2.0, (-1.0, 9.0)) == {"value": LINE, "low": 0.0, "high": LINE}


def test_of_a_gate_the_numbers_beyond_and_nearest_to_their_limits_are_shown() -> None:
    metrics = [
        Metric(name="far", value=10.0, threshold=1.0, direction="higher"),
        Metric(name="beyond", value=0.5, threshold=0.8, direction="higher"),
        Metric(name="near", value=0.81, threshold=0.8, direction="higher"),
        Metric(name="free", value=1.0),
        *(Metric(name=f"more{place}", value=2.0, threshold=1.0, direction="higher") for place in range(9)),
    ]
    (shown,) = sections.gates({"bias": evidence("bias", *metrics)}, {})
    assert [one["name"] for one in shown["limited"]][:2] == ["beyond", "near"]
    assert len(shown["limited"]) == sections.GATE_ROWS
    assert shown["left"] == len(metrics) - sections.GATE_ROWS
    assert [one["tone"] for one in shown["limited"][:2]] == ["bad", "good"]
    whole = sections.gate(evidence("bias", *metrics), {})
    assert (len(whole["limited"]), len(whole["others"]), whole["left"]) == (12, 1, 0)


def test_at_a_glance_the_weakest_group_is_named() -> None:
    found = sections.glance(
        {
            "bias": evidence(
                "bias",
                Metric(
                    name="demographic_parity_ratio",
                    value=0.97,
                    threshold=0.8,
                    direction="higher",
                    where="male",
                ),
                Metric(
                    name="demographic_parity_ratio",
                    value=0.7,
                    threshold=0.8,
                    direction="higher",
                    where="black",
                ),
            ),
            "score": evidence("score", flips={"changed": 5, "rows": 50}),
        }
    )
    assert [(tile["label"], tile["value"], tile["tone"]) for tile in found] == [
        ("decisions change", "10.0 %", "plain"),
        ("fairness", "0.7", "bad"),
    ]
    assert found[1]["note"].startswith("black")
    assert sections.glance({}) == []


def test_groups_are_told_beside_the_champion() -> None:
    record = evidence(
        "bias",
        Metric(name="selection_rate", value=0.5, where="sex: women", n=10, interval=(0.4, 0.6)),
        Metric(name="champion.selection_rate", value=0.6, where="sex: women", n=10),
        Metric(name="selection_rate", value=None, where="sex: unknown", n=0),
    )
    (attribute,) = sections.groups({"bias": record})
    (row,) = attribute["groups"]
    assert (attribute["attribute"], row["group"], row["rate"], row["before"]) == ("sex", "women", 0.5, 0.6)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


def judged(world: World, version: str, run: str, value: float) -> str:
    release_id = world.frozen(version, run=run)
    metric = Metric(name="accuracy", value=value, threshold=0.85, direction="higher")
    result = GateResult(verdict=Verdict.PASSED, summary="x", metrics=[metric])
    case = open_case(world.deployment, release_id)
    keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=0.1)
    sequence(world)
    world.clock.advance(hours=1)
    return release_id


def test_a_number_is_followed_through_the_releases_before_this_one(world: World) -> None:
    first, second, third = (
        judged(world, "2", f"run-{n}", value) for n, value in enumerate((0.86, 0.88, 0.9))
    )
    with reading(world.deployment) as overview:
        rows = earlier_releases(overview, find_release(world.deployment, third))
        assert [row["release_id"] for row in rows] == [second, first]
        found = trends(world.deployment, overview, rows)
        assert [point.value for point in found["performance", "accuracy", ""]] == [0.86, 0.88]
        assert earlier_releases(overview, find_release(world.deployment, first)) == []


def test_evidence_that_is_gone_leaves_a_gap(world: World) -> None:
    first, second = judged(world, "2", "a", 0.8611), judged(world, "2", "b", 0.8822)
    world.evidence_file(find_release(world.deployment, first).gates[0].digest).unlink()
    with reading(world.deployment) as overview:
        rows = earlier_releases(overview, find_release(world.deployment, second))
        assert trends(world.deployment, overview, rows) == {}


def test_what_was_said_about_earlier_releases_is_found(world: World) -> None:
    rejected = world.judged("2", track="yellow")
    world.answer(rejected, "petra", 0, "reject", "Show a month of shadow traffic first.")
    sequence(world)
    world.clock.advance(hours=1)
    later = judged(world, "3", "later", 0.9)
    with reading(world.deployment) as overview:
        rows = earlier_releases(overview, find_release(world.deployment, later))
    said = comments_on(world.deployment, "loan-model", rows)
    assert [(one["user"], one["choice"]) for one in said[rejected]] == [("petra", "reject")]
    assert comments_on(world.deployment, "loan-model", []) == {}


def test_one_moment_gives_the_same_answer_and_the_next_page_the_new_one(world: World) -> None:
    release_id = world.judged("2", track="red")
    page = at_one_moment(world.deployment)
    before = find_release(page, release_id)
    world.answer(release_id, "grace", 0)
    assert find_release(page, release_id).events == before.events
    assert len(find_release(at_one_moment(world.deployment), release_id).answers) == 1
    with pytest.raises(NotFoundError, match=re.escape("nothing-v1")):
        find_release(page, "nothing-v1")
