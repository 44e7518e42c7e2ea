"""What is over goes, what is not stays, and no file is left that nobody has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.media import sweep as sweeping
from ingest.media.blobs import STALE_S, Arrivals, DiskBlobs
from ingest.media.index import Index, Item, Room, erase_of
from tests.ingest.media.conftest import Studio
from tests.support.pictures import picture
from wire import clock
from wire.errors import Unavailable

ROOM = Room(10**9, 10**9)
DAY_NS = 86_400 * clock.NS_PER_S


def test_removed_blob_goes_with_its_thumbnail(studio: Studio) -> None:
    made = studio.post(picture()).json
    studio.get(made["thumbnail"])
    studio.get(f"/v1/media/{made['id']}", "operator", "DELETE")

    studio.sweep()

    assert studio.blobs() == list((studio.folder / "media/thumbnails").iterdir()) == []


def test_erased_device_loses_its_media_and_no_others(studio: Studio) -> None:
    studio.registry.add("d2")
    studio.post(b"mine")
    studio.post(b"other", device="d2")

    erase_of(studio.folder / "media", "d1", "default")
    erase_of(studio.folder / "nowhere", "d1", "default")
    studio.sweep()

    assert [item["device"] for item in studio.items()] == ["d2"]
    assert len(studio.blobs()) == 1


def test_content_that_another_device_has_stays(studio: Studio) -> None:
    studio.registry.add("d2")
    made, other = studio.post(b"same").json, studio.post(b"same", device="d2").json
    studio.get(f"/v1/media/{made['id']}", "operator", "DELETE")

    studio.sweep()

    assert studio.get(other["path"]).data == b"same"


def test_age_and_bytes_of_each_device_are_held(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_keep_days=2, media_keep_bytes=10)
    for second, content in enumerate((b"1111", b"2222", b"3333", b"4444")):
        studio.post(content, f"/v1/media?time={clock.format_ns(clock.now_ns() - (4 - second) * clock.NS_PER_S)}")

    studio.sweep()
    by_bytes = [item["size"] for item in studio.items()]
    studio.sweep(3 * DAY_NS)

    assert by_bytes == [4, 4]
    assert studio.items() == studio.blobs() == []


def test_type_goes_before_the_installation(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_keep_days=2)
    studio.registry.put_type(name="archive", media_keep_days=400)
    studio.registry.add("d2", type="archive")
    studio.post(b"short")
    studio.post(b"long", device="d2")

    studio.sweep(3 * DAY_NS)

    assert [item["device"] for item in studio.items()] == ["d2"]


def test_nothing_goes_of_devices_that_cannot_be_asked_for(studio_of: Callable[..., Studio]) -> None:
    first = studio_of(media_keep_days=2)
    first.post(b"x")
    first.close()
    studio = studio_of(media_keep_days=2)
    studio.registry.is_away = True

    studio.sweep(3 * DAY_NS)

    studio.registry.is_away = False
    assert len(studio.items()) == 1


def test_many_go_in_parts(studio_of: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 2)
    studio = studio_of(media_keep_bytes=0, media_rate="")
    for number in range(5):
        studio.post(str(number).encode())

    studio.sweep()

    assert studio.items() == studio.blobs() == []


def test_file_of_a_killed_upload_is_collected_once_it_is_stale(studio: Studio) -> None:
    parts = studio.app.extensions["headwater.media"]
    with Arrivals(studio.folder / "media", 0).take([b"orphan"], 10) as arrived:
        parts.index.announce(arrived.sha256, clock.now_ns())
        parts.blobs.keep(arrived)

    studio.sweep()
    early = len(studio.blobs())
    studio.sweep(round((STALE_S + 1) * clock.NS_PER_S))

    assert (early, studio.blobs()) == (1, [])


def test_half_a_blob_of_a_killed_process_goes(studio: Studio) -> None:
    half = studio.folder / "media/incoming/half"
    half.write_bytes(b"x")
    fresh = half.with_name("fresh")
    fresh.write_bytes(b"x")
    os.utime(half, (1, 1))

    studio.sweep()

    assert studio.incoming() == [fresh]


def test_file_that_is_announced_again_is_not_collected(tmp_path: Path) -> None:
    index, removed = Index(tmp_path), list[str]()
    item = Item(0, "t", "d", "c", 1, 1, "a" * 64, 3, "x/y", None, None)
    kept = index.add(item, "", index.announce(item.sha256, 1), ROOM)
    index.remove("t", kept.id)
    index.announce(item.sha256, 100)

    index.collect(50, removed.append, 10)
    assert removed == []
    index.add(item, "", 2, ROOM)
    index.close()


def test_sweep_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    index = Index(tmp_path)
    item = Item(0, "t", "d", "c", 1, 1, "a" * 64, 3, "x/y", None, None)
    index.remove("t", index.add(item, "", index.announce(item.sha256, 1), ROOM).id)

    def die(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.collect(50, die, 10)
    removed: list[str] = []
    index.collect(50, removed.append, 10)

    assert removed == [item.sha256]
    index.close()


def test_folder_is_opened_again_as_it_was(studio_of: Callable[..., Studio]) -> None:
    first = studio_of()
    made = first.post(picture()).json
    first.close()

    assert studio_of().get(made["path"]).status_code == 200


def can_lock(path: Path, how: int) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_removal_that_takes_long_holds_up_only_who_sends_the_same(tmp_path: Path) -> None:
    index = Index(tmp_path)
    item = Item(0, "t", "d", "c", 1, 1, "a" * 64, 3, "x/y", None, None)
    index.remove("t", index.add(item, "", index.announce(item.sha256, 1), ROOM).id)
    seen: list[bool] = []

    def remove(_: str) -> None:
        seen.append(can_lock(tmp_path / "media.db.lock", fcntl.LOCK_EX))
        seen.append(can_lock(tmp_path / "turns/aa", fcntl.LOCK_SH))

    assert index.collect(50, remove, 10) == (1, 1)
    assert seen == [True, False]
    index.close()


def test_content_that_is_being_put_in_place_stays_though_the_clock_jumps(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = DiskBlobs.keep

    def keep_while_time_passes(self: DiskBlobs, arrived: Any) -> None:
        keep(self, arrived)
        studio.sweep(3 * DAY_NS)

    monkeypatch.setattr(DiskBlobs, "keep", keep_while_time_passes)
    made = studio.post(b"content").json
    studio.sweep()

    assert studio.get(made["path"]).data == b"content"


def test_half_a_blob_goes_also_while_the_store_is_away(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("planted")

    made = studio.post(b"x").json
    studio.get(f"/v1/media/{made['id']}", "operator", "DELETE")
    half = studio.folder / "media/incoming/half"
    half.write_bytes(b"x")
    os.utime(half, (1, 1))
    monkeypatch.setattr(DiskBlobs, "remove", fail)

    with pytest.raises(Unavailable):
        studio.sweep()

    assert studio.incoming() == []


def test_thumbnail_made_while_its_blob_goes_does_not_stay(
    studio_of: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = DiskBlobs.read

    def read_while_it_goes(self: DiskBlobs, *asked: Any) -> Any:
        found = list(read(self, *asked))
        studio.get(f"/v1/media/{made['id']}", "operator", "DELETE")
        studio.sweep()
        return found

    monkeypatch.setattr(DiskBlobs, "read", read_while_it_goes)
    studio = studio_of()
    made = studio.post(picture()).json
    assert studio.get(made["thumbnail"]).status_code == 200
    studio.sweep()

    assert studio.items() == studio.blobs() == list((studio.folder / "media/thumbnails").iterdir()) == []
