"""The key that signs checkpoints. Only the sequencer reads it."""

from __future__ import annotations

import base64
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airlock.adapters.evidence import write_durably
from airlock.core.errors import ConfigurationError, ConflictError, NotFoundError
from airlock.proof import Checkpoint, ProofError, PublicKey, Rotation, sign_note

_PREFIX = "PRIVATE+KEY"
_OTHERS = 0o077


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair whose name is the origin of the log."""

    public: PublicKey
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """A new key pair."""
        private = Ed25519PrivateKey.generate()
        return cls(PublicKey(name, private.public_key().public_bytes_raw()), private)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key from its file.

        Raises:
            NotFoundError: there is no such file.
            ConfigurationError: others may read it, or it is no key.
        """
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError as error:
            raise NotFoundError(
                "there is no signing key", where=str(path), fix="create one with `airlock audit create-key`"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"the signing key cannot be read: {error.strerror}",
                where=str(path),
                fix="run the sequencer as the user who owns the key",
            ) from error
        if mode & _OTHERS:
            raise ConfigurationError(
                f"the signing key can be read by others (mode {mode & 0o777:o})",
                where=str(path),
                fix=f"chmod 600 {path}; if others had access, rotate it with `airlock audit rotate-key`",
            )
        return cls._parse(text, path)

    @classmethod
    def _parse(cls, text: str, path: Path) -> SigningKey:
        name, _, rest = text.removeprefix(f"{_PREFIX}+").partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
            private = Ed25519PrivateKey.from_private_bytes(data[1:])
        except ValueError as error:
            raise ConfigurationError(
                "this is no signing key", where=str(path), fix="restore the file from its backup"
            ) from error
        key = cls(PublicKey(name, private.public_key().public_bytes_raw()), private)
        if not text.startswith(f"{_PREFIX}+") or key.public.id != key_id:
            raise ConfigurationError(
                "the signing key is damaged", where=str(path), fix="restore the file from its backup"
            )
        return key

    def save(self, path: Path) -> None:
        """Write the key where only its owner may read it, and the public half beside it as ``.pub``.

        Raises:
            ConflictError: there is a key already; a key is never overwritten.
            UnavailableError: the disk is full or the folder is not writable.
        """
        if path.exists():
            raise ConflictError(
                "there is a signing key already",
                where=str(path),
                fix="rotate it with `airlock audit rotate-key`",
            )
        encoded = base64.b64encode(b"\x01" + self._private.private_bytes_raw()).decode()
        text = f"{_PREFIX}+{self.public.name}+{self.public.id}+{encoded}\n"
        write_durably(path, text.encode(), mode=0o600)
        self.save_public(path)

    def save_public(self, path: Path) -> None:
        """Write the public half beside the key, for auditors."""
        write_durably(public_path(path), f"{self.public}\n".encode(), mode=0o644)

    def sign_checkpoint(self, size: int, root: bytes, *, seconds: int) -> str:
        """A signed and dated checkpoint."""
        return self.sign(Checkpoint.text(self.public.name, size, root), seconds=seconds)

    def sign(self, text: str, *, seconds: int) -> str:
        """A signed and dated note."""
        return sign_note(text, self.public, self._private.sign, seconds=seconds)


def new_origin(deployment: str) -> str:
    """A name no other log has."""
    return f"airlock/{deployment}/{secrets.token_hex(8)}"


def public_path(path: Path) -> Path:
    """Where the public half of a key lies."""
    return path.with_name(path.name + ".pub")


def next_path(path: Path) -> Path:
    """Where the successor of a key waits until the log has named it."""
    return path.with_name(path.name + ".next")


def replace_key(path: Path, successor: SigningKey) -> None:
    """Put the successor in place; the old key stays beside it under its id, it signs nothing any more."""
    old = SigningKey.load(path)
    kept = path.with_name(f"{path.name}.{old.public.id}")
    if not kept.exists():
        os.link(path, kept)
    with suppress(FileNotFoundError):  # another sequencer has put it in place
        next_path(path).replace(path)
    public_path(next_path(path)).unlink(missing_ok=True)
    successor.save_public(path)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key file.

    Raises:
        NotFoundError: there is none.
        ConfigurationError: it is no public key.
    """
    try:
        return PublicKey.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            "there is no public key", where=str(path), fix="name the file with --public-key"
        ) from error
    except (OSError, UnicodeDecodeError, ProofError) as error:
        raise ConfigurationError(
            f"the public key cannot be read: {error}", where=str(path), fix="name another file"
        ) from error


def rotation_statement(old: SigningKey, new: PublicKey, *, seconds: int) -> str:
    """What the old key signs about its successor."""
    return old.sign(Rotation.text(old.public, new), seconds=seconds)
