"""Files as responses: what a browser may do with them is decided here, never by the file."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from airlock.services.evidence_files import open_file
from airlock.services.questions.access import record_access

if TYPE_CHECKING:
    from airlock.web.access import Visitor

# A document of its own without an origin: no script runs, nothing is loaded, no cookie is sent from it.
_SANDBOX = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def evidence_response(visitor: Visitor, release_id: str, digest: str) -> Response:
    """A file of a release that this user may see.

    Raises:
        NotFoundError: no such release for this user, or no such file of it.
        UnavailableError: the read cannot be recorded, so nothing is given.
    """
    release = visitor.release(release_id)
    file, content = open_file(visitor.deployment, release, digest, reader=visitor.name)
    # A file of this digest is the same for ever, but who may read it can change.
    headers = {"Content-Security-Policy": _SANDBOX, "Cache-Control": "private, no-cache"}
    if not file.shown:
        name = "-".join(part for part in (release_id, file.gate, file.name) if part)
        headers["Content-Disposition"] = f'attachment; filename="{_UNSAFE.sub("-", name)}"'
    return Response(content, media_type=file.media_type, headers=headers)


def pack_response(visitor: Visitor, release_id: str) -> Response:
    """The evidence pack of a release that this user may see; that it was taken is recorded first.

    Raises:
        NotFoundError: no such release for this user.
        UnavailableError: the read cannot be recorded, or events are not in the signed log yet.
        IntegrityError: what was recorded does not verify.
    """
    from airlock.services.evidence_pack import export_pack

    visitor.release(release_id)
    record_access(visitor.deployment, "evidence-pack", {"release": release_id}, asker=visitor.name)
    folder = Path(tempfile.mkdtemp(prefix="airlock-pack-"))
    try:
        path = export_pack(visitor.deployment, release_id, folder / "pack.zip")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return FileResponse(
        path,
        media_type="application/zip",
        filename=f"{_UNSAFE.sub('-', release_id)}.zip",
        background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
    )
