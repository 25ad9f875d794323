"""What a gate says about itself: text, fields of its configuration, and an example that works."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from airlock.core.base import Value
from airlock.gates import GateText, gate_names, gate_source, gate_text, load_gate
from airlock.gates.base import Need, Stage
from airlock.services.gate_files import newest_policy

_KEYS: dict[Need, str] = {
    Need.ARTIFACT: "artifact: model            # folder with the model's files\n",
    Need.CARD: "card: model-card.md\n",
    Need.SUITE: "suite: expectations.yaml\n",
    Need.CONTEXT: "context: Fewer good applicants are turned down; asked for by the credit team.\n",
}
_COLUMNS = """\
columns:
  label: outcome           # what really happened
  prediction: decision     # what the model decided
  score: probability       # what the decision rests on
  sensitive: [sex]         # protected attributes; never features
  features: [income, debt]
positive: approved         # the favourable value of label and prediction
"""


@dataclass(frozen=True)
class GateField:
    """One field of a gate's configuration: its name, type, meaning and shipped value."""

    name: str
    type: str
    text: str
    shipped: Any


@dataclass(frozen=True)
class GateDescription:
    """Everything `airlock gate describe` shows."""

    name: str
    text: GateText
    stage: Stage
    source: str
    fields: list[GateField]
    schema: dict[str, Any]
    example: str
    command: str

    def to_data(self) -> dict[str, Any]:
        """The description for programs."""
        return {
            "gate": self.name,
            "title": self.text.title,
            "why": self.text.why,
            "good": self.text.good,
            "fix": self.text.fix,
            "stage": str(self.stage),
            "source": self.source,
            "schema": self.schema,
            "example": self.example,
            "command": self.command,
        }


def list_gates() -> list[dict[str, str]]:
    """Every gate there is, built in or installed, with its title."""
    return [
        {
            "gate": name,
            "title": gate_text(name).title,
            "stage": str(load_gate(name).STAGE),
            "source": gate_source(name),
        }
        for name in gate_names()
    ]


def describe_gate(name: str) -> GateDescription:
    """Describe one gate.

    Raises:
        ConfigurationError: there is no such gate.
    """
    module = load_gate(name)
    policy = newest_policy()
    shipped = {} if policy is None else policy.gates.get(name, {})
    needs: tuple[Need, ...] = getattr(module, "NEEDS", (Need.CURRENT, Need.REFERENCE))
    return GateDescription(
        name=name,
        text=gate_text(name),
        stage=module.STAGE,
        source=gate_source(name),
        fields=config_fields(module.Config, shipped),
        schema=module.Config.model_json_schema(),
        example=example(module, needs, shipped),
        command=command(name, needs),
    )


def config_fields(config: type[Value], shipped: dict[str, Any]) -> list[GateField]:
    """The fields of a configuration; what they mean stands in the field or in the class's docstring."""
    texts = attribute_texts(config.__doc__ or "")
    schema = config.model_json_schema()
    return [
        GateField(
            name=name,
            type=type_text(schema["properties"][name], schema.get("$defs", {})),
            text=info.description or texts.get(name, ""),
            shipped=shipped.get(name),
        )
        for name, info in config.model_fields.items()
    ]


def attribute_texts(docstring: str) -> dict[str, str]:
    """Name → meaning, from the section "Attributes:" of a docstring."""
    _, _, section = docstring.partition("Attributes:\n")
    texts: dict[str, str] = {}
    indent, name = None, ""
    for line in section.splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if depth < indent:
            break
        if depth == indent:
            name, _, text = line.strip().partition(":")
            texts[name] = text.strip()
        elif name:
            texts[name] += f" {line.strip()}"
    return texts


def type_text(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A field's JSON Schema in a few words, such as ``number, 0 to 1``."""
    if "$ref" in schema:
        return type_text(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_text(part, definitions) for part in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {type_text(schema.get('items', {}), definitions)}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"name → {type_text(schema['additionalProperties'], definitions)}"
    words = {"integer": "whole number", "boolean": "true or false", "string": "text", "null": "nothing"}
    kind = words.get(schema.get("type", "any"), str(schema.get("type", "anything")))
    bounds = [
        f"{word} {schema[key]:g}"
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return ", ".join([kind, *bounds])


def example(module: Any, needs: tuple[Need, ...], shipped: dict[str, Any]) -> str:
    """A configuration file for this gate that works on a file with these columns."""
    parts = [_COLUMNS] if any(need.is_data for need in needs) else []
    parts += [text for need, text in _KEYS.items() if need in needs]
    parts += [str(getattr(module, "EXAMPLE", ""))]
    limits = yaml.safe_dump({"limits": shipped}, sort_keys=False, allow_unicode=True, width=100)
    if shipped:
        parts.append(
            re.sub(r"^limits:", "limits:                    # what is left out comes from policy", limits)
        )
    return "".join(parts)


def command(name: str, needs: tuple[Need, ...]) -> str:
    """The command that runs it."""
    options = "".join(f" --{need} {need}.parquet" for need in needs if need.is_data)
    return f"airlock gate run {name} --config {name}.yaml{options}"
