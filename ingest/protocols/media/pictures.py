"""What a blob is, by its first bytes: the four kinds of pictures that browsers show, and their width and height.

Nothing is decompressed, and no more is read than a header needs: what a picture says of itself is enough for a point.
Sources: ITU-T T.81 annex B (JPEG), PNG 1.2 s. 5 and 11.2.2, GIF89a s. 18, RFC 9649 (WebP).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

JPEG, PNG, GIF, WEBP = "image/jpeg", "image/png", "image/gif", "image/webp"
PICTURES = (JPEG, PNG, GIF, WEBP)  # the only types that a browser is asked to show
BLOB = "application/octet-stream"
HEAD_BYTES = 32
TAIL_BYTES = 4_096  # cameras pad what they send behind the end of a picture
MAX_SEGMENTS = 2_000  # of a JPEG before its frame; a real one has a few
_WEBP_HEAD_BYTES = 30  # no picture's file is shorter
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG and DAC
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA

Size = tuple[int, int]  # width, height


class Broken(ValueError):  # noqa: N818 - what the picture is
    """It begins as a picture and is none, or is cut off."""


class Look(NamedTuple):
    """What was seen; no size: it is no picture."""

    type: str
    width: int = 0
    height: int = 0

    @property
    def is_picture(self) -> bool:
        """Whether a browser may be asked to show it."""
        return self.type in PICTURES


def look(file: BinaryIO, declared: str = "") -> Look:
    """Look at a file that can be read from any place; `declared` is what its sender calls it.

    Raises:
        Broken: a picture that is cut off or damaged at its head, or something else under the name of one.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = _kind_of(head)
    if declared in PICTURES and kind != declared:
        raise Broken(f"this is no {declared}")
    if not kind:
        return Look(declared or BLOB)
    found = _SIZES[kind](file, head)
    if found is None or not all(found):
        raise Broken(f"the head of this {kind} is damaged or cut off")
    if kind in _ENDS and _ENDS[kind] not in _tail(file):
        raise Broken(f"this {kind} is cut off: its end is missing")
    return Look(kind, *found)


def _kind_of(head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    return WEBP if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def _tail(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL_BYTES))
    return file.read(TAIL_BYTES)


def _size_of_png(_file: BinaryIO, head: bytes) -> Size | None:
    return (_big(head[16:20]), _big(head[20:24])) if head[12:16] == b"IHDR" else None


def _size_of_gif(_file: BinaryIO, head: bytes) -> Size | None:
    return _little(head[6:8]), _little(head[8:10])


def _size_of_webp(_file: BinaryIO, head: bytes) -> Size | None:
    chunk = head[12:16]
    if len(head) < _WEBP_HEAD_BYTES:
        return None
    if chunk == b"VP8X":
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    if chunk == b"VP8L" and head[20:21] == b"\x2f":
        bits = _little(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return None


def _size_of_jpeg(file: BinaryIO, _head: bytes) -> Size | None:
    """Walk from marker to marker to the frame: what a camera writes before it (EXIF, colour profiles) has any size."""
    file.seek(2)
    for _ in range(MAX_SEGMENTS):
        marker = _next_marker(file)
        if marker in _STANDALONE:
            continue
        if marker is None or marker in (_END_OF_IMAGE, _START_OF_SCAN):
            return None
        length = _big(file.read(2))
        if marker in _FRAMES:
            frame = file.read(5)
            return _big(frame[3:5]), _big(frame[1:3])
        if length < 2:  # noqa: PLR2004 - the length counts its own two bytes
            return None
        file.seek(length - 2, 1)
    return None


def _next_marker(file: BinaryIO) -> int | None:
    if file.read(1) != b"\xff":
        return None
    for _ in range(HEAD_BYTES):  # any number of fill bytes may stand before it (T.81 s. B.1.1.2)
        marker = file.read(1)
        if marker != b"\xff":
            return marker[0] if marker else None
    return None


def _big(part: bytes) -> int:
    return int.from_bytes(part)


def _little(part: bytes) -> int:
    return int.from_bytes(part, "little")


_SIZES: dict[str, Callable[[BinaryIO, bytes], Size | None]] = {
    JPEG: _size_of_jpeg, PNG: _size_of_png, GIF: _size_of_gif, WEBP: _size_of_webp
}  # fmt: skip
_ENDS = {JPEG: b"\xff\xd9", PNG: b"IEND"}
