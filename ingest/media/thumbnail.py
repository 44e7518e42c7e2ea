"""One small picture of a large one: `python -m ingest.media.thumbnail PIXELS < picture > thumbnail`.

A process of its own, with little memory and time: what decodes pictures is C, and pictures come from outside.
"""

from __future__ import annotations

import resource
import sys
import warnings

SIDE_PIXELS = 320
QUALITY = 80
MEMORY_BYTES = 1024**3  # of addresses; 50 megapixels take 200 MB
CPU_S = 10
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
IS_NO_PICTURE = 3


def main() -> int:
    """Read the picture from standard input, write a JPEG; exit code 3: it cannot be read."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from PIL import Image, ImageOps

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = int(sys.argv[1])
    try:
        with Image.open(sys.stdin.buffer, formats=FORMATS) as picture:
            picture.draft("RGB", (2 * SIDE_PIXELS, 2 * SIDE_PIXELS))  # a JPEG is decoded at a part of its size
            picture.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
            upright = ImageOps.exif_transpose(picture)
            upright.convert("RGB").save(sys.stdout.buffer, "JPEG", quality=QUALITY)
    except Exception:  # whatever Pillow raises about what comes from outside
        return IS_NO_PICTURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
