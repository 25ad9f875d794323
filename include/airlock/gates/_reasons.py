"""From a feature to the reason a declined person is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airlock.gates.documentation import feature_meanings

_LENGTH = 200


def printable(text: str, limit: int) -> str:
    """Text that is safe in XML and JSON and fits: control characters replaced, cut with an ellipsis."""
    clean = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\u2026"


def reason_texts(features: Sequence[str], declared: Mapping[str, str], card: str) -> dict[str, str]:
    """Feature → reason: what the workload declares, else what the model card says it means, else its name.

    Many features may share a reason; their contributions are then summed.
    """
    meanings = feature_meanings(card, features)
    return {name: printable(declared.get(name) or meanings.get(name) or name, _LENGTH) for name in features}
