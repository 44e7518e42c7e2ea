"""The page of protocols: what is spoken, what is wrong with it, and the way to the messages."""

from __future__ import annotations

from typing import Any

VIEWER = {"Authorization": "Bearer viewer-token", "Accept": "text/html"}

QUIET: dict[str, Any] = {
    "name": "cbor", "service": "cbor", "state": "idle", "started": None, "media_types": [], "paths": [],
    "topics": [], "last_heard": None, "rate_s": 0.0, "accepted": 0, "quarantined": 0, "refused": 0, "waiting": {},
    "last_bad": None,
}  # fmt: skip
HOSTILE = "<script>d1"
LAST = {"id": "77", "time": "2026-01-02T03:04:05Z", "device": HOSTILE, "code": "bad_syntax", "detail": "not JSON"}
SPOKEN = QUIET | {
    "name": "json", "service": "json", "state": "down", "last_heard": "2026-01-02T03:04:05Z", "rate_s": 12.34,
    "accepted": 3_600, "refused": 7, "waiting": {"bad_syntax": 3, "type_conflict": 1}, "last_bad": LAST,
}  # fmt: skip


def get(client: Any) -> str:
    answer = client.get("/protocols", headers=VIEWER)
    assert answer.status_code == 200
    return str(answer.text)


def test_spoken_protocol_shows_its_figures_and_leads_to_its_faults(client, platform) -> None:
    platform.protocols = [SPOKEN, QUIET]

    shown = get(client)

    for text in ("3,600", "12.3", "down", "refused 7", "bad_syntax 3", "type_conflict 1"):
        assert text in shown
    assert 'href="/quarantine?protocol=json&amp;code=bad_syntax"' in shown
    assert "#entry-77" in shown
    assert HOSTILE not in shown
    assert "Not spoken so far" in shown


def test_page_without_any_speaker_says_so(client, platform) -> None:
    platform.protocols = [QUIET]

    assert "Nothing heard yet" in get(client)


def test_refused_package_is_named(client, platform) -> None:
    platform.protocols_refused = [{"entry": "own = own:P", "reason": "ImportError: <b>no</b>"}]

    assert "ImportError: &lt;b&gt;no&lt;/b&gt;" in get(client)


def test_quarantine_is_searched_by_protocol(client, platform) -> None:
    shown = client.get("/quarantine?protocol=line", headers=VIEWER).text

    assert 'name="protocol" value="line"' in shown
