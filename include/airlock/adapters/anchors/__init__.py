"""Anchors: places outside the database that keep the audit log's checkpoints, each named by a URL.

    file:///mnt/other-disk/airlock                      every=0
    git:///srv/audit.git                                branch=airlock every=60
    git+ssh://git@host/audit.git, git+https, git+file   branch=airlock every=60
    mlflow://airlock-audit                              every=60
    s3://bucket/prefix                                  endpoint_url= region= retention_days= every=60
    slack://C0123456789                                 base_url= every=3600

Options are query parameters: ``git:///srv/audit.git?branch=audit&every=300``. ``every`` is the number
of seconds between two checkpoints there; 0 means each one. Secrets never stand in a URL. One place keeps the
checkpoints of one log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from airlock.adapters.anchors.file import FileAnchor
from airlock.adapters.anchors.git import BRANCH, GitAnchor, RemoteGitAnchor
from airlock.adapters.anchors.mlflow import EXPERIMENT, MlflowAnchor
from airlock.adapters.anchors.s3 import S3Anchor
from airlock.adapters.anchors.slack import VARIABLE, SlackAnchor
from airlock.adapters.anchors.url import AnchorUrl, parse, wrong
from airlock.core.errors import ConfigurationError
from airlock.ports import Anchor, Clock

__all__ = [
    "FileAnchor",
    "GitAnchor",
    "MlflowAnchor",
    "RemoteGitAnchor",
    "S3Anchor",
    "SlackAnchor",
    "open_anchor",
    "open_anchors",
]

_LONGEST_RETENTION_DAYS = 36_500


@dataclass(frozen=True)
class _Context:
    """What anchors need besides their URL."""

    cache: Path | None
    tracking_uri: str
    now: Clock | None


def open_anchors(
    urls: str, *, cache: Path | None = None, tracking_uri: str = "", now: Clock | None = None
) -> list[Anchor]:
    """Open the anchors of a list whose URLs are separated by white space or commas.

    Raises:
        ConfigurationError: one of them cannot be used, or two are the same place.
    """
    found: list[Anchor] = []
    for url in filter(None, re.split(r"[\s,]+", urls)):
        anchor = open_anchor(url, cache=cache, tracking_uri=tracking_uri, now=now)
        if anchor.name in {other.name for other in found}:
            raise wrong("an anchor is listed twice", anchor.name, "name two places that fail independently")
        found.append(anchor)
    return found


def open_anchor(
    url: str, *, cache: Path | None = None, tracking_uri: str = "", now: Clock | None = None
) -> Anchor:
    """Open one anchor; nothing is asked of the place itself yet.

    Args:
        url: one of the forms above.
        cache: folder for private copies of remote git branches, which need it.
        tracking_uri: the MLflow of the deployment; ``mlflow://`` needs it.
        now: the clock; the system's where it is not given.

    Raises:
        ConfigurationError: the URL cannot be used, or what it needs is missing.
    """
    found = parse(url, {scheme: options | {"every"} for scheme, (_, options) in _KINDS.items()})
    opener = _KINDS[found.scheme][0]
    return opener(found, _Context(cache, tracking_uri, now))


def _file(url: AnchorUrl, _: _Context) -> Anchor:
    return FileAnchor(_folder(url), every_seconds=url.number("every", 0))


def _git(url: AnchorUrl, context: _Context) -> Anchor:
    return GitAnchor(
        _folder(url), branch=_branch(url), every_seconds=url.number("every", 60), now=context.now
    )


def _remote_git(url: AnchorUrl, context: _Context) -> Anchor:
    if context.cache is None:
        raise wrong("a remote git anchor needs a folder of its own", str(url), "set AIRLOCK_HOME")
    if url.scheme == "git+file":
        _folder(url)
    elif not re.fullmatch(r"([\w.-]+@)?[A-Za-z0-9][A-Za-z0-9.:-]*", url.host) or not url.path.strip("/"):
        raise wrong(
            "host or path of the repository is wrong", f"{url.scheme}://", "write git+ssh://git@host/path.git"
        )
    remote = f"{url.scheme.removeprefix('git+')}://{url.host}{quote(url.path)}"
    if url.scheme == "git+file":  # git takes the path of a file URL as it stands
        remote = f"file://{url.path}"
    return RemoteGitAnchor(
        remote,
        context.cache,
        branch=_branch(url),
        every_seconds=url.number("every", 60),
        now=context.now,
    )


def _mlflow(url: AnchorUrl, context: _Context) -> Anchor:
    if not context.tracking_uri:
        raise wrong("the MLflow of the deployment is not known", str(url), "set AIRLOCK_MLFLOW_URI")
    if url.path.strip("/"):
        raise wrong("an experiment's name has no path", str(url), f"write mlflow://{EXPERIMENT}")
    return MlflowAnchor(
        context.tracking_uri, unquote(url.host) or EXPERIMENT, every_seconds=url.number("every", 60)
    )


def _s3(url: AnchorUrl, context: _Context) -> Anchor:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", url.host):
        raise wrong("the bucket's name is missing or wrong", str(url), "write s3://bucket/prefix")
    days = url.number("retention_days", 0)
    if days > _LONGEST_RETENTION_DAYS or ("retention_days" in url.options and not days):
        limits = f"use 1 to {_LONGEST_RETENTION_DAYS} days"
        raise wrong("the parameter 'retention_days' is out of range", str(url), limits)
    return S3Anchor(
        url.host,
        url.path,
        every_seconds=url.number("every", 60),
        endpoint_url=url.address("endpoint_url"),
        region=url.options.get("region"),
        retention_days=days,
        now=context.now,
    )


def _slack(url: AnchorUrl, _: _Context) -> Anchor:
    if not re.fullmatch(r"[CG][A-Z0-9]{2,20}", url.host) or url.path.strip("/"):
        raise wrong("this is no id of a Slack channel", "slack://", "write slack://C0123456789")
    base_url = url.address("base_url")
    if base_url and urlsplit(base_url).scheme != "https" and urlsplit(base_url).hostname != "127.0.0.1":
        raise wrong("the token would be sent in the clear", str(url), "use https in base_url")
    token = os.environ.get(VARIABLE, "").strip()
    if not token:
        raise ConfigurationError(
            f"{VARIABLE} is not set",
            where=str(url),
            fix="set it to the token of the bot, which begins with xoxb-",
        )
    return SlackAnchor(url.host, token, every_seconds=url.number("every", 3600), base_url=base_url)


def _folder(url: AnchorUrl) -> Path:
    if url.host not in ("", "localhost") or not url.path.strip("/"):
        raise wrong("the path is missing or not absolute", str(url), f"write {url.scheme}:///absolute/path")
    return Path(url.path)


def _branch(url: AnchorUrl) -> str:
    branch = url.options.get("branch", "airlock")
    if not BRANCH.fullmatch(branch):
        raise wrong("the parameter 'branch' is no name of a branch", str(url), "use letters, digits, - and /")
    return branch


_LOCAL: frozenset[str] = frozenset()
_BRANCH = frozenset({"branch"})
_KINDS: dict[str, tuple[Callable[[AnchorUrl, _Context], Anchor], frozenset[str]]] = {
    "file": (_file, _LOCAL),
    "git": (_git, _BRANCH),
    "git+ssh": (_remote_git, _BRANCH),
    "git+https": (_remote_git, _BRANCH),
    "git+file": (_remote_git, _BRANCH),
    "mlflow": (_mlflow, frozenset()),
    "s3": (_s3, frozenset({"endpoint_url", "region", "retention_days"})),
    "slack": (_slack, frozenset({"base_url"})),
}
