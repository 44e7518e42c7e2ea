// An edge node made with sparkplug-client: births with aliases, does what it is told, and tells it back.
// Arguments: server URL, user name, secret, group, node. Each event is a line of JSON on stdout.
"use strict";
const client = require("sparkplug-client");

const [serverUrl, username, password, groupId, edgeNode] = process.argv.slice(2);
const DEVICE = "Pump 7";
const speed = { name: "Set/Speed", alias: 3, type: "Int16", value: 0 };
const node = client.newClient({ serverUrl, username, password, groupId, edgeNode, clientId: username });
const tell = (event) => console.log(JSON.stringify(event));

function beBorn() {
  node.publishNodeBirth({
    timestamp: Date.now(),
    metrics: [
      { name: "Node Control/Rebirth", type: "Boolean", value: false },
      { name: "temp", type: "Double", value: 20.5, properties: { engUnit: { type: "String", value: "Cel" } } },
    ],
  });
  node.publishDeviceBirth(DEVICE, { timestamp: Date.now(), metrics: [speed] });
  tell({ event: "born" });
}

node.on("birth", beBorn);
node.on("ncmd", (payload) => {
  tell({ event: "ncmd", names: payload.metrics.map((each) => each.name) });
  if (payload.metrics.some((each) => each.name === "Node Control/Rebirth" && each.value)) beBorn();
});
node.on("dcmd", (device, payload) => {
  const [told] = payload.metrics;
  tell({ event: "dcmd", device, alias: Number(told.alias), value: Number(told.value) });
  speed.value = Number(told.value);
  node.publishDeviceData(DEVICE, { timestamp: Date.now(), metrics: [{ alias: 3, type: "Int16", value: speed.value }] });
});
