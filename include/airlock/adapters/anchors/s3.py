"""An anchor in an object store: one object per checkpoint, locked against deletion where wanted."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airlock.adapters.anchors.rules import (
    MAX_NOTE_BYTES,
    conflict,
    in_order,
    is_newest,
    kept,
    tampered,
    to_publish,
)
from airlock.adapters.system import SystemClock
from airlock.core.errors import ConfigurationError, UnavailableError
from airlock.ports import Clock
from airlock.proof import Checkpoint

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_READERS = 8
_PAGE = 1_000
_KEY = re.compile(r"([0-9]{4})-([0-9]{20})\.note")
_LOGS, _SIZES = 9_999, 10**20 - 1


class S3Anchor:
    """Checkpoints below a prefix of a bucket of S3 or a store with the same interface.

    Keys count down, ``<9999 - log>-<99999999999999999999 - size>.note``: stores list them in alphabetical
    order, so the newest checkpoint is the first. ``log`` is 0 and one more each time that the log was begun
    anew. An object is only created, never replaced (``If-None-Match: *``): of two checkpoints of one size
    one wins. Two of different sizes at the same moment are both kept, since no store compares
    across keys; a fork between them shows in the history.

    With ``retention_days`` objects are locked in compliance mode, so that for that time nobody can delete
    them, the owner of the account included; the bucket must have been made with object lock. Somebody may
    still cover an object with a new version or a delete marker: both are integrity errors then.

    Credentials come from boto3's usual chain (environment, profile, role of the machine). Tested with moto,
    which keeps conditions, versions and locks; not tested is the answer 409 of Amazon's store
    to two conditional writes at the same instant, which is handled as its documentation says.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        every_seconds: int = 60,
        endpoint_url: str | None = None,
        region: str | None = None,
        retention_days: int = 0,
        now: Clock | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._endpoint_url = endpoint_url
        self._region = region
        self._retention_days = retention_days
        self._now = now or SystemClock()
        self.name = f"s3://{bucket}/{self._prefix}" + (
            f"?endpoint_url={endpoint_url}" if endpoint_url else ""
        )
        self.every_seconds = every_seconds

    @cached_property
    def _client(self) -> S3Client:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise ConfigurationError(
                "boto3 is not installed", where=self.name, fix="pip install 'airlock-governance[s3]'"
            ) from error
        config = Config(
            connect_timeout=5,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 3},
            # Stores other than Amazon's seldom have a host name for each bucket.
            s3={"addressing_style": "path"} if self._endpoint_url else {},
        )
        # A session of its own: boto3's common one is for one thread only.
        session = boto3.session.Session()
        return session.client("s3", endpoint_url=self._endpoint_url, region_name=self._region, config=config)

    def history(self) -> list[str]:
        """All kept checkpoints, oldest first; one request for each."""
        with self._translated():
            keys = list(self._keys())
            with ThreadPoolExecutor(_READERS) as pool:
                notes = list(pool.map(self._note, reversed(keys)))
        return in_order(notes, self.name)

    def latest(self) -> str | None:
        """The newest checkpoint; two requests, however many are kept."""
        found = self._newest()
        return None if found is None else found[1]

    def publish(self, note: str, *, after: str | None) -> str:
        """Create an object; the receipt is its key."""
        checkpoint = to_publish(note)
        newest = self._newest()
        if is_newest(note, None if newest is None else newest[1], after, self.name) and newest is not None:
            return newest[0]
        log = 0
        if newest is not None:
            log = _log_of(newest[0]) + (Checkpoint.parse(newest[1]).origin != checkpoint.origin)
        key = f"{self._prefix}{_LOGS - log:04d}-{_SIZES - checkpoint.size:020d}.note"
        with self._translated():
            self._create(key, note)
        return key

    def _newest(self) -> tuple[str, str] | None:
        """Key and text of the newest checkpoint."""
        with self._translated():
            key = next(self._keys(newest_only=True), None)
            return None if key is None else (key, self._note(key))

    def _create(self, key: str, note: str) -> None:
        from botocore.exceptions import ClientError

        values: dict[str, Any] = {}
        if self._retention_days:
            now = dt.datetime.fromtimestamp(self._now.now_us() / 1e6, dt.UTC)
            until = now + dt.timedelta(days=self._retention_days)
            values = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=note.encode(),
                ContentType="text/plain; charset=utf-8",
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                **values,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            # It may be ours: boto3 writes again when the answer to a write that worked gets lost.
            if self._note(key) != note:
                raise conflict(self.name) from error

    def _keys(self, *, newest_only: bool = False) -> Iterator[str]:
        """Keys of the checkpoints, newest first."""
        size = (2 if self._retention_days else 1) if newest_only else _PAGE
        for key in self._versions(size) if self._retention_days else self._objects(size):
            if not _KEY.fullmatch(key.removeprefix(self._prefix)):
                raise tampered(f"another object lies among the checkpoints: {key[:200]!r}", self.name)
            yield key

    def _objects(self, page_size: int) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix,
            PaginationConfig={"PageSize": page_size},
        )
        for page in pages:
            for found in page.get("Contents", []):
                yield found["Key"]

    def _versions(self, page_size: int) -> Iterator[str]:
        last = ""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix,
            PaginationConfig={"PageSize": page_size},
        )
        for page in pages:
            for marker in page.get("DeleteMarkers", []):
                raise tampered(f"somebody deleted {marker['Key']}; its version is still there", self.name)
            for found in page.get("Versions", []):
                if found["Key"] == last:
                    raise tampered(f"somebody wrote over {last}; the first version is still there", self.name)
                last = found["Key"]
            yield from (found["Key"] for found in page.get("Versions", []))

    def _note(self, key: str) -> str:
        from botocore.exceptions import FlexibleChecksumError

        where = f"{self.name}: {key}"
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            note = kept(found["Body"].read(MAX_NOTE_BYTES + 1), where)
        except FlexibleChecksumError as error:
            raise tampered(f"the object is damaged: {error}", where) from error
        if not key.endswith(f"-{_SIZES - Checkpoint.parse(note).size:020d}.note"):
            raise tampered("the object holds the checkpoint of another size", where)
        return note

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            _ = self._client  # says that boto3 is missing, and how to get it
            raise
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            message = error.response.get("Error", {}).get("Message", "")
            raise self._unavailable(f"{code} {message}".strip(), code) from error
        except (BotoCoreError, OSError) as error:
            raise self._unavailable(str(error), type(error).__name__) from error

    def _unavailable(self, message: str, code: str) -> UnavailableError:
        fixes = {
            "NoSuchBucket": "create the bucket, with object lock if there is to be retention",
            "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
            "AccessDenied": "allow s3:ListBucket, s3:ListBucketVersions, s3:GetObject, s3:PutObject and "
            "s3:PutObjectRetention on the bucket",
            "InvalidRequest": "make the bucket with object lock, or leave retention_days out",
        }
        fix = fixes.get(code, "check the endpoint, the region and the credentials in the environment")
        return UnavailableError(f"the object store failed: {message[:300]}", where=self.name, fix=fix)


def _log_of(key: str) -> int:
    return _LOGS - int(key.rpartition("/")[2].partition("-")[0])
