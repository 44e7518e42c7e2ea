"""Codecs of device types: saved only when they can run, versioned with their type, tried before they come into force."""

from __future__ import annotations

from typing import Any

import pytest

TYPE = "/v1/device-types/soil"
SCRIPT = """
function decodeUplink(input) {
  if (input.fPort !== 2) { return {errors: ["unknown FPort " + input.fPort]}; }
  return {data: {moisture: input.bytes[0] / 2}, warnings: input.bytes.length > 1 ? [] : ["no battery"]};
}
"""


def codec(text: str = SCRIPT, **more: Any) -> dict[str, Any]:
    return {"language": "javascript", "text": text} | more


def tried(service: Any, **asked: Any) -> Any:
    return service.admin("POST", "/v1/device-types:test-codec", {"port": 2} | asked)


def test_codec_is_a_part_of_each_version(service) -> None:
    service.admin("PUT", TYPE, {"codec": codec()})
    service.admin("PUT", TYPE, {"codec": codec(time_limit_ms=20, ports=[2])})

    assert service.admin("GET", TYPE).json["codec"]["ports"] == [2]
    assert service.admin("GET", TYPE + "/versions/1").json["spec"]["codec"]["time_limit_ms"] == 50
    [change] = service.admin("GET", TYPE + "/versions/1/diff").json["changes"]
    assert (change["path"], change["level"]) == ("codec", "changes")
    assert (change["after"]["language"], change["after"]["characters"]) == ("javascript", len(SCRIPT))
    assert SCRIPT not in str(change)


@pytest.mark.parametrize("way", ["PUT", "draft", "check"])
def test_script_that_cannot_run_is_not_saved(service, way: str) -> None:
    for text, said in (
        ("function decodeUplink( {", "SyntaxError"),
        ("function decode(input) {}", "none of the functions decodeUplink, Decode, Decoder"),
        ("for (;;);", "more than 50 ms"),
        ("  ", "holds no script"),
    ):
        spec = {"codec": codec(text)}
        if way == "PUT":
            answered = service.admin("PUT", TYPE, spec)
        else:
            where = "/versions" if way == "draft" else ":check"
            answered = service.admin("POST", TYPE + where, {"spec": spec})

        assert (answered.status_code, answered.json["fields"]) == (422, ["codec.text"])
        assert said in answered.json["detail"]
    assert service.admin("GET", TYPE).status_code == 404


def test_cayenne_needs_no_text_and_takes_none(service) -> None:
    assert service.admin("PUT", TYPE, {"codec": {"language": "cayenne_lpp"}}).status_code == 201
    refused = service.admin("PUT", TYPE, {"codec": codec(language="cayenne_lpp")})

    assert (refused.status_code, refused.json["fields"]) == (422, ["codec.text"])


def test_codec_is_tried_on_a_payload_and_nothing_is_kept(service) -> None:
    good = tried(service, codec=codec(), payload="2A01")
    warned = tried(service, codec=codec(), payload="2a")
    refused = tried(service, codec=codec(), payload="2a01", port=3)
    thrown = tried(service, codec=codec("function Decoder(b) { return b.x.y; }"), payload="")

    assert good.json == {"data": {"moisture": 21}, "warnings": [], "error": None}
    assert warned.json["warnings"] == ["no battery"]
    assert refused.json == {"data": None, "warnings": [], "error": "unknown FPort 3"}
    assert thrown.json["error"].startswith("TypeError: ")
    assert service.admin("GET", TYPE).status_code == 404


@pytest.mark.parametrize(
    "body", [r"return {a: '\ud800'}", "let a = []; for (let i = 0; i < 400; i++) a = [a]; return {a: a}"]
)
def test_data_that_nobody_can_write_is_told_in_words(service, body: str) -> None:
    answer = tried(service, codec=codec(f"function Decoder() {{ {body} }}"), payload="")

    assert (answer.status_code, answer.json["error"].startswith("its data cannot be shown")) == (200, True)


def test_sentences_of_a_codec_are_made_readable(service) -> None:
    text = r"function decodeUplink() { return {data: {a: 1}, warnings: ['odd \ud800', 'x'.repeat(5000)]}; }"

    assert tried(service, codec=codec(text), payload="").json["warnings"] == ["odd ?", "x" * 256]


def test_codec_of_a_type_or_of_one_version_is_tried(service) -> None:
    service.admin("PUT", TYPE, {"codec": codec()})
    service.admin("POST", TYPE + "/versions", {"spec": {"codec": codec("function Decoder() { return {v: 2}; }")}})

    assert tried(service, type="soil", payload="2a01").json["data"] == {"moisture": 21}
    assert tried(service, type="soil", version=2, payload="2a01").json["data"] == {"v": 2}


def test_what_cannot_be_tried_is_told(service) -> None:
    service.admin("PUT", TYPE, {})

    assert tried(service, type="soil", payload="").json["fields"] == ["type"]
    assert tried(service, type="gone", payload="").status_code == 404
    assert tried(service, payload="").json["fields"] == ["codec", "type"]
    assert tried(service, codec={"language": "cayenne_lpp"}, payload="").json["fields"] == ["codec.language"]
    for payload in ("2", "2g", "0x2a"):
        assert tried(service, codec=codec(), payload=payload).json["fields"] == ["payload"]
