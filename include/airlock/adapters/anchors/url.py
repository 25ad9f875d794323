"""Anchor URLs: ``scheme://place/path?option=value``, never with a secret in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from airlock.core.errors import ConfigurationError

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class AnchorUrl:
    """A URL in its parts.

    Attributes:
        scheme: which kind of place.
        host: host, bucket, channel or experiment as it stands there; with ``user@`` before it for SSH.
        path: the path, percent-decoded.
        options: the query.
    """

    scheme: str
    host: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number.

        Raises:
            ConfigurationError: it is none.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            raise wrong(f"the parameter {name!r} is no whole number", str(self), f"write {name}=60")
        return int(text)

    def address(self, name: str) -> str | None:
        """An option that is an HTTP address.

        Raises:
            ConfigurationError: it is none, or holds a name and a password.
        """
        text = self.options.get(name)
        if text is None:
            return None
        parts = _split(text)
        if (
            parts is None
            or parts.scheme not in ("http", "https")
            or not parts.hostname
            or "@" in parts.netloc
        ):
            raise wrong(
                f"the parameter {name!r} is no address",
                str(self),
                "use https://host, without name and password",
            )
        return text


def wrong(what: str, where: str, fix: str) -> ConfigurationError:
    """The error for a URL that cannot be used; ``where`` must hold nothing but scheme, host and path."""
    return ConfigurationError(what, where=where or "anchor URL", fix=fix)


def parse(url: str, known: Mapping[str, frozenset[str]]) -> AnchorUrl:
    """Take a URL apart; ``known`` says which options each scheme has.

    Raises:
        ConfigurationError: unknown scheme or option, or something that looks like a secret.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in known or not url.startswith(f"{parts.scheme}://"):
        # Not shown: a text that is no URL may be anything, a token too.
        raise wrong(
            "this is no URL of an anchor", "", f"begin it with one of {', '.join(sorted(known))} and ://"
        )
    user, at, host = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme != "git+ssh"):
        raise wrong(
            "the URL of an anchor holds credentials",
            f"{parts.scheme}://{host}{parts.path}",
            "take them out; git, boto3, MLflow and Slack each have environment variables for them",
        )
    found = AnchorUrl(parts.scheme, parts.netloc, unquote(parts.path), _options(parts))
    if parts.fragment or "\0" in found.host + found.path or not (found.host + found.path).isprintable():
        raise wrong(
            "the URL of an anchor holds a fragment or a control character", "", "percent-encode # as %23"
        )
    for name in found.options:
        if name not in known[found.scheme]:
            options = ", ".join(sorted(known[found.scheme]))
            raise wrong(f"unknown parameter {name[:40]!r}", str(found), f"use one of {options}")
    return found


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return None
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs) or "" in options.values():
        raise wrong("a parameter is empty or stands there twice", where, "write each one once: name=value")
    return options
