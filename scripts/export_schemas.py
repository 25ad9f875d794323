"""Writes the JSON Schemas of the files in config/, so that an editor completes and checks them.

    python scripts/export_schemas.py            write config/schemas/
    python scripts/export_schemas.py --check    change nothing; exit 1 when a schema is stale

The schema of a policy includes the configuration of every gate, taken from the gates themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from airlock.core.base import Value
from airlock.core.canary import Canary
from airlock.core.notices import Notifications
from airlock.core.people import People
from airlock.core.policy import Policy
from airlock.core.retention import Retention
from airlock.core.suite import Suite
from airlock.core.workload import Workload
from airlock.gates import gate_names, gate_text, load_gate

ROOT = Path(__file__).resolve().parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """File name → schema."""
    return {
        "expectations.schema.json": _schema(Suite),
        "notifications.schema.json": _schema(Notifications),
        "canary.schema.json": _schema(Canary),
        "people.schema.json": _schema(People),
        "policy.schema.json": _policy(),
        "retention.schema.json": _schema(Retention),
        "workload.schema.json": _schema(Workload),
    }


def _schema(model: type[Value]) -> dict[str, Any]:
    return {"$schema": DIALECT, **model.model_json_schema()}


def _policy() -> dict[str, Any]:
    """The schema of a file of a policy bundle; ``gates`` knows every gate and what it can be told.

    Each file holds some sections, so none is required; `airlock policy check` sees the whole bundle.
    """
    configs = {name: load_gate(name).Config for name in gate_names()}
    places, shared = models_json_schema(
        [(config, "validation") for config in configs.values()], ref_template="#/$defs/{model}"
    )
    schema = _schema(Policy)
    del schema["required"], schema["properties"]["rego"]
    definitions = schema["$defs"] | shared.get("$defs", {})
    properties = {}
    for name, config in configs.items():
        text = gate_text(name)
        properties[name] = {
            **places[config, "validation"],
            "title": text.title,
            "description": f"Why it matters: {text.why} What good looks like: {text.good}",
        }
    gates = schema["properties"]["gates"]
    # The model takes any name and leaves the rest to the gate; an editor should know better.
    del gates["patternProperties"]
    gates |= {"properties": properties, "additionalProperties": False}
    return {**schema, "$defs": dict(sorted(definitions.items()))}


def main(arguments: list[str] | None = None, *, folder: Path = ROOT / "config" / "schemas") -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="JSON Schemas of the configuration files.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when one is stale")
    options = parser.parse_args(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, schema in schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if options.check and stale:
        print(f"stale: {', '.join(stale)}; run `make schemas`", file=sys.stderr)
        return 1
    print("config/schemas/ is up to date" if not stale else f"wrote {', '.join(stale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
