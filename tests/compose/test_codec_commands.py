"""`headwater type codec`: what is asked of the platform, what is printed, and the exit code."""

from __future__ import annotations

from pathlib import Path

from tests.compose.gateway import Gateway, run

TEST = "POST /v1/device-types:test-codec"
TYPE = {"name": "soil", "version": 2, "version_id": 7, "fields": {}, "codec": None}


def test_test_prints_the_data_of_a_script(gateway: Gateway, tmp_path: Path, capsys) -> None:
    gateway.answers[TEST] = {"data": {"moisture": 21}, "warnings": [], "error": None}
    (tmp_path / "codec.js").write_text("script")

    code = run(
        gateway, "type", "codec", "test", "--file", str(tmp_path / "codec.js"), "--payload", "2a 01", "--port", "2"
    )

    assert code == 0
    assert gateway.body() == {"payload": "2a01", "port": 2, "codec": {"language": "javascript", "text": "script"}}
    assert '"moisture": 21' in capsys.readouterr().out


def test_test_of_a_payload_that_would_be_quarantined_ends_with_3(gateway: Gateway, capsys) -> None:
    gateway.answers[TEST] = {"data": None, "warnings": [], "error": "too short"}

    assert run(gateway, "type", "codec", "test", "--type", "soil", "--version", "2", "--payload", "") == 3
    assert gateway.body() == {"payload": "", "port": 1, "type": "soil", "version": 2}
    assert capsys.readouterr().out == "it would be quarantined: too short\n"


def test_set_puts_a_version_with_the_codec_in_force(gateway: Gateway, tmp_path: Path, capsys) -> None:
    (tmp_path / "codec.js").write_text("script")
    gateway.answers |= {
        "GET /v1/device-types/soil": TYPE,
        "PUT /v1/device-types/soil": TYPE | {"codec": {"language": "x"}},
    }

    run(gateway, "type", "codec", "set", "soil", "--file", str(tmp_path / "codec.js"), "--port", "2", "--port", "3")
    scripted = gateway.body()
    run(gateway, "type", "codec", "set", "soil", "--cayenne-lpp")
    cayenne = gateway.body()
    run(gateway, "type", "codec", "set", "soil", "--none")

    assert scripted == {"fields": {}, "codec": {"language": "javascript", "text": "script", "ports": [2, 3]}}
    assert cayenne["codec"] == {"language": "cayenne_lpp"}
    assert gateway.body()["codec"] is None
    assert "soil version 2: no codec" in capsys.readouterr().out


def test_file_that_is_not_there_is_one_sentence(gateway: Gateway, tmp_path: Path, capsys) -> None:
    assert run(gateway, "type", "codec", "test", "--file", str(tmp_path / "none.js"), "--payload", "00") == 1
    assert "cannot be read" in capsys.readouterr().err
