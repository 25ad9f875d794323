"""The engine of a deployment: CEL for rules in YAML, Regorus or an OPA server for rules in Rego."""

from __future__ import annotations

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.rego import RegoRules
from airlock.adapters.rego.opa import OpaServer
from airlock.adapters.settings import Settings


def open_engine(settings: Settings) -> CelEngine:
    """Nothing is started or contacted before a policy has rules in Rego."""
    return CelEngine(open_rego(settings).reasons)


def open_rego(settings: Settings) -> RegoRules:
    """The rules in Rego, judged by Regorus unless the settings name an OPA server."""
    return RegoRules(OpaServer(settings.opa_url) if settings.opa_url else None)
