"""Checks the signature of a model's files with model-signing: keys the policy trusts, and no network."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SIGNATURE_NAMES = ("model.sig", "model.sig.json")
_MAXIMUM_BYTES = 4 << 20
_UNSIGNED = {*SIGNATURE_NAMES, "registered_model_meta"}
"""The signature itself, and the name and number MLflow adds when a version is registered."""


@dataclass(frozen=True)
class Checked:
    """What became of a signature: ``good`` with the key's name, else a problem in words."""

    key: str = ""
    problem: str = ""
    missing: bool = False
    impossible: bool = False

    @property
    def good(self) -> bool:
        """Whether a trusted key signed exactly these files."""
        return bool(self.key)


def check_signature(root: Path, keys: Mapping[str, str]) -> Checked:
    """Whether the files below ``root`` are signed by one of the keys (name → PEM, elliptic curve)."""
    found = [root / name for name in SIGNATURE_NAMES if (root / name).is_file()]
    if not found:
        return Checked(problem="the artifact is not signed", missing=True)
    if found[0].stat().st_size > _MAXIMUM_BYTES:
        return Checked(problem="the signature is larger than any signature is")
    try:
        from model_signing import verifying
    except ImportError:
        return Checked(problem="the extra `signing` is not installed", impossible=True)
    problems = []
    with tempfile.TemporaryDirectory(prefix="airlock-key-") as folder:
        for name, pem in sorted(keys.items()):
            key = Path(folder) / "key.pem"
            key.write_text(pem)
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # it prints about old signatures
                    config = verifying.Config()  # type: ignore[no-untyped-call]
                    config.use_elliptic_key_verifier(public_key=key)
                    config.set_ignore_unsigned_files(True).verify(root, found[0])
            except Exception as error:  # noqa: BLE001 - a hostile signature can make it raise anything
                problems.append(f"{name}: {str(error)[:200] or type(error).__name__}")
                continue
            left = _unsigned(root, found[0])
            if left:
                return Checked(problem=f"files that nobody signed are in the artifact: {', '.join(left[:5])}")
            return Checked(key=name)
    return Checked(problem=f"no trusted key made this signature ({'; '.join(problems)})")


def _unsigned(root: Path, signature: Path) -> list[str]:
    """Files the verified statement does not name. It was verified just now, so it can be read."""
    bundle = json.loads(signature.read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    signed = {resource["name"] for resource in statement["predicate"]["resources"]}
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    return sorted(files - signed - _UNSIGNED)
