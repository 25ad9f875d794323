"""What was decided, read back fast: of ten thousand releases most is never looked at.

The bytes of everything read here have the digest by which the decision names them, so fields are not checked
again, and numbers of gates are only taken apart when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import asdict

from airlock.core.base import Value, trusted
from airlock.core.evidence import Evidence, Finding, GateResult, Metric, Verdict
from airlock.core.manifest import Manifest
from airlock.core.rules import content_digest
from airlock.ports import EvidenceStore

_FINDING, _METRIC, _RESULT, _EVIDENCE = (
    set(kind.model_fields) for kind in (Finding, Metric, GateResult, Evidence)
)


def _as_stored(kind: type[Value], **types: Any) -> type[msgspec.Struct]:
    """The fields of a value as they are read; what came into it later has its default."""
    fields: list[Any] = []
    for name, field in kind.model_fields.items():
        read = (name, types.get(name, Any))
        default = (
            msgspec.Raw(b"[]") if read[1] is msgspec.Raw else field.get_default(call_default_factory=True)
        )
        fields.append(read if field.is_required() else (*read, default))
    return msgspec.defstruct(kind.__name__, fields, kw_only=True)


_Result = _as_stored(GateResult, findings=list[_as_stored(Finding)], metrics=msgspec.Raw)  # type: ignore[misc]
_evidence = msgspec.json.Decoder(_as_stored(Evidence, result=_Result)).decode
_metrics = msgspec.json.Decoder(
    list[_as_stored(Metric, interval=tuple[float, float] | None)]  # type: ignore[misc]  # made above
).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode


class Fields(Mapping[str, Any]):
    """A JSON object whose fields are read one by one, when they are asked for."""

    def __init__(self, data: bytes) -> None:
        self._raw = _fields(data)
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """The value of a field.

        Raises:
            KeyError: there is no such field.
        """
        if name not in self._read:
            self._read[name] = _value(self._raw[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def stored_manifest(store: EvidenceStore, digest: str) -> Manifest:
    """A manifest, and its digest as known."""
    manifest = Manifest.model_validate_json(store.get(digest))
    content_digest.know(manifest, digest)
    return manifest


def stored_evidence(store: EvidenceStore, digest: str) -> Evidence:
    """Evidence without checking each field again."""
    data = asdict(_evidence(store.get(digest)))
    result = asdict(data["result"])
    result["verdict"] = Verdict(result["verdict"])
    result["findings"] = [
        trusted(Finding, {**asdict(finding), "verdict": Verdict(finding.verdict)}, _FINDING)
        for finding in result["findings"]
    ]
    result["metrics"] = _Metrics(result["metrics"])
    record = trusted(_Stored, {**data, "result": trusted(GateResult, result, _RESULT)}, _EVIDENCE)
    content_digest.know(record, digest)
    return record


class _Stored(Evidence):
    """Evidence whose numbers may not be taken apart yet; before it is written they are."""

    def to_data(self) -> dict[str, Any]:
        """As of every value."""
        len(self.result.metrics)
        return super().to_data()


class _Metrics(list[Metric]):
    """Metrics that are made when somebody looks at them: most decisions look at few."""

    def __init__(self, raw: msgspec.Raw) -> None:
        super().__init__()
        self._raw: msgspec.Raw | None = raw

    def _filled(self) -> _Metrics:
        if self._raw is not None:
            raw, self._raw = self._raw, None
            self.extend(trusted(Metric, asdict(stored), _METRIC) for stored in _metrics(raw))
        return self

    def __iter__(self) -> Iterator[Metric]:
        return list.__iter__(self._filled())

    def __len__(self) -> int:
        return list.__len__(self._filled())

    def __getitem__(self, index: Any) -> Any:
        return list.__getitem__(self._filled(), index)

    def __eq__(self, other: object) -> bool:
        return list.__eq__(self._filled(), other)

    __hash__ = None
