"""Snapshots while the processes that carry and keep them are killed: each acknowledged one is there, and there once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from itertools import cycle
from typing import Any

import pytest
from paho.mqtt import client as paho

from tests.faults.rig import Site
from tests.support.waiting import wait_until
from wire import clock

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
ROUNDS = 60 if os.environ.get("HEADWATER_TEST_LONG") else 6
EACH = 5  # snapshots of each transport between two kills
VICTIMS = ("ingest-media worker", "bridge-media", "ingest-media")
SIZE = 60_000
START_NS = 1_772_600_000 * clock.NS_PER_S


def listed(site: Site, device: str) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        page = site.installation.get(f"/v1/media?device={device}&limit=100{cursor}")
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def test_killed_processes_lose_no_snapshot_and_keep_none_twice(site: Site) -> None:
    device = site.installation.add_device(f"cam-{clock.now_ns():x}")
    site.installation.wait_for_broker(device)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
    client.username_pw_set(device.id, device.secret)
    client.connect(*site.mqtt)
    client.loop_start()
    sent: Counter[str] = Counter()

    def post(content: bytes, number: int) -> bool:
        path = f"/v1/media?channel=posted&time={START_NS + number * clock.NS_PER_S}"
        return site.installation.post(device, content, path).status == 201

    assert post(b"the first", 0)
    for number, victim in zip(range(ROUNDS), cycle(VICTIMS), strict=False):
        contents = [os.urandom(SIZE) for _ in range(2 * EACH)]
        published = [client.publish(f"devices/{device.id}/media/live", content, qos=1) for content in contents[:EACH]]
        site.kill(victim)
        for offset, content in enumerate(contents[EACH:]):
            at = 1 + number * EACH + offset
            wait_until(lambda content=content, at=at: post(content, at), 30, what="the snapshot is taken")
        for each in published:
            each.wait_for_publish(30)
        sent.update(hashlib.sha256(content).hexdigest() for content in contents)
    client.disconnect()
    client.loop_stop()

    total = 1 + 2 * EACH * ROUNDS
    wait_until(lambda: len(listed(site, device.id)) >= total, 60, what=f"{total} media")
    points = wait_until(
        lambda: found if len(found := site.installation.points(device.id)) >= total else None, 30, what="their points"
    )
    items = listed(site, device.id)
    assert Counter(item["sha256"] for item in items) - Counter([hashlib.sha256(b"the first").hexdigest()]) == sent
    assert {point["fields"]["media.path"] for point in points} == {item["path"] for item in items}
    assert len(points) == len(items) == total
