"""What was decided, read back fast, is what was stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.adapters.evidence import FileEvidenceStore
from airlock.core.canonical import sha256_hex
from airlock.core.evidence import Evidence, Finding, GateResult, Metric, Verdict
from airlock.core.rules import content_digest
from airlock.services.stored import Fields, stored_evidence, stored_manifest
from tests.support.gates import make_manifest, make_workload

TEXT = st.text(max_size=5).filter(lambda text: "\0" not in text)
NUMBER = st.floats(-1e6, 1e6)
METRICS = st.builds(
    Metric,
    name=TEXT,
    value=st.none() | NUMBER,
    threshold=st.none() | NUMBER,
    direction=st.sampled_from(["higher", "lower", "none"]),
    interval=st.none() | st.tuples(NUMBER, NUMBER),
    n=st.none() | st.integers(0, 10**9),
    where=TEXT,
)
FINDINGS = st.builds(Finding, id=TEXT, verdict=st.sampled_from(Verdict), message=TEXT, where=TEXT, fix=TEXT)
RESULTS = st.builds(
    GateResult,
    verdict=st.sampled_from(Verdict),
    summary=st.just("said"),
    findings=st.lists(FINDINGS, max_size=3),
    metrics=st.lists(METRICS, max_size=3),
    details=st.dictionaries(TEXT, st.none() | st.booleans() | TEXT | st.lists(TEXT, max_size=2), max_size=3),
)


class Memory:
    """A store of one thing."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, digest: str) -> bytes:
        assert digest == sha256_hex(self.data)
        return self.data


@pytest.mark.requirement("P-4")
@given(RESULTS)
def test_stored_evidence_is_what_was_written_whoever_reads_it(result: GateResult) -> None:
    record = Evidence(release_id="r", manifest_digest="0" * 64, gate="drift", config={"a": 1}, result=result)
    data = record.to_bytes()
    checked, fast = Evidence.from_bytes(data), stored_evidence(Memory(data), sha256_hex(data))  # type: ignore[arg-type]
    assert fast.to_bytes() == data
    assert content_digest(fast) == record.digest
    assert list(fast.result.metrics) == checked.result.metrics
    assert fast.result.findings == checked.result.findings
    assert fast.model_copy(update={"gate": "bias"}).digest != record.digest, "a copy has a digest of its own"


def test_fields_that_came_later_have_their_defaults_and_unknown_ones_are_passed_over() -> None:
    data = (
        b'{"config":{},"gate":"drift","later":1,"manifest_digest":"m","release_id":"r",'
        b'"result":{"summary":"x","verdict":"FAILED","new":[1]}}'
    )
    record = stored_evidence(Memory(data), sha256_hex(data))  # type: ignore[arg-type]
    assert (record.verdict, record.schema_version) == (Verdict.FAILED, 1)
    assert (list(record.result.metrics), len(record.result.metrics), record.result.findings) == ([], 0, [])


@pytest.mark.parametrize("data", [b"{}", b"[]", b"", b'{"result": 5}', b'{"result": {"verdict": "FINE"}}'])
def test_what_is_no_evidence_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of several libraries
        stored_evidence(Memory(data), sha256_hex(data))  # type: ignore[arg-type]


def test_a_stored_manifest_and_single_fields(tmp_path: Path) -> None:
    store, manifest = FileEvidenceStore(tmp_path), make_manifest(make_workload())
    digest = store.put(manifest.to_bytes())
    read = stored_manifest(store, digest)
    assert (read, content_digest(read)) == (manifest, digest)
    fields = Fields(store.get(digest))
    assert (fields["workload"], len(fields)) == (manifest.workload, len(list(fields)))
    with pytest.raises(KeyError):
        fields["nothing"]
