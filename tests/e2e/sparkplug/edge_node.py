"""An edge node made with pysparkplug: is born, does what it is told, and tells it back.

Arguments: server URL, user name, secret, group, node. Each event is a line of JSON on stdout. Runs in the environment
that compose/prepare.sh makes for it: pysparkplug wants an older paho than ours.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any
from urllib.parse import urlsplit

import pysparkplug as psp

server, username, secret, group, name = sys.argv[1:]
told: queue.Queue[tuple[str, Any]] = queue.Queue()


def tell(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def metric(name: str, datatype: psp.DataType, value: Any) -> psp.Metric:
    return psp.Metric(timestamp=psp.get_current_timestamp(), name=name, datatype=datatype, value=value)


client = psp.Client(client_id=username, username=username, password=secret)
node = psp.EdgeNode(
    group, name, [metric("temp", psp.DataType.DOUBLE, 20.5)], client, lambda _, message: told.put(("ncmd", message))
)
speed = metric("Set/Speed", psp.DataType.INT32, 0)
node.register(psp.Device("Pump 7", [speed], lambda _, message: told.put(("dcmd", message))))
url = urlsplit(server)
node.connect(url.hostname or "", port=url.port or 1883)
tell(event="born")
while True:
    kind, message = told.get()
    metrics = message.payload.metrics
    if kind == "ncmd":
        tell(event="ncmd", names=[each.name for each in metrics])
        node.disconnect()
        node.connect(url.hostname or "", port=url.port or 1883)
        continue
    tell(event="dcmd", device="Pump 7", name=metrics[0].name, value=metrics[0].value)
    node.update_device("Pump 7", [metric("Set/Speed", psp.DataType.INT32, metrics[0].value)])
