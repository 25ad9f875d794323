"""Finds credentials in the files of an artifact: what each is and where, never the thing itself."""

from __future__ import annotations

import re
from pathlib import Path

_LOOKED_AT = 16 << 20
"""Bytes of a file that are looked at; credentials stand in texts, and texts are small."""

_MAXIMUM_HITS = 20

_KINDS: dict[str, re.Pattern[bytes]] = {
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----"),
    "AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,80}|github_pat_[A-Za-z0-9_]{50,100})\b"),
    "GitLab token": re.compile(rb"\bglpat-[A-Za-z0-9_-]{20,60}"),
    "Slack token": re.compile(rb"\bxox[abeoprs]-[0-9A-Za-z-]{10,200}"),
    "Google API key": re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b"),
    "Stripe key": re.compile(rb"\b[rs]k_live_[0-9A-Za-z]{20,100}\b"),
    "Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,60}\b"),
    "OpenAI key": re.compile(rb"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,200}\b"),
    "PyPI token": re.compile(rb"\bpypi-[A-Za-z0-9_-]{50,250}"),
    "JSON web token": re.compile(
        rb"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,1000}"
    ),
    "Azure storage key": re.compile(rb"AccountKey=[A-Za-z0-9+/]{80,90}={0,2}"),
    "URL with a password": re.compile(
        rb"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"<>{}$]{1,64}:[^\s/@'\"<>{}$*]{3,128}@"
    ),
    "password": re.compile(
        rb"(?i)\b(?:password|passwd|secret(?:_?key)?|api_?key|auth_?token|access_?token)[\"']?\s{0,4}[:=]\s{0,4}"
        rb"[\"']?(?!(?:none|null|true|false|changeme|example|your|xxx|\*{3}|<|\$|\{|%))[^\s\"',;<>${}*]{8,128}"
    ),
}


def find_secrets(path: Path) -> list[dict[str, object]]:
    """Kind and line of each credential in a file; line 0 in a file that is not text."""
    with path.open("rb") as stream:
        data = stream.read(_LOOKED_AT)
    text = b"\x00" not in data[:4096]
    found: list[dict[str, object]] = []
    for kind, pattern in _KINDS.items():
        if kind == "password" and not text:
            continue  # in numbers its few words stand by chance
        for match in pattern.finditer(data):
            line = data.count(b"\n", 0, match.start()) + 1 if text else 0
            found.append({"kind": kind, "line": line})
            if len(found) >= _MAXIMUM_HITS:
                return found
    return found
