"""What devices say in each protocol: the messages of all cases, and messages of any number of values.

Nothing here names a protocol: a case tells which one it speaks, and `tests/ingest/protocols/<service>/message.py` makes
messages of numbers, by `message(protocol, values, ms) -> content, topic`. What the simulator speaks, and JSON, needs none.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ingest.protocols import PROTOCOLS
from ingest.protocols.cases import doors, spoken
from simulators.payloads import FORMATS
from tests.ingest.intake_support import CASES, SHARED


class Sample(NamedTuple):
    """A message, and the topic it was sent on, or "": over HTTP, and on topics of ours."""

    content: bytes
    topic: str = ""


def made(protocol: str, values: dict[str, Any], ms: int) -> Sample:
    """Make a message of a protocol, as its devices would send it."""
    where = f"tests.ingest.protocols.{PROTOCOLS[protocol].service}"
    if (Path(__file__).parent / "protocols" / PROTOCOLS[protocol].service / "message.py").is_file():
        return Sample(*importlib.import_module(f"{where}.message").message(protocol, values, ms))
    encode = FORMATS[protocol].encode if protocol in FORMATS else None
    return Sample((encode or orjson.dumps)({"ts": ms, "boot_id": "b", "seq": ms, "values": values}))


@cache
def by_protocol() -> dict[str, list[Sample]]:
    """Give the messages of all cases by protocol."""
    found: dict[str, list[Sample]] = {name: [] for name in PROTOCOLS}
    for folder in (folder for root in (CASES, SHARED) for folder in sorted(root.glob("*/*"))):
        for name, sample in _of_case(folder):
            if name is not None:
                found[name].append(sample)
    return found


def _of_case(folder: Path) -> Iterator[tuple[str | None, Sample]]:
    if (folder / "steps.json").is_file():
        for step in json.loads((folder / "steps.json").read_text())["steps"]:
            if "publish" in step:
                said = step["publish"]
                yield spoken({"mqtt": said}, folder), Sample((folder / said["file"]).read_bytes(), said["topic"])
    if (folder / "request.json").is_file():
        content = next(folder.glob("input.*")).read_bytes()
        for door in doors(folder):
            topic = door.get("mqtt", {}).get("topic", "")
            yield spoken(door, folder), Sample(content, "" if topic.startswith("devices/") else topic)
