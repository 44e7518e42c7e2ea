from __future__ import annotations

import json
from pathlib import Path

import pytest

from compose.__main__ import main
from devices.x509 import pki
from wire import clock

DAY_NS = 86_400 * clock.NS_PER_S


def findings(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str | None]:
    """Give what doctor and status say of the authority."""
    main(["doctor", "--json", "--data", str(data), "--port", "0", "--mqtt-port", "0"])
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    main(["status", "--json", "--data", str(data)])
    return rows["authority"]["result"], json.loads(capsys.readouterr().out)["authority"]


def test_end_of_the_authority_is_told_a_year_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = findings(tmp_path, capsys)
    (tmp_path / "broker").mkdir(exist_ok=True)
    (tmp_path / "broker/ca.pem").write_text(pki.make_authority("own")[0])
    made_ns, said = clock.now_ns(), []
    for days in (0, 3_650 - 367, 3_650 - 363, 3_651):
        monkeypatch.setattr(clock, "now_ns", lambda days=days: made_ns + days * DAY_NS)
        said.append(findings(tmp_path, capsys))

    assert [without, *said[:2]] == [("ok", None)] * 3
    assert [result for result, _ in said[2:]] == ["warning", "warning"]
    assert " ends on 20" in str(said[2][1])
    assert " ended on 20" in str(said[3][1])


def test_renewed_authority_is_the_one_that_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker").mkdir()
    newer = pki.make_authority("own-2")[0]
    monkeypatch.setattr(pki, "CA_DAYS", 20)
    (tmp_path / "broker/ca.pem").write_text(newer + pki.make_authority("own")[0])

    assert findings(tmp_path, capsys) == ("ok", None)


def test_authority_that_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker/ca.pem").write_text("no certificate")

    result, said = findings(tmp_path, capsys)

    assert (result, str(said).endswith("ca.pem is no certificate")) == ("fault", True)
