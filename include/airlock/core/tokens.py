"""What a value looks like once it no longer tells whom it is about: a token, a hash, or a redaction."""

from __future__ import annotations

import re

_FORMS: dict[str, re.Pattern[str]] = {
    "uuid": re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    # MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512, with or without a name before it
    "hash": re.compile(
        r"(?:(?:md5|sha\d{1,3}|hmac)[:$-])?(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{56}|[0-9a-fA-F]{64}"
        r"|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})"
    ),
    # a word that says so, then at least 64 bits in hexadecimal or base 32, 36, 62, 64
    "token": re.compile(
        r"(?i:tok|token|tkn|ref|anon|pseudo|psd|id|vault)[_:-](?=[^_:-]*\d)[A-Za-z0-9+/=_-]{11,}"
    ),
    "base64": re.compile(r"(?=.*\d)(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9+/_-]{22,}={0,2}"),
    "redacted": re.compile(
        r"(?i:\[?<?\(?(?:redacted|removed|masked|hidden|anonymi[sz]ed|deleted|n/?a)\)?>?\]?)"
        r"|(?=.*[*\u2022\u2588xX#]{3})[*\u2022\u2588xX#@.\- ()+/]{3,}"
    ),
}


def token_form(text: str) -> str:
    """Which form of a token a value has, or ``""`` for none of them.

    A form is no proof: a hash of a short number can be reversed by trying all numbers. It tells a column
    that was tokenised from one that was not.
    """
    if len(text) > _LONGEST:
        return ""
    return next((name for name, form in _FORMS.items() if form.fullmatch(text.strip())), "")


_LONGEST = 512
