"""Each case of a blob: what is read from the head of a picture, and what is refused."""

from __future__ import annotations

import pytest

from ingest.protocols.base import Context
from ingest.protocols.media.decoder import channel_of, decode
from tests.support.pictures import picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (255, 256), (1920, 1080)])
def test_size_is_as_pillow_wrote_it(kind: str, size: tuple[int, int]) -> None:
    (record,) = decode(picture(kind, *size), Context(1)).records

    assert (record.fields["media.width"], record.fields["media.height"]) == size


def test_other_content_under_the_name_of_a_picture_is_refused() -> None:
    decoded = decode(picture("PNG"), Context(1, content_type="image/jpeg"))

    assert [fault.code for fault in decoded.faults] == ["media_type"]


@pytest.mark.parametrize(
    "topic", ["devices/d1/media/a b", "devices/d1/media/", "devices/d1/media/..", "x", "devices/d1/status"]
)
def test_odd_channel_is_none(topic: str) -> None:
    assert channel_of(topic) is None


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif"}])
def test_webp_cut_off_in_its_head_is_refused(options: dict[str, object]) -> None:
    content = picture("WEBP", 40, 41, **options)

    for length in range(16, 30):
        assert [fault.code for fault in decode(content[:length], Context(1)).faults] == ["media_type"]
