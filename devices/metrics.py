"""Metrics of the registry."""

from __future__ import annotations

from chassis.metrics import Counter, Gauge, Histogram

DEVICES = Gauge("headwater_devices_registered", "Devices registered", multiprocess_mode="mostrecent")
ONLINE = Gauge("headwater_devices_online", "Devices online", multiprocess_mode="mostrecent")
BROKER_NEWS = Gauge(
    "headwater_presence_connected", "1 while presence hears from the broker", multiprocess_mode="mostrecent"
)
EVIDENCE = Counter("headwater_presence_evidence", "Pieces of evidence applied to presence", ["kind"])
PASSWD_WRITES = Counter("headwater_broker_access_writes", "Times the broker's password file was written")
PASSWD_SECONDS = Histogram(
    "headwater_broker_access_seconds",
    "Time to read the registry, write the broker's password file and signal the broker",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
ENROLLED = Counter("headwater_devices_enrolled", "Devices that registered themselves", ["by"])
ENROLMENT_FAILURES = Counter("headwater_enrolment_failures", "Enrolments with a wrong secret")
COMMANDS_ENDED = Counter("headwater_commands_ended", "Commands that ended, by how", ["state"])
LOGIN_FAILURES = Counter("headwater_login_failures", "Log-ins with a wrong name or password")
SURPLUS_FIELDS = Counter("headwater_devices_fields_not_described", "Fields of which more was told than is kept")
