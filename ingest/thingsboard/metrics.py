"""Metrics of ThingsBoard's MQTT door, in one place so that a page can list them."""

from __future__ import annotations

from chassis.metrics import Counter, Gauge

CONNECTIONS = Gauge("headwater_thingsboard_connections", "Connections of devices that are logged in")
LOGINS = Counter("headwater_thingsboard_logins", "Log-ins, by what became of them", ["outcome"])
MESSAGES = Counter("headwater_thingsboard_messages", "Messages of devices, by what they are", ["kind"])
REFUSED = Counter("headwater_thingsboard_refused", "Messages that were acknowledged and not taken", ["code"])
ENDED = Counter("headwater_thingsboard_ended", "Connections that did not end by themselves, and why", ["why"])
UNACKED = Gauge("headwater_thingsboard_unacked", "Messages that are not durable yet, and so not acknowledged")
SENT = Counter("headwater_thingsboard_sent", "Messages to devices", ["kind"])
FAULTS = Counter("headwater_thingsboard_faults", "Exceptions that cost a connection; a person should look")
