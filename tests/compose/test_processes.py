"""The table of processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chassis.services import kind_of, read_listing
from chassis.tokens import hash_token
from compose import credentials, processes
from compose.config import UpConfig
from compose.folder import Folder, StartError
from compose.processes import Plan, broker_filter

NAMES = ("devices", "ingest-json", "writer", "bridge", "bridge-media", "dashboard", "gateway", "mqtt")
PORTS = {name: number for number, name in enumerate((*NAMES, *processes.ON_DEMAND), 1)}


def plan(tmp_path: Path, environ: dict[str, str] | None = None, **given: object) -> Plan:
    folder = Folder(tmp_path / "data")
    folder.prepare()
    config = UpConfig.model_validate({"data": folder.root} | given)
    return Plan(
        folder, config, credentials.ensure(folder, ("bridge", "bridge-media")), PORTS, environ or {}, shows_text=True
    )


def test_every_process_is_there_in_order(tmp_path: Path) -> None:
    names = [spec.name for spec in processes.specs(plan(tmp_path))]

    core = ["devices", "ingest-json", *processes.ON_DEMAND, "writer"]
    assert names == ["broker", *core, "bridge", "bridge-media", "dashboard", "gateway", "demo"]


def test_services_of_other_protocols_start_when_they_are_first_needed(tmp_path: Path) -> None:
    made = {spec.name: spec for spec in processes.specs(plan(tmp_path))}

    assert {name for name, spec in made.items() if spec.listen} == set(processes.ON_DEMAND)
    assert "ingest-thingsboard" in processes.ON_DEMAND
    port = PORTS["ingest-thingsboard"]
    assert made["ingest-thingsboard"].listen == f"127.0.0.1:{port}"
    assert f"thingsboard=http://127.0.0.1:{port}" in made["bridge"].env["HEADWATER_INGEST_URLS"].split(",")


@pytest.mark.parametrize(("name", "kept"), processes.AT_ONCE.items())
def test_service_that_keeps_something_to_do_starts_at_once(tmp_path: Path, name: str, kept: str) -> None:
    given = plan(tmp_path)
    path = given.folder.root / kept
    path.parent.mkdir(exist_ok=True)
    path.touch()

    made = {spec.name: spec for spec in processes.specs(given)}

    assert {each for each in processes.ON_DEMAND if not made[each].listen} == {name}


def test_no_demo_means_no_simulator(tmp_path: Path) -> None:
    assert [spec.name for spec in processes.specs(plan(tmp_path, demo=0))][-1] == "gateway"


def test_doors_close_before_the_core_and_the_broker_last(tmp_path: Path) -> None:
    stages = {spec.name: spec.stage for spec in processes.specs(plan(tmp_path))}

    assert stages["demo"] > stages["gateway"] > stages["bridge"] > stages["ingest-json"] > stages["broker"]
    assert stages["writer"] == stages["devices"] == stages["ingest-json"]


def test_no_secret_stands_in_a_command_line_or_environment(tmp_path: Path) -> None:
    made = plan(tmp_path)
    tokens = [path.read_text().strip() for path in made.folder.secrets.iterdir()]

    shown = [text for spec in processes.specs(made) for text in (*spec.argv, *spec.env.values())]

    assert not [token for token in tokens if any(token in text for text in shown)]


def test_each_service_shows_a_token_of_its_own(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in processes.specs(plan(tmp_path))}

    files = {name: Path(specs[name].env["HEADWATER_SERVICE_TOKEN_FILE"]) for name in processes.INNER}
    listing = read_listing(Path(specs["devices"].env["HEADWATER_SERVICES_FILE"]).read_text())

    assert len(set(files.values())) == len(processes.INNER)
    known = {name: listing[hash_token(path.read_text().strip())] for name, path in files.items()}
    assert known == {name: kind_of(name) for name in processes.INNER}
    shown = {name for name, spec in specs.items() if "HEADWATER_SERVICE_TOKEN_FILE" in spec.env}
    assert shown == {*processes.INNER, *processes.ON_DEMAND}
    assert specs["bridge"].env["HEADWATER_BROKER_USERNAME"] == "_bridge"
    assert specs["devices"].env["HEADWATER_BROKER_PASSWD_FILE"].endswith("broker/devices.passwd")


def test_environment_of_the_person_cannot_cross_the_wiring(tmp_path: Path) -> None:
    environ = {
        "HEADWATER_PORT": "9999",
        "HEADWATER_SERVICE_TOKEN": "weak",
        "HEADWATER_BROKER_PASSWORD": "weak",
        "HEADWATER_SPOOL_LIMIT_BYTES": "1000000",
        "HOME": "/h",
    }

    env = {spec.name: spec.env for spec in processes.specs(plan(tmp_path, environ))}["bridge"]

    assert env["HEADWATER_PORT"] == "4"
    assert "HEADWATER_SERVICE_TOKEN" not in env
    assert "HEADWATER_BROKER_PASSWORD" not in env
    assert env["HEADWATER_SPOOL_LIMIT_BYTES"] == "1000000"
    assert env["HOME"] == "/h"


def test_missing_program_is_named() -> None:
    with pytest.raises(StartError, match=r"no-such-broker is not installed; on Debian: apt-get install"):
        processes.find_program("no-such-broker")


@pytest.mark.parametrize(
    ("line", "warning", "info"),
    [
        ("1700000000: New client connected from 127.0.0.1:1 as d1 (p2, c1, k60, u'd1').", False, False),
        ("1700000000: Client d1 disconnected.", False, False),
        ("1700000000: Warning: Mosquitto should not be run as root/administrator.", False, False),
        ("1700000000: mosquitto version 2.0.11 terminating", False, True),
        ("1700000000: Error: Address already in use", True, True),
        ("1700000000: Outgoing messages are being dropped for client _bridge.", True, True),
        ("Error: Unable to open config file", True, True),
    ],
)
def test_of_the_broker_only_trouble_is_shown(line: str, warning: bool, info: bool) -> None:
    assert (broker_filter("warning")(line) is not None) == warning
    assert (broker_filter("info")(line) is not None) == info
    assert not (broker_filter("debug")(line) or "").startswith("1700000000")


def test_door_of_thingsboard_runs_where_it_has_a_port(tmp_path: Path) -> None:
    made = plan(tmp_path, thingsboard_port=1884, tls_cert="c.pem", tls_key="k.pem", bind="0.0.0.0")
    made = dataclasses.replace(
        made, ports={**PORTS, processes.THINGSBOARD: 99, "thingsboard": 1884, "gateway-near": 98}
    )

    (door,) = processes._thingsboard(made)

    assert processes._thingsboard(plan(tmp_path)) == []
    assert door.ready == "http://127.0.0.1:99/readyz"
    assert (door.env["HEADWATER_THINGSBOARD_BIND"], door.env["HEADWATER_THINGSBOARD_PORT"]) == ("0.0.0.0", "1884")
    assert (door.env["HEADWATER_TLS_CERT"], door.env["HEADWATER_TLS_KEY"]) == ("c.pem", "k.pem")
    assert door.env["HEADWATER_INGEST_URL"] == f"http://127.0.0.1:{PORTS['ingest-thingsboard']}"
