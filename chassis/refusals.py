"""What gunicorn refuses before any service sees it (headers, framing), said as a problem document like all else."""

from __future__ import annotations

import orjson

from wire.errors import HeadwaterError

_SAID = {
    400: ("bad_request", "the request cannot be read"),
    414: ("uri_too_long", "the request line is too long"),
    417: ("bad_request", "only 100-continue can be expected"),
    431: ("header_too_large", "there are too many headers, or they are too large"),
    500: ("internal", "an error of ours; it was logged"),
    501: ("bad_request", "the transfer coding is not known; chunked is"),
}


class Listener:
    """Stands for a connection's socket and keeps what is sent to it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, part: bytes) -> None:
        """Keep it."""
        self.parts.append(part)

    def gettimeout(self) -> float:
        """Be a socket that does not block."""
        return 0.0


def as_problem(said: bytes) -> bytes:
    """Say an error answer of gunicorn's (status line, page in HTML) again as a problem document."""
    line = said.partition(b"\r\n")[0]
    status = int(line.split()[1])
    code, detail = _SAID.get(status, _SAID[400])
    error = HeadwaterError(detail, code=code)
    error.status = status
    body = orjson.dumps(error.to_problem())
    head = f"Connection: close\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    return line + b"\r\n" + head.encode() + body
