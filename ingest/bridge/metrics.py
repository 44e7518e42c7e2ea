"""The bridge's metrics, in one place so that a page can list them."""

from __future__ import annotations

from chassis.metrics import Counter, Gauge

MESSAGES = Counter("headwater_bridge_messages", "Messages received from the broker")
ACKED = Counter("headwater_bridge_acked", "PUBACKs handed to the connection they belong to")
STALE_ACKS = Counter("headwater_bridge_stale_acks", "PUBACKs not sent: their connection was gone (redelivered)")
BATCHES = Counter("headwater_bridge_batches", "Batches sent to ingest services", ["outcome"])
DEFERRED = Counter("headwater_bridge_deferred", "Messages an ingest service asked to send again later")
REFUSED = Counter("headwater_bridge_refused", "Messages the bridge itself refused, then acknowledged", ["code"])
NOTICES = Counter("headwater_bridge_notices", "Error notices to devices", ["outcome"])
RECONNECTS = Counter("headwater_bridge_reconnects", "Connections to the broker after the first")
UNCLAIMED = Counter("headwater_bridge_unclaimed", "Messages on topics that no device has; quarantined")
CLAIMS = Gauge("headwater_bridge_claims", "Claims of topics that are known")
FAULTS = Counter("headwater_bridge_faults", "Exceptions that cost a connection; a person should look")
RETAINED_CLEARED = Counter("headwater_bridge_retained_cleared", "Retained telemetry taken away from the broker again")
UNACKED = Gauge("headwater_bridge_unacked", "Messages held un-acknowledged")
PAUSED = Gauge("headwater_bridge_paused", "1 while the window is full and the broker is made to wait")
BROKER_DROPPED = Gauge("headwater_bridge_broker_dropped", "Messages the broker says it dropped since its start")
