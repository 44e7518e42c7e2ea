"""Keeping blobs: once however often they come, within the limits, whole or not at all, in the order of the promise."""

from __future__ import annotations

import gzip
import hashlib
import io
import time
from collections.abc import Callable
from typing import Any

import pytest

from ingest.framing import Batch, encode_batch
from ingest.media.blobs import DiskBlobs
from ingest.media.index import Index
from ingest.spool.batcher import GroupCommit
from tests.ingest.media.conftest import Interrupted, Studio, T, delivery
from tests.support.pictures import picture
from tests.support.waiting import wait_until
from wire import clock
from wire.errors import Unavailable


def test_blob_and_point_are_kept(studio: Studio) -> None:
    content = picture("PNG", 20, 10)

    answer = studio.post(content, "/v1/media?channel=door&time=2026-03-05T10:00:00Z", content_type="image/png")

    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/v1/media/{answer.json['id']}"
    (reading,), sha256 = studio.readings(), hashlib.sha256(content).hexdigest()
    assert (reading.device, reading.measurement, reading.tags) == ("d1", "media", {"channel": "door"})
    assert clock.format_ns(reading.time_ns) == "2026-03-05T10:00:00.000000000Z" == answer.json["time"]
    assert reading.fields == {
        "media.size": len(content), "media.sha256": sha256, "media.type": "image/png", "media.width": 20,
        "media.height": 10, "media.path": answer.json["path"],
    }  # fmt: skip
    assert studio.blobs() == [sha256]
    assert studio.incoming() == []
    assert studio.items() == [answer.json]


def test_same_content_twice_is_one_file_and_two_items(studio: Studio) -> None:
    content = picture()

    for _ in range(2):
        assert studio.post(content).status_code == 201

    assert len(studio.blobs()) == 1
    assert len(studio.items()) == 2


def test_same_time_and_content_over_http_is_one_item(studio: Studio) -> None:
    ids = {studio.post(b"same", "/v1/media?time=2026-03-05T10:00:00Z").json["id"] for _ in range(2)}

    assert len(ids) == len(studio.items()) == 1


def test_later_content_of_one_time_takes_the_place_of_the_first(studio: Studio) -> None:
    first = studio.post(b"first", "/v1/media?time=2026-03-05T10:00:00Z").json
    second = studio.post(b"second", "/v1/media?time=2026-03-05T10:00:00Z").json

    assert second["id"] == first["id"]
    assert studio.get(first["path"]).data == b"second"


def test_redelivery_makes_no_second_item_or_point(studio: Studio) -> None:
    content = picture()

    studio.batch(delivery(content))
    verdict = studio.batch(delivery(content, dup=True, received_ns=T + 5 * clock.NS_PER_S))

    assert (verdict.accepted, verdict.endings) == (1, [])
    assert len(studio.items()) == len(studio.blobs()) == 1
    assert len({(reading.time_ns, str(reading.fields)) for reading in studio.readings()}) == 1


def test_batch_posted_again_makes_no_second_item(studio: Studio) -> None:
    for _ in range(2):
        assert studio.batch(delivery(b"a", mid=1), delivery(b"b", mid=2, received_ns=T + 1)).accepted == 2

    assert len(studio.items()) == 2


def test_what_is_published_again_by_the_device_is_a_second_item(studio: Studio) -> None:
    studio.batch(delivery(b"a", mid=1))
    studio.batch(delivery(b"a", mid=2, received_ns=T + 1))

    assert len(studio.items()) == 2


def test_each_message_of_a_batch_ends_by_itself(studio: Studio) -> None:
    studio.registry.add("gone", state="disabled")

    verdict = studio.batch(
        delivery(b"good"),
        delivery(b"x", "devices/d1/media/a b"),
        delivery(picture()[:-30], received_ns=T + 1),
        delivery(b"", received_ns=T + 2),
        delivery(b"of another", "devices/d2/media/front"),
    )

    assert verdict.accepted == 1
    told = [(ending["index"], ending["end"], ending["code"]) for ending in verdict.endings]
    assert told == [(1, "refused", "bad_topic"), (2, "refused", "media_type"), (4, "refused", "bad_topic")]
    assert len(studio.items()) == 1


@pytest.mark.parametrize("length", [True, False])
def test_blob_over_the_limit_is_refused_and_leaves_nothing(studio_of: Callable[..., Studio], length: bool) -> None:
    studio = studio_of(media_limit_bytes=2_048)
    in_chunks = {"input_stream": io.BytesIO(b"x" * 3_072), "environ_overrides": {"wsgi.input_terminated": True}}

    answer = studio.post(b"x" * 3_072) if length else studio.post(None, **in_chunks)

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")
    assert "2048" in answer.json["detail"]
    assert studio.blobs() == studio.incoming() == []


def test_device_over_its_bytes_is_told_the_limit(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_device_bytes=10)

    assert studio.post(b"12345678").status_code == 201
    answer = studio.post(b"123")
    verdict = studio.batch(delivery(b"123"))

    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (429, "media_full", "600")
    assert "limit of 10" in answer.json["detail"]
    assert [ending["code"] for ending in verdict.endings] == ["media_full"]


def test_tenant_over_its_bytes_is_refused(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_tenant_bytes=10)
    studio.registry.add("d2")

    assert studio.post(b"12345678").status_code == 201
    assert studio.post(b"123", device="d2").json["code"] == "media_full"


def test_device_type_has_limits_of_its_own(studio: Studio) -> None:
    studio.registry.put_type(name="camera", media_limit_bytes=4, media_device_bytes=6)
    studio.registry.add("d2", type="camera")

    codes = [studio.post(content, device="d2").json.get("code") for content in (b"12345", b"1234", b"123")]

    assert codes == ["too_large", None, "media_full"]


def test_rate_is_held_over_http_and_put_off_over_mqtt(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_rate="messages 1:60")

    assert studio.post(b"1").status_code == 201
    answer = studio.post(b"2")
    (ending,) = studio.batch(delivery(b"3")).endings
    (surplus,) = studio.batch(delivery(b"3", is_surplus=True)).endings

    assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
    assert int(answer.headers["Retry-After"]) > 50
    assert (ending["end"], ending["code"]) == ("deferred", "rate_limited")
    assert (surplus["end"], surplus["code"]) == ("refused", "rate_limited")


def test_full_disk_is_told_before_anything_is_kept(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_floor_bytes=2**60)

    answer = studio.post(b"1")

    assert (answer.status_code, answer.json["code"]) == (503, "media_disk_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert studio.items() == studio.blobs() == studio.incoming() == []


@pytest.mark.parametrize(
    ("content", "more", "status", "code"),
    [
        (b"", {}, 400, "no_values"),
        (picture("GIF"), {"content_type": "image/jpeg"}, 415, "media_type"),
        (gzip.compress(b"x"), {"headers": {"Content-Encoding": "gzip"}}, 415, "media_type"),
        (b"x", {"path": "/v1/media?channel=a/b"}, 400, "bad_request"),
        (b"x", {"path": "/v1/media?time=noon"}, 400, "bad_request"),
        (b"x", {"device": "d9"}, 401, "unauthorized"),
    ],
    ids=["empty", "another picture", "gzip", "channel", "time", "stranger"],
)
def test_what_cannot_be_kept_is_refused(studio: Studio, content: bytes, more: dict, status: int, code: str) -> None:
    answer = studio.post(content, **more)

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert studio.items() == studio.blobs() == []


def test_held_device_is_told_that_it_waits(studio: Studio) -> None:
    studio.registry.add("d2", state="held")

    assert studio.post(b"x", device="d2").json["code"] == "device_held"


def test_time_of_an_unset_clock_gives_way_to_that_of_arrival(studio: Studio) -> None:
    answer = studio.post(b"x", "/v1/media?time=1999-01-01T00:00:00Z")

    assert abs(clock.parse_time(answer.json["time"]) - time.time_ns()) < 60 * clock.NS_PER_S


@pytest.mark.parametrize(
    ("owner", "step"), [(DiskBlobs, "keep"), (Index, "announce"), (Index, "add"), (GroupCommit, "append")]
)
def test_failure_at_any_step_is_not_acknowledged_and_comes_again_whole(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("planted")

    with monkeypatch.context() as planted:
        planted.setattr(owner, step, fail)
        body = studio.post(b"content", "/v1/media?time=2026-03-05T10:00:00Z")
    assert body.status_code == 503

    assert studio.post(b"content", "/v1/media?time=2026-03-05T10:00:00Z").status_code == 201
    assert len(studio.items()) == len(studio.blobs()) == len(studio.readings()) == 1


def test_blob_that_ends_too_early_is_not_acknowledged(studio: Studio) -> None:
    answer = studio.stream(io.BytesIO(b"half"), CONTENT_LENGTH="8")

    assert (answer.status_code, answer.json["code"]) == (503, "media_unavailable")
    assert "4 of 8" in answer.json["detail"]
    assert studio.items() == studio.blobs() == studio.incoming() == []


@pytest.mark.parametrize("change", [{"state": "disabled"}, {"tenant": "other", "created_ns": 5}])
def test_device_that_goes_while_its_blob_comes_leaves_nothing(studio: Studio, change: dict[str, Any]) -> None:
    def go() -> None:
        studio.registry.add("d1", **change)
        wait_until(lambda: not is_as_before(), what="the gate hears of it")

    def is_as_before() -> bool:
        made = studio.post(b"x").json
        return "id" in made and studio.get(f"/v1/media/{made['id']}").status_code == 200

    answer = studio.stream(Interrupted(b"late", go))
    studio.sweep()

    assert (answer.status_code, answer.json["code"]) == (403, "device_disabled")
    assert hashlib.sha256(b"late").hexdigest() not in studio.blobs()


def test_blobs_that_come_at_once_share_the_room(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_device_bytes=10)

    answer = studio.stream(Interrupted(b"12345678", lambda: studio.post(b"87654321")))

    assert (answer.status_code, answer.json["code"]) == (429, "media_full")
    assert len(studio.items()) == len(studio.blobs()) == 1


def test_blob_refused_at_the_last_moment_is_collected_at_once(
    studio_of: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, keep = studio_of(media_device_bytes=10), DiskBlobs.keep

    def keep_after_another(self: DiskBlobs, arrived: Any) -> None:
        monkeypatch.setattr(DiskBlobs, "keep", keep)
        studio.post(b"87654321")
        keep(self, arrived)

    monkeypatch.setattr(DiskBlobs, "keep", keep_after_another)
    assert studio.post(b"12345678").json["code"] == "media_full"
    studio.sweep()

    assert len(studio.items()) == len(studio.blobs()) == 1


def test_batch_that_comes_again_gets_further(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[int] = []
    keep = DiskBlobs.keep

    def keep_one(self: DiskBlobs, arrived: Any) -> None:
        put.append(arrived.size)
        if len(put) == 2:  # a store that is too slow for all of them
            raise Unavailable("planted")
        keep(self, arrived)

    monkeypatch.setattr(DiskBlobs, "keep", keep_one)
    batch = encode_batch(Batch("b/1", [delivery(b"1"), delivery(b"22", mid=8, received_ns=T + 9)]))
    statuses = [
        studio.app.test_client().post("/internal/batch", data=batch, headers={"Authorization": "Bearer s"}).status_code
        for _ in range(2)
    ]

    assert (statuses, put) == ([503, 200], [1, 2, 2])
    assert len(studio.items()) == len(studio.readings()) == 2
