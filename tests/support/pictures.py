"""Pictures as cameras send them."""

from __future__ import annotations

import io
import os

from PIL import Image


def picture(kind: str = "JPEG", width: int = 64, height: int = 48, *, seed: bytes = b"", **options: object) -> bytes:
    """Make a picture; each `seed` another one."""
    made = io.BytesIO()
    colour = tuple((seed or os.urandom(3)).ljust(3, b"\x7f")[:3])
    Image.new("RGB", (width, height), colour).save(made, kind, **options)
    return made.getvalue()


def size_of(content: bytes) -> tuple[str | None, tuple[int, int]]:
    """Give kind and size as Pillow reads them."""
    with Image.open(io.BytesIO(content)) as image:
        return image.format, image.size
