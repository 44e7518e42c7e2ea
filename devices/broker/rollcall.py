"""Who is connected at a broker that asks by HTTP hooks: asked of its management API, since it tells nobody.

Presence, the count of a tenant's connections and their limit follow what the last looks found.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson
import urllib3

from chassis import logs
from devices.broker.management import FIRST_ERROR, Api, Management
from devices.presence.state import Evidence
from wire import clock
from wire.errors import HeadwaterError
from wire.topics import is_device_id

log = logs.get(__name__)
PAUSE_S = 1.0  # between two looks; a look that takes long is followed by a longer pause,
SHARE = 10.0  # so that the API is busy with us for a tenth of the time
TIMEOUT_S = 10.0
MAX_PAGES = 1_000


class Marks(Protocol):
    """Who is connected as far as presence knows; see `devices.presence.store.PresenceStore`."""

    def connected(self) -> AbstractSet[str]: ...


class Limits(Protocol):
    """Who is connected beyond the limit of its tenant; see `devices.internal.lookups.LookupStore`."""

    def surplus(self) -> Sequence[str]: ...


class Way(Protocol):
    """How one kind of broker lists its clients."""

    path: str

    def asked(self, page: int) -> dict[str, str | int]: ...
    def read(self, answer: Any) -> tuple[list[str], bool]: ...


class Emqx:
    """EMQX 5, `GET /api/v5/clients`: `{"data":[{"clientid"}],"meta":{"hasnext"}}`."""

    path = "/api/v5/clients"

    def asked(self, page: int) -> dict[str, str | int]:
        """Give the parameters of a page."""
        return {"conn_state": "connected", "limit": 1_000, "page": page}

    def read(self, answer: Any) -> tuple[list[str], bool]:
        """Give the names of a page, and whether another follows."""
        return [str(each["clientid"]) for each in answer["data"]], bool(answer["meta"]["hasnext"])


class Rabbit:
    """RabbitMQ 3.10, `GET /api/connections`: `{"items":[{"user"}],"page","page_count"}`."""

    path = "/api/connections"

    def asked(self, page: int) -> dict[str, str | int]:
        """Give the parameters of a page."""
        return {"columns": "user", "page_size": 500, "page": page}

    def read(self, answer: Any) -> tuple[list[str], bool]:
        """Give the names of a page, and whether another follows."""
        return [str(each.get("user") or "") for each in answer["items"]], answer["page"] < answer["page_count"]


WAYS: dict[str, Way] = {"emqx": Emqx(), "rabbitmq": Rabbit()}


class RollCall:
    """Asks in one thread, in which all its methods but the constructor run."""

    def __init__(self, api: Api, marks: Marks, tell: Callable[[Sequence[Evidence]], None], limits: Limits) -> None:
        """`tell` takes the news, in their order."""
        self._api, self._way = api, WAYS[api.kind]
        self._marks, self._tell, self._limits = marks, tell, limits
        self._headers = urllib3.make_headers(basic_auth=api.credential)
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._cutter = Management(api)
        self._missing: AbstractSet[str] = frozenset()  # at the last look
        self._is_away = False  # so that an absence is one line, not one a second

    def run(self, stopping: threading.Event) -> None:
        """Look until stopped."""
        while not stopping.is_set():
            began_s = time.monotonic()
            try:
                self.look()
                self._is_away = False
            except (urllib3.exceptions.HTTPError, HeadwaterError, ValueError, LookupError, TypeError) as error:
                if not self._is_away:
                    log.warning("broker_clients_unknown", reason=str(error)[:200])
                self._is_away = True
            stopping.wait(max(PAUSE_S, SHARE * (time.monotonic() - began_s)))

    def look(self) -> None:
        """Compare who is connected with what presence knows, and cut off those that are too many.

        A device has gone when two looks miss it: one that stands on a later page while an earlier one is read may move
        up between the two.

        Raises:
            HTTPError, HeadwaterError: the API does not answer, or not as it should.
            ValueError, LookupError, TypeError: it answers something else.
        """
        known, here = self._marks.connected(), self._connected()
        missing, now_ns = known - here, clock.now_ns()
        news = [Evidence("disconnected", device, now_ns) for device in sorted(missing & self._missing)]
        news += [Evidence("connected", device, now_ns) for device in sorted(here - known)]
        self._missing = missing
        self._tell(news)
        for device in self._limits.surplus():
            self._cutter.cut(device)

    def _connected(self) -> AbstractSet[str]:
        found: set[str] = set()
        for page in range(1, MAX_PAGES + 1):
            names, has_more = self._way.read(self._ask(page))
            found.update(name for name in names if is_device_id(name))
            if not has_more:
                break
        return found

    def _ask(self, page: int) -> Any:
        url = f"{self._api.url}{self._way.path}?{urlencode(self._way.asked(page))}"
        answer = self._http.request("GET", url, headers=self._headers)
        if answer.status >= FIRST_ERROR:
            raise HeadwaterError(f"the broker's management API answered {answer.status}")
        return orjson.loads(answer.data)
