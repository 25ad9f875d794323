"""What running it costs and earns, and how long people wait."""

from __future__ import annotations

from airlock.core import logged
from airlock.core.signals import Signal, failed, judged, off, unsure
from airlock.profiles.batch import open_batch
from airlock.services.signals.scene import Scene, asked


def business(scene: Scene) -> list[Signal]:
    """The mean of the KPI's column against its limits."""
    kpi = scene.spec.kpi
    if kpi is None:
        return [off("business", "the workload names no business number")]
    if not scene.logged.rows:
        return [unsure("business", "nothing was logged", n=0)]
    if kpi.column not in scene.everything.columns():
        fix = (
            "log it with the prediction (attributes=…) or with the outcome, or correct monitoring.kpi.column"
        )
        return [failed("business", f"the log has no column {kpi.column}", fix=fix)]
    mean, reach, n = _mean(scene, kpi.column)
    if n < scene.spec.minimum_rows:
        return [unsure("business", f"{kpi.title} is known for {n} rows", fix="wait for it", n=n)]
    low = kpi.minimum is not None and (kpi.maximum is None or mean - kpi.minimum < kpi.maximum - mean)
    limit = kpi.minimum if low else kpi.maximum
    assert limit is not None  # noqa: S101  # a KPI has one of the two
    return [
        judged(
            "business",
            value=mean,
            limit=limit,
            direction="higher" if low else "lower",
            interval=(mean - reach, mean + reach),
            no_effect=limit,
            text=f"{kpi.title} is {mean:,.4g} on average",
            fix="ask its owner what changed; compare with the signals of the same window",
            n=n,
            confidence=scene.confidence,
            method="mean, normal",
        )
    ]


def _mean(scene: Scene, name: str) -> tuple[float, float, int]:
    """Mean of a column, half its interval, and rows with a value."""
    with open_batch(scene.everything) as batch:
        column = f"TRY_CAST({batch.column(name)} AS DOUBLE)"
        mean, spread, n = asked(batch, [f"avg({column})", f"stddev_samp({column})", f"count({column})"])
    return mean, scene.z * spread / max(1.0, n) ** 0.5, int(n)


def cost(scene: Scene) -> list[Signal]:
    """The mean cost of a prediction against what the workload says it may cost."""
    serving = scene.workload.serving
    if logged.COST not in scene.everything.columns():
        return [off("cost", "no cost is logged")]
    priced = serving.usd_per_request
    if serving.monthly_budget_usd is not None and serving.monthly_requests:
        priced = serving.monthly_budget_usd / serving.monthly_requests
    if priced is None:
        return [off("cost", "the workload names neither a price nor a budget")]
    mean, reach, n = _mean(scene, logged.COST)
    if not n:
        return [off("cost", "no cost is logged")]
    limit = priced * scene.limits.cost_increase
    return [
        judged(
            "cost",
            value=mean,
            limit=limit,
            direction="lower",
            interval=(mean - reach, mean + reach),
            no_effect=priced,
            text=f"a prediction costs {mean:.6f} USD, {priced:.6f} are planned",
            fix="see who calls it and how often, by caller and business unit in the log",
            n=n,
            unit="USD",
            confidence=scene.confidence,
            method="mean, normal",
            details={"by_caller": _by(scene, logged.CALLER), "by_unit": _by(scene, logged.UNIT)},
        )
    ]


def _by(scene: Scene, column: str) -> dict[str, int]:
    """Rows by caller or business unit, the most first seen."""
    if column not in scene.everything.columns():
        return {}
    with open_batch(scene.everything) as batch:
        found = batch.examples("true", batch.column(column), 50)
    return {str(name or "(none)"): int(count) for name, count in found}


def latency(scene: Scene) -> list[Signal]:
    """The 95th percentile of the answers' time, with its distribution-free interval."""
    if logged.LATENCY not in scene.everything.columns():
        return [off("latency", "no latency is logged")]
    with open_batch(scene.everything) as batch:
        column = batch.column(logged.LATENCY)
        n = int(asked(batch, [f"count({column})"])[0])
        if (few := scene.too_few("latency", n)) is not None:
            return [off("latency", "no latency is logged") if not n else few]
        reach = scene.z * (0.95 * 0.05 / n) ** 0.5
        places = (0.95, max(0.0, 0.95 - reach), min(1.0, 0.95 + reach))
        value, low, high = asked(batch, [f"quantile_cont({column}, {place!r})" for place in places])
    limit = scene.limits.p95_ms
    return [
        judged(
            "latency",
            value=value,
            limit=limit,
            direction="lower",
            interval=(low, high),
            no_effect=limit,
            text=f"nineteen of twenty answers take at most {value:.1f} ms, {limit:g} ms are allowed",
            fix="see load and hardware of the model server, and the size of its inputs",
            n=n,
            unit="ms",
            confidence=scene.confidence,
            method="order statistics, binomial",
        )
    ]
