"""Cost and latency: what a request costs and how long it takes, against budget, limits and the champion.

Why it matters: a model that is a little better and five times as expensive or slow is found on the invoice
or in the complaints, months after the release. Slow answers also end in timeouts, which are wrong answers.

What good looks like: the cost of a request is known before the release, below its limit and inside the
monthly budget; 95 and 99 of 100 requests are answered within their limits; nothing is much dearer or slower
than what is in production; and where something cheaper would do, it is named.

How to fix it: state prices under `serving` in the workload file. If a request costs too much, take the
cheaper alternative that the finding names, answer several requests at a time, or use a smaller model; if it
is slow, profile one request, then drop unused features and trees. Helpful tools: py-spy for one request, ONNX
Runtime for faster inference, the provider's price calculator. Over budget, ask the budget's owner first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.declarations import Alternative, ServingSpec
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.statistics import exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

if TYPE_CHECKING:
    import pandas as pd

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT,)
EXAMPLE = """\
serving:
  usd_per_hour: 0.2
  monthly_requests: 100000
  latency_column: milliseconds  # of each logged request
"""

_QUANTILES = (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99))
_HOUR_MS = 3_600_000
_CHEAPER = 0.95
"""An alternative is worth naming when it costs at most this share."""


class Config(Value):
    """Limits of cost and latency."""

    maximum_cost_per_request_usd: Annotated[float, Field(gt=0, description="FAILED above it")]
    over_budget: Annotated[
        Literal["warn", "fail"],
        Field(description="what a month over budget is: a person decides, or a failure"),
    ]
    maximum_p95_ms: Annotated[float, Field(gt=0, description="95 of 100 requests are answered in this time")]
    maximum_p99_ms: Annotated[float, Field(gt=0, description="99 of 100 requests are answered in this time")]
    maximum_cost_increase: Annotated[
        float, Field(gt=0, description="rise over the champion's cost, as a share of it; WARNED above")
    ]
    maximum_latency_increase: Annotated[
        float, Field(gt=0, description="rise over the champion's median latency, as a share; WARNED above")
    ]
    minimum_requests: Annotated[
        int,
        Field(ge=1, description="logged requests that percentiles need; a release is timed by the sandbox"),
    ]


@dataclass(frozen=True)
class _Measured:
    """Latency and cost of one model: milliseconds and USD per request; ``n`` requests, where logged."""

    latency: dict[str, float]
    cost: float | None
    n: int | None
    method: str


HELD = (
    HeldLimit("maximum_cost_per_request_usd", "cost.per_request", metric="cost_per_request_usd"),
    HeldLimit("maximum_p95_ms", "latency.p95_ms", metric="p95_ms"),
    HeldLimit("maximum_p99_ms", "latency.p99_ms", metric="p99_ms"),
    HeldLimit(
        "maximum_cost_increase",
        "cost.spike",
        metric="cost_increase",
        verdict=Verdict.WARNED,
        may_be_absent=True,
    ),
    HeldLimit(
        "maximum_latency_increase",
        "latency.spike",
        metric="latency_increase",
        verdict=Verdict.WARNED,
        may_be_absent=True,
    ),
)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Hold cost and latency against limits, budget and champion."""
    serving = context.declared.serving
    try:
        candidate, champion = _measured(context, config)
    except InvalidInputError as error:
        return cannot_judge("latency.unknown", error.what, fix=error.fix, where=error.where)
    if candidate.cost is None:
        return cannot_judge(
            "price.unknown",
            "nothing says what a request costs",
            fix="state serving.usd_per_hour or serving.usd_per_request",
            where="serving",
        )
    findings = [
        *_latency_findings(candidate, config),
        *_cost_findings(candidate.cost, candidate, serving, config),
        *(_spikes(candidate, champion, config) if champion else []),
    ]
    metrics = [*_metrics(candidate, serving, config), *_comparison(candidate, champion, config)]
    context.attach(
        "cost.json", canonical_json({"candidate": vars(candidate), "champion": champion and vars(champion)})
    )
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(candidate, findings),
        findings=findings,
        metrics=metrics,
    )


def _measured(context: GateContext, config: Config) -> tuple[_Measured, _Measured | None]:
    serving = context.declared.serving
    if serving.latency_column is not None:
        before = None
        now = _logged(context.evaluation(), serving, config)
        if context.has_reference:
            before = _logged(context.training(), serving, config)
        return now, before
    timings = context.scores().details.get("timings") or {}
    candidate = _timed(timings.get("candidate"), serving)
    if candidate is None:
        raise InvalidInputError(
            "nobody measured how long a request takes",
            where="serving.latency_column",
            fix="score the release again, or name the column with the milliseconds of each request",
        )
    return candidate, _timed(timings.get("champion"), serving)


def _timed(timings: dict[str, Any] | None, serving: ServingSpec) -> _Measured | None:
    if not timings or any(not isinstance(timings.get(name), int | float) for name, _ in _QUANTILES):
        return None
    latency = {name: float(timings[name]) for name, _ in _QUANTILES}
    cost = _cost(latency["p50_ms"], serving) if serving.priced else None
    return _Measured(latency, cost, None, "single rows in the sandbox")


def _logged(frame: pd.DataFrame, serving: ServingSpec, config: Config) -> _Measured:
    latency = _column(frame, str(serving.latency_column), config.minimum_requests)
    quantiles = {name: float(latency.quantile(share)) for name, share in _QUANTILES}
    if serving.cost_column is not None:
        cost: float | None = float(_column(frame, serving.cost_column, config.minimum_requests).mean())
    else:
        cost = _cost(float(latency.mean()), serving) if serving.priced else None
    return _Measured(quantiles, cost, len(latency), "logged requests")


def _column(frame: pd.DataFrame, name: str, minimum: int) -> pd.Series[Any]:
    import pandas as pd

    if name not in frame:
        raise InvalidInputError(f"the data has no column {name!r}", where=name, fix="correct `serving`")
    values = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    if bad := int((~values.between(0, 1e15)).sum()):  # NaN and infinity are not between
        raise InvalidInputError(
            f"{bad} of {len(values)} rows have no number from 0 on in {name!r}",
            where=name,
            fix="log every request with its figure",
        )
    if len(values) < minimum:
        raise InvalidInputError(
            f"{len(values)} requests are logged, but {minimum} are needed",
            where=name,
            fix="log more requests",
        )
    return values


def _cost(milliseconds: float, serving: ServingSpec) -> float:
    """USD of one request: its own price, and its share of an hour of the instance."""
    hour = (serving.usd_per_hour or 0.0) * milliseconds / _HOUR_MS
    return (serving.usd_per_request or 0.0) + hour / (serving.parallel_requests * serving.utilisation)


def _elsewhere(alternative: Alternative, milliseconds: float, serving: ServingSpec) -> float:
    changes = {"usd_per_hour": alternative.usd_per_hour, "usd_per_request": alternative.usd_per_request}
    return _cost(milliseconds * alternative.slowdown, serving.model_copy(update=changes))


def _latency_findings(candidate: _Measured, config: Config) -> Iterator[Finding]:
    for name, limit in (("p95_ms", config.maximum_p95_ms), ("p99_ms", config.maximum_p99_ms)):
        if exceeds(candidate.latency[name], limit):
            yield Finding(
                id=f"latency.{name}",
                verdict=Verdict.FAILED,
                message=f"{name[1:3]} of 100 requests take up to {candidate.latency[name]:.4g} ms, "
                f"above {limit:g}",
                where=name,
                fix="profile one request; use fewer features, a smaller model, or a faster runtime like ONNX",
            )


def _cost_findings(
    cost: float, candidate: _Measured, serving: ServingSpec, config: Config
) -> Iterator[Finding]:
    dear = exceeds(cost, config.maximum_cost_per_request_usd)
    monthly = None if serving.monthly_requests is None else cost * serving.monthly_requests
    budget = serving.monthly_budget_usd
    over = monthly is not None and budget is not None and exceeds(monthly, budget)
    options = sorted(
        (_elsewhere(option, candidate.latency["p50_ms"], serving), option.name)
        for option in serving.alternatives
    )
    cheaper = next((f"{name} costs {_usd(price)}" for price, name in options if price <= _CHEAPER * cost), "")
    fix = (
        f"take the cheaper option: {cheaper} a request"
        if cheaper
        else ("answer several requests at a time, use a smaller model, or ask for a higher limit")
    )
    if dear:
        limit = config.maximum_cost_per_request_usd
        text = f"a request costs {_usd(cost)}, above {_usd(limit)}"
        yield Finding(id="cost.per_request", verdict=Verdict.FAILED, message=text, where="serving", fix=fix)
    if over and monthly is not None and budget is not None:
        verdict = Verdict.FAILED if config.over_budget == "fail" else Verdict.WARNED
        text = f"a month costs {monthly:,.2f} USD, above the budget of {budget:,.2f}: its owner must approve"
        yield Finding(id="cost.budget", verdict=verdict, message=text, where="serving", fix=fix)
    if cheaper and not (dear or over):
        text = f"there is a cheaper option: {cheaper} a request instead of {_usd(cost)}"
        yield Finding(
            id="cost.cheaper", verdict=Verdict.PASSED, message=text, where="serving", fix="consider it"
        )


def _spikes(candidate: _Measured, champion: _Measured, config: Config) -> Iterator[Finding]:
    for finding_id, rise, limit, what in (
        (
            "latency.spike",
            _rise(candidate.latency["p50_ms"], champion.latency["p50_ms"]),
            config.maximum_latency_increase,
            "the median request takes",
        ),
        ("cost.spike", _rise(candidate.cost, champion.cost), config.maximum_cost_increase, "a request costs"),
    ):
        if rise is not None and exceeds(rise, limit):
            yield Finding(
                id=finding_id,
                verdict=Verdict.WARNED,
                message=f"{what} {percent(rise)} more than the champion's, above {percent(limit)}",
                fix="say in the business context what the difference buys, or make the model smaller",
            )


def _rise(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else now / before - 1


def _metrics(candidate: _Measured, serving: ServingSpec, config: Config) -> Iterator[Metric]:
    limits = {"p95_ms": config.maximum_p95_ms, "p99_ms": config.maximum_p99_ms}
    for name, value in candidate.latency.items():
        yield Metric(
            name=name,
            value=value,
            threshold=limits.get(name),
            direction="lower",
            unit="ms",
            n=candidate.n,
            method=candidate.method,
        )
    yield Metric(
        name="cost_per_request_usd",
        value=candidate.cost,
        threshold=config.maximum_cost_per_request_usd,
        direction="lower",
        unit="USD",
        n=candidate.n,
        method=candidate.method,
    )
    if serving.monthly_requests is not None and candidate.cost is not None:
        yield Metric(
            name="monthly_cost_usd",
            value=candidate.cost * serving.monthly_requests,
            threshold=serving.monthly_budget_usd,
            direction="lower",
            unit="USD",
        )


def _comparison(candidate: _Measured, champion: _Measured | None, config: Config) -> Iterator[Metric]:
    if champion is None:
        return
    for name, rise, limit in (
        ("cost_increase", _rise(candidate.cost, champion.cost), config.maximum_cost_increase),
        (
            "latency_increase",
            _rise(candidate.latency["p50_ms"], champion.latency["p50_ms"]),
            config.maximum_latency_increase,
        ),
    ):
        if rise is not None:
            yield Metric(
                name=name, value=rise, threshold=limit, direction="lower", where="against the champion"
            )


def _summary(candidate: _Measured, findings: list[Finding]) -> str:
    latency = candidate.latency
    head = (
        f"A request costs {_usd(candidate.cost or 0.0)}; "
        f"half are answered within {latency['p50_ms']:.4g} ms, 99 of 100 within {latency['p99_ms']:.4g} ms"
    )
    problems = [finding.message for finding in findings if finding.verdict is not Verdict.PASSED]
    return f"{head}." if not problems else f"{head}; {'; '.join(problems)}."


def _usd(value: float) -> str:
    return f"{value:.3g} USD"
