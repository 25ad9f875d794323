"""Workloads of three gates for the tests of a real Airflow that are not about gates.

A release of a shipped workload runs thirteen gates, which takes four times as long.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from airlock.demo import models
from tests.support.deployments import policy_data, shipped_policy, write_yaml

GREEN = "few-gates"
"""Has a champion, and a refit of it is released without people, once somebody adopted the champion."""

RED = "first-release"
"""Has no champion and gets none, so two people are asked about each release."""

IN_SLACK = "answered-in-slack"
ON_CONDITION = "on-condition"
CLOSES_SOON = "closes-soon"
"""Asks for seconds; all others ask for days."""

_GATES = ("documentation", "performance", "security")
_SOON = {"expires_hours": 90 / 3600, "remind_hours": [3 / 3600], "escalate_hours": 6 / 3600}
_POLICIES = {"0.1.0": (GREEN, RED, IN_SLACK, ON_CONDITION), "0.2.0": (CLOSES_SOON,)}


def add_small_workloads(config: Path) -> None:
    """Write all of them, with their policies, into a folder of configuration."""
    for version, names in _POLICIES.items():
        # Models may run as long as elsewhere, and hold the types that the security gate names.
        policy = policy_data(_GATES, version=version, sandbox=shipped_policy().to_data()["sandbox"])
        policy["approval"] |= {
            "condition_days": 30,
            "delegate_days": 30,
            **(_SOON if CLOSES_SOON in names else {}),
        }
        write_yaml(config / "policies" / version / "policy.yaml", policy)
        for name in names:
            workload = yaml.safe_load((config / "workloads" / f"{models.RATE_TYPE}.yaml").read_text())
            workload |= {"name": name, "title": name, "policy": version}
            workload["model"]["registered_model"] = name
            del workload["monitoring"]
            write_yaml(config / "workloads" / f"{name}.yaml", workload)


def small(model: models.DemoModel, workload: str) -> models.DemoModel:
    """The model as one of a small workload."""
    return replace(model, workload=workload)
