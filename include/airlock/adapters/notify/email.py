"""E-mail over SMTP: one message for each notice and each of its later states, in one thread."""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formataddr
from urllib.parse import unquote, urlsplit

from airlock.core.canonical import sha256_hex
from airlock.core.errors import ConfigurationError, InvalidInputError, UnavailableError
from airlock.core.notices import ChannelSpec, Notice

_SECONDS = 20


class EmailNotifier:
    """Sends to one address. ``secret`` is the URL of the server: ``smtps://user:password@host:465``.

    ``smtp://`` uses STARTTLS unless the option ``plain`` is true, as for a relay on the same machine.
    """

    def __init__(self, spec: ChannelSpec, *, secret: str, airflow_url: str) -> None:
        self.name = spec.name
        self._to = spec.to
        self._url = airflow_url
        self._plain = bool(spec.options.get("plain", False))
        self._from = str(spec.options.get("sender") or "airlock@localhost")
        server = urlsplit(secret)
        if server.scheme not in ("smtp", "smtps") or not server.hostname:
            raise ConfigurationError(
                f"channel {spec.name} needs the URL of an SMTP server",
                where=spec.secret or "secret",
                fix="set it to smtps://user:password@host:465",
            )
        self._server = server

    def post(self, notice: Notice, *, thread: str) -> str:
        """Send a message and return its message id."""
        return self._send(notice, reference=thread)

    def update(self, reference: str, notice: Notice) -> None:
        """A sent mail stays as it is; what changed comes as an answer to it."""
        self._send(notice, reference=reference)

    def _send(self, notice: Notice, *, reference: str) -> str:
        mail = EmailMessage()
        mail["Subject"] = " ".join(notice.title.split())[:200]
        mail["From"] = formataddr(("Airlock", self._from))
        mail["To"] = self._to
        mail["Message-ID"] = f"<{sha256_hex(notice.to_bytes())[:32]}@airlock>"
        if reference:
            mail["In-Reply-To"] = mail["References"] = reference
        mail.set_content(text_of(notice, self._url))
        try:
            with self._connect() as server:
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            raise InvalidInputError(
                f"the address is refused: {self._to}", where=self.name, fix="correct it in notifications.yaml"
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            raise UnavailableError(
                f"no mail server: {error}", where=self.name, fix="it is tried again"
            ) from error
        return str(mail["Message-ID"])

    def _connect(self) -> smtplib.SMTP:
        host, context = str(self._server.hostname), ssl.create_default_context()
        if self._server.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, self._server.port or 465, timeout=_SECONDS, context=context
            )
        else:
            server = smtplib.SMTP(host, self._server.port or 587, timeout=_SECONDS)
            if not self._plain:
                server.starttls(context=context)
        if self._server.username:
            server.login(unquote(self._server.username), unquote(self._server.password or ""))
        return server


def text_of(notice: Notice, airflow_url: str) -> str:
    """A notice as plain text: what it is about, what matters, where to act."""
    facts = [f"{name}: {value}" for name, value in notice.facts]
    if notice.until_us:
        end = datetime.fromtimestamp(notice.until_us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
        facts.append(f"open until: {end}; unanswered it is closed, never approved")
    parts = [
        " ".join(notice.title.split()),
        "\n".join(notice.lines or [notice.text]),
        "\n".join(["What changed:", *(f"  - {one}" for one in notice.changed)] if notice.changed else []),
        "\n".join(facts),
        "\n".join(f"{line.verdict:7} {line.gate.replace('_', ' ')}: {line.text}" for line in notice.gates),
        f"Review and answer: {airflow_url}{notice.review}\nRun in Airflow: {airflow_url}{notice.run}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
