"""Choosing and checking ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from compose import ports
from compose.folder import StartError


def listen() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", ports.pick()))
    taken.listen()
    return taken


def test_taken_port_is_named_with_its_option() -> None:
    with listen() as taken:
        port = taken.getsockname()[1]

        with pytest.raises(StartError, match=rf"port {port} on 127.0.0.1 is taken .* --mqtt-port \d+$") as told:
            ports.check_free("127.0.0.1", port, "--mqtt-port")

        assert ports.is_free("127.0.0.1", int(str(told.value).split()[-1]))


def test_address_of_another_machine_is_named() -> None:
    with pytest.raises(StartError, match=r"203\.0\.113\.1 is not an address of this machine"):
        ports.check_free("203.0.113.1", 8080, "--port")


def test_ports_of_the_last_run_are_used_again(tmp_path: Path) -> None:
    first = ports.choose(["a", "b"], tmp_path / "ports.json")
    second = ports.choose(["a", "b", "c"], tmp_path / "ports.json")

    assert second.items() >= first.items()
    assert len(set(second.values())) == 3


def test_taken_port_of_the_last_run_is_replaced(tmp_path: Path) -> None:
    first = ports.choose(["a"], tmp_path / "ports.json")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["a"]))
        taken.listen()

        assert ports.choose(["a"], tmp_path / "ports.json") != first


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a":"x"}', '{"a":1}', '{"a":null}', '{"a":99999}'])
def test_broken_memory_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)

    assert ports.FIRST <= ports.choose(["a"], tmp_path / "ports.json")["a"] <= ports.LAST
