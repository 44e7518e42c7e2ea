"""Reading media: parts, versions, headers that keep a browser from running anything, and nobody else's."""

from __future__ import annotations

import shutil
import struct
import zlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from ingest.media import thumbnails
from tests.ingest.media.conftest import Studio
from tests.support.pictures import picture, size_of
from wire.devices import DeviceIdentity

CONTENT = bytes(range(256)) * 400  # more than one piece


@pytest.fixture
def blob(studio: Studio) -> Any:
    return studio.post(CONTENT).json


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=100000-", 206, CONTENT[100_000:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=-200000", 206, CONTENT),
        ("bytes=0-", 206, CONTENT),
        ("bytes=102399-200000", 206, CONTENT[-1:]),
        ("bytes=102400-", 416, b""),
        ("bytes=0-1,5-6", 200, CONTENT),
        ("lines=0-1", 200, CONTENT),
        ("nonsense", 200, CONTENT),
    ],
)
def test_range_gives_the_part(studio: Studio, blob: Any, asked: str, status: int, part: bytes) -> None:
    answer = studio.get(blob["path"], Range=asked)

    assert (answer.status_code, answer.data) == (status, part)
    assert int(answer.headers["Content-Length"]) == len(part)
    if status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_range_of_another_version_gives_all(studio: Studio, blob: Any) -> None:
    etag = studio.get(blob["path"]).headers["ETag"]

    assert studio.get(blob["path"], Range="bytes=0-1", If_Range=etag).status_code == 206
    assert studio.get(blob["path"], Range="bytes=0-1", If_Range='"other"').data == CONTENT


def test_known_version_is_304_without_a_body(studio: Studio, blob: Any) -> None:
    etag = studio.get(blob["path"]).headers["ETag"]
    answer = studio.get(blob["path"], If_None_Match=etag)

    assert (answer.status_code, answer.data) == (304, b"")
    assert etag == f'"{blob["sha256"]}"'


def test_head_tells_the_size_and_sends_nothing(studio: Studio, blob: Any) -> None:
    answer = studio.get(blob["path"], method="HEAD")

    assert (answer.status_code, answer.data, int(answer.headers["Content-Length"])) == (200, b"", len(CONTENT))


@pytest.mark.parametrize(
    ("content", "declared", "served", "is_shown"),
    [
        (picture("JPEG"), "", "image/jpeg", True),
        (picture("WEBP"), "application/octet-stream", "image/webp", True),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "image/svg+xml", False),
        (b"<script>", "text/html; charset=utf-8", "text/html", False),
        (b"x", "application/x-www-form-urlencoded", "application/octet-stream", False),
        (b"x", "no type at all", "application/octet-stream", False),
    ],
)
def test_only_known_pictures_are_shown(
    studio: Studio, content: bytes, declared: str, served: str, is_shown: bool
) -> None:
    made = studio.post(content, content_type=declared).json
    answer = studio.get(made["path"])

    assert answer.data == content
    assert answer.headers["Content-Type"] == served
    assert ("Content-Disposition" not in answer.headers) == is_shown
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_list_is_paged_newest_first_and_narrowed(studio: Studio) -> None:
    studio.registry.add("d2")
    for second in range(5):
        studio.post(b"x", f"/v1/media?channel=c{second % 2}&time=2026-03-05T10:00:0{second}Z")
    studio.post(b"y", device="d2")

    first = studio.get("/v1/media?device=d1&limit=3").json
    second = studio.get(f"/v1/media?device=d1&limit=3&cursor={first['next']}").json
    narrowed = studio.get("/v1/media?channel=c1&start=2026-03-05T10:00:01Z&end=2026-03-05T10:00:03Z").json

    assert [item["time"][17:19] for item in first["items"] + second["items"]] == ["04", "03", "02", "01", "00"]
    assert second["next"] is None
    assert [item["time"][17:19] for item in narrowed["items"]] == ["01"]
    for odd in (b"x", b"9" * 30 + b".1", b"1." + b"9" * 30, b"1.-1"):
        assert studio.get(f"/v1/media?cursor={urlsafe_b64encode(odd).decode()}").status_code == 400
    assert studio.get("/v1/media?cursor=x").status_code == 400


def test_media_of_another_tenant_do_not_exist(studio: Studio) -> None:
    theirs = studio.registry
    theirs.put(DeviceIdentity(id="d3", tenant="other", credentials=theirs.devices["d1"].credentials))
    made = studio.post(picture(), device="d3").json

    assert studio.items() == []
    for path in ("", "/content", "/thumbnail"):
        assert studio.get(f"/v1/media/{made['id']}{path}").status_code == 404
    assert studio.get(f"/v1/media/{made['id']}", "operator", "DELETE").status_code == 404
    answer = studio.post(b"x", "/v1/devices/d3/media", headers={"Authorization": "Bearer operator-token"})
    assert answer.status_code == 404


def test_operator_puts_and_removes(studio: Studio) -> None:
    headers = {"Authorization": "Bearer operator-token"}
    made = studio.post(b"x", "/v1/devices/d1/media?channel=by-hand", headers=headers).json

    assert studio.get(f"/v1/media/{made['id']}", "viewer", "DELETE").status_code == 403
    assert studio.get(f"/v1/media/{made['id']}", "operator", "DELETE").status_code == 204
    assert studio.get(made["path"]).json["code"] == "media_not_found"


@pytest.mark.parametrize("media_id", ["0", "-1", "x", "9" * 40, "1%00", "²"])
def test_odd_number_is_404(studio: Studio, media_id: str) -> None:
    assert studio.get(f"/v1/media/{media_id}").status_code == 404


def test_thumbnail_is_small_and_kept(studio: Studio) -> None:
    made = studio.post(picture("PNG", 1000, 500)).json

    first = studio.get(made["thumbnail"])
    again = studio.get(made["thumbnail"], If_None_Match=first.headers["ETag"])

    assert size_of(first.data) == ("JPEG", (320, 160))
    assert again.status_code == 304
    assert (studio.folder / f"media/thumbnails/{made['sha256']}.jpg").is_file()


def test_picture_too_large_for_memory_has_no_thumbnail(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    made = studio.post(picture()).json
    monkeypatch.setattr(thumbnails, "MOST_BYTES", made["size"] - 1)

    assert studio.get(made["thumbnail"]).json["code"] == "no_thumbnail"


def test_thumbnail_that_cannot_be_kept_is_given_all_the_same(studio: Studio) -> None:
    made = studio.post(picture()).json
    shutil.rmtree(studio.folder / "media/thumbnails")

    assert studio.get(made["thumbnail"]).status_code == 200


def bomb(width: int, height: int) -> bytes:
    """Make a PNG of few bytes that says it is huge."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content", [bomb(60_000, 60_000), bomb(7_000, 7_000), b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\xff\xd9"]
)
def test_bomb_or_broken_picture_has_no_thumbnail_and_harms_nothing(studio: Studio, content: bytes) -> None:
    made = studio.post(content).json

    answer = studio.get(made["thumbnail"])

    assert (answer.status_code, answer.json["code"]) == (404, "no_thumbnail")
    assert studio.get(made["path"]).data == content
