"""Champions and judged windows as Airflow assets, so that other DAGs can run when one changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAMPIONS = AssetAlias("airlock-champions")
"""What a task announces through that learns only when it runs which workload it is about."""


def champion_asset(workload: str) -> Asset:
    """The champion of a workload: ``Asset("airlock://champion/<workload>")``.

    Airflow tells assets apart by name and URI together, so there is no name but the one it gives by itself:
    whoever writes the URI into their DAG means this one.
    """
    return Asset(f"airlock://champion/{workload}")


def window_asset(workload: str) -> Asset:
    """The windows of production that were judged: ``Asset("airlock://window/<workload>")``."""
    return Asset(uri=f"airlock://window/{workload}", name=f"window-{workload}", group="airlock")


def tell_champion(context: Mapping[str, Any], workload: str, version: str, by: str) -> None:
    """Say with the event which version is in production now; empty for none."""
    events = context["outlet_events"]
    events[champion_asset(workload)].extra = {"version": version, "by": by}


def tell_champion_of(context: Mapping[str, Any], workload: str, version: str, by: str) -> None:
    """The same for a task whose workload stands in its parameters."""
    events = context["outlet_events"]
    events[CHAMPIONS].add(champion_asset(workload), extra={"version": version, "by": by})
