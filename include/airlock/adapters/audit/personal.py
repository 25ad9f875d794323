"""What people wrote, encrypted in the one table that can be erased (requirement E-5).

An event holds a commitment, SHA-256 over 32 bytes of salt and the text: it binds the text for ever and
says nothing about it once salt and text are gone. The text is encrypted with a key of its own
(AES-256-GCM), which is wrapped with the deployment's key; deleting the row erases it, and every proof
about the event still holds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from airlock.adapters.evidence import write_durably
from airlock.core.errors import ConfigurationError, IntegrityError

_SALT, _NONCE, _KEY = 32, 12, 32
ERASED = "[erased]"
SEALED = "[sealed: the key for personal data is not here]"


@dataclass(frozen=True)
class Sealed:
    """A row of the table ``personal``."""

    commitment: bytes
    wrapped_key: bytes
    sealed: bytes


class Vault:
    """Seals and opens texts with the deployment's key for personal data."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ensure(self) -> None:
        """Create the key unless it is there; of two processes that try, one wins.

        Raises:
            UnavailableError: the disk is full or the folder is not writable.
        """
        if not self._path.exists():
            write_durably(self._path, secrets.token_hex(_KEY).encode() + b"\n", mode=0o600)

    @property
    def present(self) -> bool:
        """Whether the key is here; without it texts stay sealed."""
        return self._path.exists()

    def seal(self, place: str, text: str) -> Sealed:
        """Encrypt a text.

        The salt follows from the key and ``place``, so that a retry of the same event has the same
        commitment; without the key it is as good as random.
        """
        master = self._master()
        salt = hmac.digest(master, b"salt\x00" + place.encode(), "sha256")
        commitment = commit(salt, text)
        key, wrap, nonce = (secrets.token_bytes(size) for size in (_KEY, _NONCE, _NONCE))
        return Sealed(
            commitment,
            wrap + AESGCM(master).encrypt(wrap, key, commitment),
            nonce + AESGCM(key).encrypt(nonce, salt + text.encode(), commitment),
        )

    def open(self, row: Sealed) -> str:
        """Decrypt a text and check it against its commitment.

        Raises:
            IntegrityError: the row was changed, or sealed with another key.
        """
        return self.open_with_salt(row)[1]

    def open_with_salt(self, row: Sealed) -> tuple[bytes, str]:
        """Decrypt a text together with its salt, with which anybody can check the commitment.

        Raises:
            IntegrityError: the row was changed, or sealed with another key.
        """
        try:
            key = AESGCM(self._master()).decrypt(
                row.wrapped_key[:_NONCE], row.wrapped_key[_NONCE:], row.commitment
            )
            plain = AESGCM(key).decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], row.commitment)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError(
                "a personal text was changed, or sealed with another key",
                where=row.commitment.hex(),
                fix="restore the key or the table `personal` from its backup",
            ) from error
        salt, text = plain[:_SALT], plain[_SALT:].decode()
        if commit(salt, text) != row.commitment:
            raise IntegrityError("a personal text does not match its commitment", where=row.commitment.hex())
        return salt, text

    def _master(self) -> bytes:
        try:
            key = bytes.fromhex(self._path.read_text(encoding="ascii"))
        except FileNotFoundError as error:
            raise ConfigurationError(
                "the key for personal data is not there",
                where=str(self._path),
                fix="restore it from its backup, or create it with `airlock audit migrate`",
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                "the key for personal data cannot be read",
                where=str(self._path),
                fix="restore it from its backup and let this user read it",
            ) from error
        if len(key) != _KEY:
            raise ConfigurationError("the key for personal data is damaged", where=str(self._path))
        return key


def commit(salt: bytes, text: str) -> bytes:
    """The commitment that stands in the event."""
    return hashlib.sha256(salt + text.encode()).digest()
