"""The governance measures: how long, waiting for whom, what stops, what escapes, what waiting costs (U-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from airlock.adapters.overview import Overview
from airlock.core.policy import Track
from airlock.core.release import State
from airlock.services.overview import DAY_US, Filter, Row, visible_part


@dataclass(frozen=True)
class Flow:
    """How long something took: how many, the median and the ninth decile, microseconds."""

    name: str
    n: int
    median_us: float
    p90_us: float

    @staticmethod
    def of(name: str, spans_us: Sequence[int]) -> Flow:
        """Of at least one span."""
        p90 = quantiles(spans_us, n=10, method="inclusive")[-1] if len(spans_us) > 1 else spans_us[0]
        return Flow(name, len(spans_us), median(spans_us), p90)


@dataclass(frozen=True)
class Measures:
    """The governance measures of a span of time (requirement U-2).

    Attributes:
        without_people: promoted with nobody asked.
        escapes: promoted in this time, and rolled back, reopened or the cause of an incident since.
        waited_us: time that releases stood still because people were asked, all together.
        cost_usd: what that cost, as far as the workloads say what a day is worth; ``priced`` says of how
            many of the ``asked`` releases that is known.
    """

    since_us: int
    submitted: int
    promoted: int
    without_people: int
    stopped: int
    lead_times: list[Flow]
    waiting_times: list[Flow]
    gates: list[Row]
    rules: list[Row]
    escapes: int
    asked: int
    waited_us: int
    cost_usd: float
    priced: int


STOPPED = (State.DENIED, State.QUARANTINED, State.REJECTED, State.EXPIRED, State.REFUSED)


_GATES = """WITH RECURSIVE gates (name) AS (
    SELECT min(gate) FROM gate UNION ALL
    SELECT (SELECT min(gate) FROM gate WHERE gate > name) FROM gates WHERE name IS NOT NULL
)"""
"""The few names of gates, from the index: then each gate's rows are read in order, and none is sorted."""


def measures(
    overview: Overview, wanted: Filter, *, now_us: int, day_usd: Mapping[str, float | None] | None = None
) -> Measures:
    """What happened since ``since_us`` to what somebody may see.

    ``day_usd`` is what a day without the release costs, by workload.
    """
    visible, names = visible_part(wanted)
    since = [wanted.since_us]
    totals = _by(
        overview,
        "SELECT state AS name, count(*) AS n FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND {visible} GROUP BY state",
        since + names,
    )
    alone = overview.query(
        "SELECT count(*) AS n FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND state = ? AND outcome = 'ALLOW' AND {visible}",
        [*since, State.PROMOTED, *names],
    )[0]["n"]
    leads = _spans(
        overview,
        "SELECT track AS name, ended_us - submitted_us AS span FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND state = ? AND track IS NOT NULL AND {visible}",
        [*since, State.PROMOTED, *names],
    )
    waits = _spans(
        overview,
        "SELECT role AS name, coalesce(until_us, ?) - asked_us AS span FROM seat "  # noqa: S608
        f"WHERE asked_us >= ? AND {visible}",
        [now_us, *since, *names],
    )
    gates = overview.query(
        f"{_GATES} SELECT gate, count(*) AS n, "  # noqa: S608
        "sum(verdict = 'FAILED') AS failed, sum(verdict = 'ERROR') AS errors, "
        "sum(verdict = 'WARNED') AS warned, avg(seconds) AS seconds, avg(after_us) AS after_us FROM gate "
        f"WHERE gate IN (SELECT name FROM gates) AND at_us >= ? AND {visible} "
        "GROUP BY gate ORDER BY failed + errors DESC, gate",
        since + names,
    )
    rules = overview.query(
        "SELECT rule, count(*) AS n FROM rule "  # noqa: S608
        f"WHERE at_us >= ? AND {visible} GROUP BY rule ORDER BY n DESC, rule",
        since + names,
    )
    escapes = overview.query(
        "SELECT count(*) AS n FROM escaped WHERE release_id IN (SELECT release_id FROM release "  # noqa: S608
        f"WHERE submitted_us >= ? AND {visible})",
        since + names,
    )[0]["n"]
    return Measures(
        since_us=wanted.since_us,
        submitted=sum(totals.values()),
        promoted=totals.get(State.PROMOTED, 0),
        without_people=alone,
        stopped=sum(totals.get(state, 0) for state in STOPPED),
        lead_times=[Flow.of(str(track), leads[track]) for track in Track if track in leads],
        waiting_times=sorted((Flow.of(*item) for item in waits.items()), key=lambda flow: -flow.median_us),
        gates=gates,
        rules=rules,
        escapes=escapes,
        **_waited(overview, wanted, now_us, day_usd or {}),
    )


def _waited(
    overview: Overview, wanted: Filter, now_us: int, day_usd: Mapping[str, float | None]
) -> dict[str, Any]:
    """How long releases stood still for people: from the question to the last answer, or until now."""
    visible, names = visible_part(wanted)
    rows = overview.query(
        "SELECT workload, count(*) AS n, sum(span) AS span FROM (SELECT workload, "  # noqa: S608
        "max(coalesce(until_us, ?)) - min(asked_us) AS span FROM seat "
        f"WHERE asked_us >= ? AND {visible} GROUP BY release_id) GROUP BY workload",
        [now_us, wanted.since_us, *names],
    )
    priced = [row for row in rows if day_usd.get(row["workload"])]
    return {
        "asked": sum(row["n"] for row in rows),
        "waited_us": sum(row["span"] for row in rows),
        "cost_usd": sum(row["span"] / DAY_US * (day_usd[row["workload"]] or 0.0) for row in priced),
        "priced": sum(row["n"] for row in priced),
    }


def _by(overview: Overview, question: str, values: list[Any]) -> dict[str, int]:
    return {row["name"]: row["n"] for row in overview.query(question, values)}


def _spans(overview: Overview, question: str, values: list[Any]) -> dict[str, list[int]]:
    spans: dict[str, list[int]] = {}
    for row in overview.query(question, values):
        spans.setdefault(row["name"], []).append(row["span"])
    return spans
