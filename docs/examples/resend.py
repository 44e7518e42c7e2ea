"""A device that loses nothing: python resend.py HOST PORT DEVICE SECRET. Needs paho-mqtt 2."""

import json
import sys
import time

import paho.mqtt.client as mqtt

HOST, PORT, DEVICE, SECRET = sys.argv[1:5]
BOOT = str(time.time_ns())  # another text at each start
KEEP = 500  # readings; beyond that the oldest is given up
HOLD_S = 5.0  # after a new connection the platform has so long to say what it has
kept: dict[int, str] = {}  # seq -> message, until the platform has it for good
doubt = [0, float("inf")]  # up to which seq a broker may have forgotten, and when to act on it


def publish(seq):
    client.publish(f"devices/{DEVICE}/telemetry", kept[seq], qos=1)


def on_connect(client, *_):
    client.subscribe(f"devices/{DEVICE}/acks")
    doubt[:] = [max(kept, default=0), time.monotonic() + HOLD_S]


def on_message(_client, _data, message):
    acks = json.loads(message.payload or b"{}")
    for seq in list(kept) if acks.get("boot_id") == BOOT else ():
        if any(first <= seq <= last for first, last in acks["missing"]):
            publish(seq)
        elif acks["first"] <= seq <= acks["newest"]:
            del kept[seq]


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=DEVICE)
client.username_pw_set(DEVICE, SECRET)
client.on_connect, client.on_message = on_connect, on_message
client.connect_async(HOST, int(PORT))
client.loop_start()
for number in range(1, sys.maxsize):
    values = {"temperature": 20 + number % 10}
    now_ms = time.time_ns() // 1_000_000
    kept[number] = json.dumps({"boot_id": BOOT, "seq": number, "ts": now_ms, "values": values})
    publish(number)
    kept.pop(number - KEEP, None)
    if time.monotonic() > doubt[1]:
        for seq in [seq for seq in kept if seq <= doubt[0]]:
            publish(seq)
        doubt[1] = float("inf")
    time.sleep(0.1)
