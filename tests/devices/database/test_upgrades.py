"""Data folders of older versions: each step keeps what was there."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from devices.database.engine import Database
from devices.database.schema import MIGRATIONS, migrate
from devices.query.versions import order_of
from devices.types.store import TypeStore


def old_database(config, version: str) -> Database:
    database = Database(config.registry, config.data)
    steps = Config()
    steps.set_main_option("script_location", str(MIGRATIONS))
    steps.set_main_option("path_separator", "os")
    with database.engine.begin() as connection:
        steps.attributes["connection"] = connection
        command.upgrade(steps, version)
    return database


def test_types_in_force_become_first_kept_versions(empty_config) -> None:
    database = old_database(empty_config, "0001")
    with database.engine.begin() as connection:
        for name, version in (("pump", 7), ("tank", 1)):
            row = {"name": name, "version": version}
            connection.execute(text("INSERT INTO device_types VALUES ('default', :name, :version, '{}')"), row)

    migrate(database, empty_config.data)

    store = TypeStore(database)
    found = [(each.name, each.version, each.version_id) for each in store.list("default")]
    kept = store.versions("default", "pump")
    database.close()
    assert found == [("pump", 7, 1), ("tank", 1, 2)]
    assert [(each.version, each.state) for each in kept] == [(7, "active")]


def test_children_that_prefixes_leave_out_are_known_after(empty_config) -> None:
    database = old_database(empty_config, "0019")
    with database.engine.begin() as connection:
        device = "INSERT INTO devices (tenant, id, gateway, state, tags, search, created_ns, updated_ns, attributes)"
        for id_ in ("g1", "g2", "a-1", "b-1", "b-2"):
            of_device = {"id": id_, "no": False}
            connection.execute(
                text(f"{device} VALUES ('default', :id, :no, 'active', '{{}}', '', 1, 1, '{{}}')"), of_device
            )
        for gateway, prefixes in (("g1", '["a-"]'), ("g2", "[]")):
            rules = {"gateway": gateway, "rules": f'{{"prefixes":{prefixes}}}'}
            connection.execute(text("INSERT INTO gateways VALUES ('default', :gateway, :rules)"), rules)
        for child, gateway in (("a-1", "g1"), ("b-1", "g1"), ("b-2", "g2")):
            row = {"child": child, "gateway": gateway}
            connection.execute(text("INSERT INTO children VALUES ('default', :child, :gateway, 1)"), row)

    migrate(database, empty_config.data)

    with database.read() as connection:
        found = connection.execute(text("SELECT device, outside FROM children ORDER BY device")).all()
    database.close()
    assert [(device, bool(is_outside)) for device, is_outside in found] == [
        ("a-1", False),
        ("b-1", True),
        ("b-2", False),
    ]


def test_versions_that_devices_reported_before_are_found_after(empty_config) -> None:
    database = old_database(empty_config, "0012")
    with database.engine.begin() as connection:
        device = "INSERT INTO devices (tenant, id, gateway, state, tags, search, created_ns, updated_ns, attributes)"
        twin = "INSERT INTO twins VALUES ('default', :id, '{}', 0, 0, :reported, 1, 1, 1, :no)"
        for id_, reported in (("d1", '{"fw":"1.10"}'), ("d2", "{}")):
            of_device = {"id": id_, "reported": reported, "no": False}
            connection.execute(
                text(f"{device} VALUES ('default', :id, :no, 'active', '{{}}', '', 1, 1, '{{}}')"), of_device
            )
            connection.execute(text(twin), of_device)

    migrate(database, empty_config.data)

    with database.read() as connection:
        found = connection.execute(text("SELECT id, fw, fw_order FROM devices ORDER BY id")).all()
    database.close()
    assert [tuple(row) for row in found] == [("d1", "1.10", order_of("1.10")), ("d2", None, None)]
