"""Follows links of lineage on disk: DVC, LakeFS, Feast, git, lock files.

None of these tools need be installed, except git for a repository.

DVC: a ``.dvc`` file has ``outs[].md5``, a ``dvc.lock`` has ``stages.*.{deps,outs}[].md5``. The hash of a
folder is the MD5 of the JSON list of ``{md5, relpath}`` of its files, sorted by relpath, then ``.dir``.
Before version 3, which writes ``hash: md5``, a line of a text ended with a line feed, whatever the file had.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airlock.adapters.evidence import hash_file
from airlock.adapters.yaml_files import load_yaml
from airlock.core.canonical import digest_of
from airlock.core.declarations import FeatureView, LineageSpec
from airlock.core.errors import AirlockError
from airlock.core.lineage import Link

_LAKEFS = re.compile(r"lakefs://(?P<repository>[a-z0-9-]+)/(?P<ref>[^/]+)/(?P<path>.+)")
_COMMIT = re.compile(r"[0-9a-f]{64}")
_SHORTEST = 12
"""Hex digits from which a LakeFS commit is taken as one; a branch name can look like fewer."""
_GIT_SECONDS = 30
_REFS = ("refs/heads", "refs/remotes", "refs/tags")
# Nothing of the repository may run here.
_GIT = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.pager=cat")


def follow(spec: LineageSpec, root: Path, *, commit: str = "") -> list[Link]:
    """Every link that ``spec`` declares, with what is there now.

    Args:
        spec: what the owner declares.
        root: folder its paths lie in; nothing outside is read.
        commit: git commit the training run names; the declared one where it names none.
    """
    folder = root if spec.repository is None else root / spec.repository
    links = [link for name in spec.dvc for link in _dvc(folder, name)]
    links += [_lakefs(address) for address in spec.lakefs]
    links += [_feast(folder, view) for view in spec.feature_views]
    if spec.repository is not None:
        links.append(_git(folder, spec.repository, commit or spec.commit or ""))
    elif commit or spec.commit:
        links.append(Link(kind="code", tool="git", name="training run", found=commit or spec.commit or ""))
    if spec.lock_file is not None:
        links.append(_lock(folder, spec.lock_file))
    return links


def _inside(folder: Path, name: str | Path) -> Path | None:
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) else None


def _dvc(folder: Path, name: str) -> Iterator[Link]:
    path = _inside(folder, name)
    if path is None or not path.is_file():
        problem = "leaves the repository" if path is None else "is not there"
        yield Link(kind="data", tool="dvc", name=name, problem=problem)
        return
    try:
        data = load_yaml(path)
        entries = list(_dvc_entries(data))
    except AirlockError as error:
        yield Link(kind="data", tool="dvc", name=name, problem=f"cannot be read: {error.what}")
        return
    if not entries:
        yield Link(kind="data", tool="dvc", name=name, problem="names no file with a digest")
    base = path.parent / str(data.get("wdir", ".")) if isinstance(data, dict) else path.parent
    for entry in entries:
        yield _dvc_link(folder, base, name, entry)
    for stage, parameters in _dvc_parameters(data):
        yield Link(kind="parameters", tool="dvc", name=f"{name}: {stage}", found=digest_of(parameters))


def _dvc_entries(data: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(data, dict):
        return
    stages = data.get("stages")
    places = [data, *(stages.values() if isinstance(stages, dict) else [])]
    for place in places:
        for key in ("deps", "outs"):
            found = place.get(key) if isinstance(place, dict) else None
            yield from (entry for entry in found or [] if isinstance(entry, dict) and "path" in entry)


def _dvc_parameters(data: Any) -> Iterator[tuple[str, Any]]:
    stages = data.get("stages") if isinstance(data, dict) else None
    for name, stage in sorted((stages if isinstance(stages, dict) else {}).items()):
        if isinstance(stage, dict) and stage.get("params"):
            yield str(name), stage["params"]


def _dvc_link(folder: Path, base: Path, name: str, entry: dict[str, Any]) -> Link:
    said, claimed = str(entry["path"]), str(entry.get("md5", ""))
    described = Link(kind="data", tool="dvc", name=f"{name}: {said}", claimed=claimed)
    path = _inside(folder, base / said)
    if not claimed:
        return described.model_copy(update={"problem": "has no md5; run dvc commit"})
    if path is None:
        return described.model_copy(update={"problem": "leaves the repository"})
    if not path.exists():
        return described.model_copy(update={"problem": "is not there; run dvc pull"})
    try:
        found = folder_md5(path) if path.is_dir() else _file_md5(path, claimed, old="hash" not in entry)
    except OSError as error:
        return described.model_copy(update={"problem": f"cannot be read: {error.strerror}"})
    return described.model_copy(update={"found": found})


def folder_md5(folder: Path) -> str:
    """DVC's hash of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    listed = [{"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    listed.sort(key=lambda entry: entry["relpath"])
    return (
        hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    )


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _file_md5(path: Path, claimed: str, *, old: bool) -> str:
    found = _md5(path)
    if found == claimed or not old:
        return found
    content = path.read_bytes()
    if b"\0" in content[:512]:
        return found
    return hashlib.md5(content.replace(b"\r\n", b"\n"), usedforsecurity=False).hexdigest()


def _lakefs(address: str) -> Link:
    match = _LAKEFS.fullmatch(address)
    if match is None:
        problem = "is no address: write lakefs://repository/commit/path"
        return Link(kind="data", tool="lakefs", name=address, problem=problem)
    ref = match["ref"]
    if not (_COMMIT.fullmatch(ref) or (len(ref) >= _SHORTEST and re.fullmatch(r"[0-9a-f]+", ref))):
        problem = f"names {ref!r}, a branch or tag that moves, and not a commit"
        return Link(kind="data", tool="lakefs", name=address, problem=problem)
    return Link(kind="data", tool="lakefs", name=address, found=ref)


def _feast(folder: Path, view: FeatureView) -> Link:
    link = Link(kind="features", tool="feast", name=view.name)
    path = _inside(folder, view.definition)
    if path is None or not path.is_file():
        problem = (
            f"its definition {view.definition} {'leaves the repository' if path is None else 'is not there'}"
        )
        return link.model_copy(update={"problem": problem})
    quoted = re.compile(rf"""["']{re.escape(view.name)}["']""")
    if not quoted.search(path.read_text(encoding="utf-8", errors="replace")):
        return link.model_copy(update={"problem": f"is not defined in {view.definition}"})
    return link.model_copy(update={"found": hash_file(path)})


def _lock(folder: Path, name: str) -> Link:
    path = _inside(folder, name)
    if path is None or not path.is_file():
        problem = "leaves the repository" if path is None else "is not there"
        return Link(kind="environment", tool="lock file", name=name, problem=problem)
    if not path.read_bytes().strip():
        return Link(kind="environment", tool="lock file", name=name, problem="is empty")
    return Link(kind="environment", tool="lock file", name=name, found=hash_file(path))


def _git(folder: Path, name: str, commit: str) -> Link:
    """The commit must be named, be in the repository, on a branch; a tree that was changed proves nothing."""
    head = _ask(folder, "rev-parse", "--verify", "HEAD^{commit}") if folder.is_dir() else None
    found, problem = commit or head or "", ""
    if head is None:
        problem = "is no git repository with a commit that can be read"
    elif not commit:
        if _ask(folder, "status", "--porcelain", "--untracked-files=no") != "":
            problem = "has changes that are not committed, and the run names no commit"
    elif _ask(folder, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        problem = f"has no commit {commit[:12]}"
    elif not _ask(folder, "for-each-ref", f"--contains={commit}", "--count=1", *_REFS):
        problem = f"has commit {commit[:12]} on no branch and no tag, so it can vanish"
    return Link(
        kind="code", tool="git", name=name, claimed=commit, found="" if problem else found, problem=problem
    )


def commit_authors(spec: LineageSpec, root: Path, *, commit: str = "") -> list[tuple[str, str]]:
    """Who wrote the commit a model was trained from, and who last changed its data, as git writes them.

    Each is an address or a name with what its owner did. Empty where no repository is declared.
    """
    if spec.repository is None:
        return []
    folder = root / spec.repository
    code = commit or spec.commit or "HEAD"
    found = [(name, "wrote the code it was trained with") for name in _written(folder, code)]
    made = [name for file in spec.dvc for name in _written(folder, code, "--", file)]
    return list(dict.fromkeys([*found, *((name, "made its data") for name in made)]))


def _written(folder: Path, *what: str) -> list[str]:
    """Address and name of author and committer of the newest commit of something."""
    said = _ask(folder, "log", "-1", "--no-show-signature", "--format=%ae%n%an%n%ce%n%cn", *what)
    return [line.strip() for line in (said or "").splitlines() if line.strip()]


def _ask(folder: Path, *words: str) -> str | None:
    """What git prints; ``None`` when it fails or is not there."""
    program = shutil.which("git")
    if program is None:
        return None
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            [program, "-C", str(folder), *_GIT, *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_GIT_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
