"""When a request is here: the loop waits for the rest of a slow one, so that none holds a thread while it comes.

Only what certainly is the plain beginning of a request is waited for. Of everything odd nothing is missing: gunicorn's
parser says what is wrong with it.
"""

from __future__ import annotations

import re

HEAD_BYTES = 8 * 1024  # of a head without its end
BODY_BYTES = 64 * 1024  # of a body; longer ones are read by a thread
IN_ALL_BYTES = 32 * 1024 * 1024  # of all requests that are waited for
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,8})[ \t]*(?=\r\n)", re.IGNORECASE)
_OWN_WAY = re.compile(rb"\r\n(?:transfer-encoding|expect)[ \t]*:", re.IGNORECASE)  # ends otherwise, or waits for us


def missing_bytes(received: bytes) -> int:
    """Tell how many bytes at least are to be waited for; 0: the request is whole, or none that is waited for."""
    begun = received.lstrip(b"\r\n")  # RFC 9112 s. 2.2 allows an empty line before the request
    head, end, body = begun.partition(b"\r\n\r\n")
    if not end:
        is_odd = b"\n" in begun.replace(b"\r\n", b"") or b"\0" in begun
        return 0 if is_odd or len(received) > HEAD_BYTES else 1
    lengths = _LENGTH.findall(head + b"\r\n")
    if len(lengths) != 1 or _OWN_WAY.search(head):
        return 0
    size = int(lengths[0])
    return 0 if size > BODY_BYTES else max(0, size - len(body))
