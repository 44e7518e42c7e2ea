"""What hosts keep of their senders' things."""

from __future__ import annotations

from pathlib import Path

from ingest.protocols.kept import Kept

KEY = ("default/gw", "car")


def test_only_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.db")
    kept.put(KEY, {"a": 1}, 9)
    kept.commit()
    kept.put(KEY, {"a": 2}, 9)
    seen = kept.get(KEY)
    kept.rollback()
    kept.put(("default/gw", "van"), {"b": 1}, 9)
    kept.close()

    again = Kept(tmp_path / "kept.db")
    found = again.get(KEY), again.get(("default/gw", "van"))
    again.close()

    assert (seen, found) == ({"a": 2}, ({"a": 1}, {}))


def test_sender_has_room_for_so_many_members_in_all(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.db")
    other = ("default/gw", "van")

    assert kept.put(KEY, {"a": 1, "b": 1}, 3)
    assert not kept.put(other, {"a": 1, "b": 1}, 3)
    assert kept.put(("default/gw2", "van"), {"a": 1, "b": 1}, 3)
    kept.rollback()
    assert kept.put(other, {"a": 1, "b": 1}, 3)
    assert kept.put(other, {"a": 1}, 0), "what becomes smaller is always taken"
    kept.close()
