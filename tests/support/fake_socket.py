"""Slack's side of Socket Mode: a WebSocket server that sends what people press and keeps what is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@dataclass
class FakeSocket:
    """The connections that were opened, and the acknowledgements that came."""

    url: str = ""
    opened: int = 0
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    connection: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, envelope_id: str, payload: dict[str, Any], kind: str = "interactive") -> None:
        """Send what somebody pressed."""
        envelope = {"type": kind, "envelope_id": envelope_id, "payload": payload}
        self.frame(TEXT, json.dumps(envelope | {"accepts_response_payload": True}).encode())

    def frame(self, opcode: int, data: bytes) -> None:
        size = len(data)
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack("!H", size)
        with self.lock:
            self.connection.sendall(bytes([0x80 | opcode]) + length + data)

    def hang_up(self) -> None:
        """Break the connection."""
        connection, self.connection = self.connection, None
        connection.shutdown(2)

    def wait_for(self, envelope_id: str, seconds: float = 300) -> dict[str, Any]:
        """The acknowledgement of an envelope."""
        return self.until(
            lambda: [one for one in self.acknowledged if one["envelope_id"] == envelope_id], seconds
        )[0]

    def until(self, probe: Any, seconds: float = 300) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := probe():
                return found
            time.sleep(0.02)
        raise AssertionError("nothing came over the socket")


@contextmanager
def fake_socket() -> Iterator[FakeSocket]:
    """Run it on a free port."""
    fake = FakeSocket()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            headers = {}
            while line := self.rfile.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.strip().lower()] = value.strip()
            digest = hashlib.sha1(f"{headers['sec-websocket-key']}{_GUID}".encode(), usedforsecurity=False)
            self.wfile.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()) + b"\r\n\r\n"
            )
            fake.connection = self.connection
            fake.opened += 1
            while (message := self._read()) is not None:
                opcode, data = message
                if opcode == PING:
                    fake.frame(PONG, data)
                elif opcode == TEXT:
                    fake.acknowledged.append(json.loads(data))
                elif opcode == CLOSE:
                    return

        def _read(self) -> tuple[int, bytes] | None:
            head = self.rfile.read(2)
            if len(head) < 2:
                return None
            size = head[1] & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self.rfile.read(2))
            mask = self.rfile.read(4)
            data = self.rfile.read(size)
            return head[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        fake.url = f"ws://127.0.0.1:{server.server_address[1]}/link?ticket=1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield fake
        finally:
            server.shutdown()
