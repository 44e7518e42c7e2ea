"""The installation's own server certificate: whom it names, when it is made anew, who is told."""

from __future__ import annotations

import os
import signal
import ssl
import stat
from pathlib import Path

import pytest

from compose import certificate, issuer
from compose.config import UpConfig
from compose.folder import Folder, StartError
from devices.x509 import pki


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    made.prepare()
    (made.secrets / "registry.key").write_text("k" * 43)
    return made


def config(folder: Folder, **given: object) -> UpConfig:
    return UpConfig.model_validate({"data": folder.root, "tls": True} | given)


def issue(folder: Folder, *names: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setenv("HEADWATER_REGISTRY_KEY_FILE", str(folder.secrets / "registry.key"))
    assert issuer.main([str(folder.root), *names]) == 0
    return folder.tls_cert.read_bytes()


def test_first_start_makes_what_a_listener_needs(folder: Folder) -> None:
    made = certificate.ensure(folder, config(folder, tls_names="gw.example.org, 192.0.2.7"), os.environ)

    assert (made.tls_cert, made.tls_key) == (folder.tls_cert, folder.tls_key)
    assert stat.S_IMODE(folder.tls_key.stat().st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(folder.tls_cert, folder.tls_key)
    authority = folder.tls_cert.with_name("ca.pem").read_text()
    wanted = ["gw.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"]
    assert pki.serves(folder.tls_cert.read_bytes(), folder.tls_key.read_bytes(), authority, wanted, 30)
    assert (folder.broker / "ca.pem").read_text() == authority
    assert (folder.broker / "crl.pem").exists()


def test_without_it_nothing_is_made(folder: Folder) -> None:
    given = config(folder, tls=False)

    assert certificate.ensure(folder, given, os.environ) is given
    assert not folder.tls_cert.exists()


def test_what_cannot_be_made_stops_the_start_with_one_line(folder: Folder) -> None:
    (folder.secrets / "registry.key").write_text("")

    with pytest.raises(StartError, match="cannot be made"):
        certificate.ensure(folder, config(folder), os.environ)


def test_good_certificate_stays_and_others_are_made_anew(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = issue(folder, "a.example", monkeypatch=monkeypatch)
    assert issue(folder, "a.example", monkeypatch=monkeypatch) == first

    second = issue(folder, "a.example", "10.0.0.1", monkeypatch=monkeypatch)
    assert second != first
    folder.tls_key.write_bytes(pki.make_request("x")[1])  # of another certificate, as after a half restored backup
    third = issue(folder, "a.example", monkeypatch=monkeypatch)
    assert third != second
    monkeypatch.setattr(issuer, "RENEW_DAYS", issuer.DAYS + 1)
    assert issue(folder, "a.example", monkeypatch=monkeypatch) != third


def test_certificate_of_another_authority_or_clock_is_made_anew(folder: Folder) -> None:
    authority, other = pki.make_authority("one"), pki.make_authority("two")
    csr, key = pki.make_request("a")
    cert = pki.sign(authority, csr, "a", 90, ["a"]).encode()

    assert pki.serves(cert, key, authority[0], ["a"], 30)
    assert not pki.serves(cert, key, other[0], ["a"], 30)
    assert not pki.serves(cert, key, authority[0], ["b"], 30)
    assert not pki.serves(cert, key, authority[0], ["a"], 91)
    assert not pki.serves(b"", b"", authority[0], ["a"], 30)


def test_names_are_those_of_the_machine(folder: Folder) -> None:
    found = certificate.names(config(folder, bind="0.0.0.0", tls_names="gw.example.org,bad name,;"))

    assert found[0] == "gw.example.org"
    assert {"localhost", "127.0.0.1", "::1"} <= set(found)
    assert {"0.0.0.0", "bad name", ";"}.isdisjoint(found)


def test_servers_are_told_of_a_new_certificate_once(folder: Folder) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        look = certificate.rereading(folder)
        look(os.getpid())
        assert heard == []
        folder.tls_cert.parent.mkdir()
        folder.tls_cert.write_text("new")
        look(os.getpid())
        look(os.getpid())
    finally:
        signal.signal(signal.SIGHUP, before)

    assert heard == [signal.SIGHUP]


def test_running_installation_looks_once_a_day(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    look = certificate.renewing(folder, config(folder), os.environ)
    look(0)
    assert not folder.tls_cert.exists()

    monkeypatch.setattr(certificate, "LOOK_S", 0.0)
    started: list[object] = []
    monkeypatch.setattr(certificate.subprocess, "Popen", lambda *given, **_: started.append(given) or Ended())
    look(0)
    look(0)

    assert len(started) == 2


class Ended:
    def poll(self) -> int:
        return 0
