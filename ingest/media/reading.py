"""The HTTP face of media that are kept: lists, blobs and parts of them, thumbnails. Parses, calls, renders."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response, request
from pydantic import Field
from werkzeug.datastructures import Range

from chassis.reach import Reaches
from chassis.web import Api, Call
from ingest.media.blobs import Blobs
from ingest.media.index import Filter, Index, Item
from ingest.media.pages import read_cursor, write_cursor
from ingest.media.thumbnails import Thumbnails
from ingest.protocols.media.pictures import JPEG, PICTURES
from ingest.reports import AuditEntry, Reports
from wire.devices import Model, Principal
from wire.errors import NotFound
from wire.media import Media, MediaPage
from wire.points import TimeNs
from wire.topics import is_device_id

MAX_ID = 2**63 - 1
# What came from outside is shown, never run, whatever a browser takes it for.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",  # a browser asks again, and is told 304: rights may have ended
    "Vary": "Authorization, Cookie, Headwater-Tenant",
}
DECLARED: dict[str, Any] = {"answers": {200: {"type": "string", "format": "binary"}}, "reach": "narrowed"}


class MediaQuery(Model):
    """A page, newest first."""

    device: str | None = None
    channel: str | None = None
    start: TimeNs | None = None  # start <= time < end
    end: TimeNs | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: str | None = None


class Shelf:
    """Finds for somebody what they may see."""

    def __init__(self, index: Index, reaches: Reaches) -> None:
        self._index = index
        self._reaches = reaches

    def find(self, call: Call) -> Item:
        """Give the one that the path names. Raises NotFound."""
        text = call.path["media_id"]
        media_id = int(text) if text.isascii() and text.isdecimal() and len(text) < len(str(MAX_ID)) else 0
        item = self._index.get(call.actor.tenant, media_id)
        if not self._is_within(call.actor, item.device):
            raise NotFound(f"no media {media_id}", code="media_not_found")
        return item

    def page(self, actor: Principal, asked: MediaQuery) -> MediaPage:
        """Give a page; a token for some devices only asks for one of them."""
        if not self._is_within(actor, asked.device or ""):
            return MediaPage(items=[], next=None)
        wanted = Filter(actor.tenant, asked.device, asked.channel, asked.start, asked.end)
        found = self._index.find(wanted, asked.limit, read_cursor(asked.cursor))
        following = write_cursor(found[-1]) if len(found) == asked.limit else None
        return MediaPage(items=[item.shown() for item in found], next=following)

    def remove(self, item: Item) -> None:
        """Remove one."""
        self._index.remove(item.tenant, item.id)

    def _is_within(self, actor: Principal, device: str) -> bool:
        return not actor.devices or (is_device_id(device) and self._reaches.holds(actor, device))


def add_routes(api: Api, shelf: Shelf, blobs: Blobs, thumbnails: Thumbnails, reports: Reports) -> None:
    """Declare the routes of operators."""

    @api.route("GET", "/v1/media", "viewer", query=MediaQuery, answers={200: MediaPage}, reach="narrowed")
    def list_media(call: Call) -> MediaPage:
        """List what is kept, newest first."""
        return shelf.page(call.actor, call.query)

    @api.route("GET", "/v1/media/<media_id>", "viewer", answers={200: Media}, reach="narrowed")
    def get_media(call: Call) -> Media:
        """Tell what one is."""
        return shelf.find(call).shown()

    @api.route("GET", "/v1/media/<media_id>/content", "viewer", **DECLARED)
    def get_content(call: Call) -> Response:
        """Give the blob, or the part that `Range` names."""
        return _give(shelf.find(call), blobs)

    @api.route("GET", "/v1/media/<media_id>/thumbnail", "viewer", **DECLARED)
    def get_thumbnail(call: Call) -> Response:
        """Give a small JPEG of a picture, at most 320 pixels a side."""
        item = shelf.find(call)
        response = Response(headers=HEADERS, content_type=JPEG)
        if not _is_known(response, f"{item.sha256}-small"):
            response.set_data(thumbnails.get(item))
        return response

    @api.route("DELETE", "/v1/media/<media_id>", "operator", reach="narrowed")
    def delete_media(call: Call) -> None:
        """Remove one; its point stays."""
        item, actor = shelf.find(call), call.actor
        shelf.remove(item)
        said = f"{item.channel} {item.sha256}"
        named = f"device:{item.device}"
        reports.note_deed(AuditEntry(actor.signature, "media.delete", named, said, call.remote_ip, actor.tenant))


def _give(item: Item, blobs: Blobs) -> Response:
    response = Response(headers=HEADERS, content_type=item.type)
    response.headers["Accept-Ranges"] = "bytes"
    if item.type not in PICTURES:
        response.headers["Content-Disposition"] = f'attachment; filename="{item.device}-{item.channel}-{item.id}"'
    if _is_known(response, item.sha256):
        return response
    start, stop = 0, item.size
    asked = _asked_part(item)
    if asked is not None:
        part = _part_of(asked, item.size)
        response.status_code = 416 if part is None else 206
        response.headers["Content-Range"] = _range_of(part, item.size)
        if part is None:
            return response
        start, stop = part
    if request.method != "HEAD":
        response.response = blobs.read(item.sha256, start, stop - start)
    response.content_length = stop - start
    return response


def _asked_part(item: Item) -> Range | None:
    """Give the part that is asked for; None: all of it, also where several parts are."""
    asked, only_if = request.range, request.if_range
    is_another = (only_if.etag or only_if.date) and only_if.etag != item.sha256
    return asked if asked is not None and asked.units == "bytes" and len(asked.ranges) == 1 and not is_another else None


def _part_of(asked: Range, size: int) -> tuple[int, int] | None:
    """Give from where to where; None: beyond the end. The last N bytes of fewer are all (RFC 9110 s. 14.1.2)."""
    return (0, size) if asked.ranges[0][0] < -size else asked.range_for_length(size)


def _range_of(part: tuple[int, int] | None, size: int) -> str:
    return f"bytes */{size}" if part is None else f"bytes {part[0]}-{part[1] - 1}/{size}"


def _is_known(response: Response, etag: str) -> bool:
    """Name the version, and tell a client that has it already so."""
    response.set_etag(etag)
    if not request.if_none_match.contains(etag):
        return False
    response.status_code = 304
    return True
