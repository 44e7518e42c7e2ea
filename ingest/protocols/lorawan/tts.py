"""The Things Stack v3's events, by webhook or MQTT (`v3/{app}@{tenant}/devices/{id}/up`); their kind is in the body."""

from __future__ import annotations

from typing import Any

from ingest.protocols.base import Record
from ingest.protocols.flatten import Refused
from ingest.protocols.lorawan.downlinks import read_correlations
from ingest.protocols.lorawan.uplinks import SCHEME, Events, best_heard, eui_of, member, place_of, whole
from wire.points import SIMULATED, UNCERTAIN, FieldValue

WITHOUT_READINGS = (
    "join_accept", "downlink_ack", "downlink_nack", "downlink_sent", "downlink_failed", "downlink_queued",
    "downlink_queue_invalidated", "service_data", "uplink_normalized",
)  # fmt: skip
ENDS = ("downlink_ack", "downlink_sent")


class TheThingsStack:
    """Reads its events; to be given to `Events`."""

    def __init__(self, events: Events, topic: str) -> None:
        self._events = events
        levels = topic.split("/")
        self._is_downlink = levels[-2:] in (["down", "push"], ["down", "replace"])

    def read(self, value: dict[str, Any], is_exact: bool) -> Record | None:
        """Give the record of an event, None where it rightly has none. Raises Refused."""
        if self._is_downlink:
            return None
        device = self._device(member(value, "end_device_ids"))
        self._events.link(device)
        if "join_accept" in value:
            self._events.join(device)
        if "uplink_message" in value:
            return self._uplink(device, value, member(value, "uplink_message"), is_exact=is_exact)
        if "location_solved" in value:
            return self._location(device, value, member(value, "location_solved"), is_exact=is_exact)
        if any(kind in value for kind in WITHOUT_READINGS):
            self._heed(device, value)
            return None
        raise Refused("unsupported", "none of the events that are known here")

    def _heed(self, device: str, value: dict[str, Any]) -> None:
        """Note how a downlink ended; one that is not acknowledged (`nack`) the server sends again."""
        failed = member(value, "downlink_failed")
        told = member(failed, "downlink") or next((member(value, kind) for kind in ENDS if kind in value), {})
        mark = read_correlations(told, value)
        if failed:
            why = member(failed, "error").get("message_format")
            self._events.end(device, mark, str(why or "the server could not send it")[:200])
        elif mark is not None and ("downlink_ack" in value or ("downlink_sent" in value and not mark.is_confirmed)):
            self._events.end(device, mark)

    def _device(self, ids: dict[str, Any]) -> str:
        name, application = ids.get("device_id"), member(ids, "application_ids").get("application_id")
        if not isinstance(name, str) or not name or not isinstance(application, str) or not application:
            raise Refused("bad_structure", "the event names neither device nor application")
        eui = ids.get("dev_eui")
        return SCHEME + (eui_of(eui) if eui else f"{application}/{name}")

    def _uplink(self, device: str, value: dict[str, Any], uplink: dict[str, Any], *, is_exact: bool) -> Record:
        tokens = [member(uplink, "settings").get("time"), uplink.get("received_at"), value.get("received_at")]
        record = self._events.record(device, tokens)
        radio: dict[str, FieldValue] = {"f_cnt": whole(uplink, "f_cnt"), "f_port": whole(uplink, "f_port")}
        radio |= best_heard(uplink.get("rx_metadata"))
        if value.get("simulated") is True:
            record.flags |= SIMULATED
        if uplink.get("decoded_payload_warnings"):
            record.flags |= UNCERTAIN
        return self._events.add(
            record, uplink.get("decoded_payload"), uplink.get("frm_payload"), radio, is_exact=is_exact
        )

    def _location(self, device: str, value: dict[str, Any], solved: dict[str, Any], *, is_exact: bool) -> Record:
        record = self._events.record(device, [value.get("received_at")])
        return self._events.add(record, {"location": place_of(solved)}, None, {}, is_exact=is_exact)
