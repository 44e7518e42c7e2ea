// The overview, alive: figures every two seconds, the readings of the shown devices from the feed.

import { count, nowMs, rate, renewAges, seconds, setAge, setClock, value } from "./format.js";
import { watch } from "./feed.js";
import { makePlot, timeOfDay } from "./plot.js";

const EVERY_MS = 2000;
const SMOOTH_S = 5;
const SPAN_S = 300;

const balances = { true: ["balanced", "is-good"], false: ["differs", "is-warn"], null: ["not known", ""] };
const formats = { devices: count, online: count, rate_s: rate, lag_s: seconds, quarantined: count };

function set(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

const place = document.getElementById("rate-plot");
const readout = document.querySelector("[data-readout]");
let times = [];
let shown = [];
const plot = place && makePlot(place, {
  series: (colour) => [{ stroke: colour.line, width: 1.6, fill: colour.band, points: { show: false } }],
  scales: { x: { range: () => [nowMs() / 1000 - SPAN_S, nowMs() / 1000] }, y: { range: (_self, _least, greatest) => [0, Math.max(1, greatest * 1.15)] } },
  onPoint: (at, isOver) => {
    set(readout, isOver && at !== null && shown[at] !== undefined
      ? `${rate(shown[at])} at ${timeOfDay(times[at])}` : "last 5 minutes");
  },
});

// Each second stands for itself and those before it: devices that send once in a few seconds make a line, not a comb.
function drawRates(rates) {
  if (!plot || !rates.length) return;
  const now = Math.floor(nowMs() / 1000);
  times = rates.map((_rate, at) => now - rates.length + at);
  shown = rates.map((_rate, at) => {
    const part = rates.slice(Math.max(0, at - SMOOTH_S + 1), at + 1);
    return part.reduce((sum, each) => sum + each, 0) / part.length;
  });
  plot.set([times, shown]);
}

function show(figures) {
  if (figures.devices && document.querySelector(".first")) return location.reload(); // the first device is there
  for (const [name, format] of Object.entries(formats)) {
    const known = name === "quarantined" ? figures.ledger?.quarantined : figures[name];
    set(document.querySelector(`[data-figure="${name}"]`), format(known));
  }
  for (const cell of document.querySelectorAll("[data-ledger]")) set(cell, count(figures.ledger?.[cell.dataset.ledger]));
  const chip = document.querySelector("[data-balance]");
  if (chip && figures.ledger) {
    const [word, look] = balances[figures.balanced];
    set(chip, word);
    chip.className = `chip ${look}`;
  }
  for (const place of document.querySelectorAll("[data-gaps]")) set(place, count(figures.gaps?.[place.dataset.gaps]));
  showDelays(figures.delays);
  drawRates(figures.rates);
}

function showDelays(delays) {
  const table = document.querySelector("[data-delays]");
  if (!table || !delays.length) return;
  table.replaceChildren(...delays.map((delay) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    const way = document.createElement("span");
    name.scope = "row";
    way.className = "muted";
    way.textContent = delay.way;
    name.append(`${delay.kind} `, way);
    row.append(name);
    for (const share of ["p50", "p95", "p99"]) row.insertCell().textContent = seconds(delay[share]);
    return row;
  }));
}

async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/v1/overview", { headers: { Accept: "application/json" } });
    if (answer.status === 401) return location.reload();
    setClock(answer.headers.get("Date"));
    if (answer.ok) show(await answer.json());
  } catch {
    // The next turn tries again; the badge of the feed says that the connection is lost.
  }
}

const rows = new Map([...document.querySelectorAll("tr[data-device]")].map((row) => [row.dataset.device, row]));

function onPoints(points) {
  for (const point of points) {
    const row = rows.get(point.device);
    if (!row) continue;
    for (const place of row.querySelectorAll("[data-field]")) {
      const fresh = point.fields[place.dataset.field];
      if (fresh !== undefined && place.dataset.measurement === point.measurement) set(place, value(fresh));
    }
    setAge(row.querySelector(".when"), point.time);
  }
  renewAges();
}

if (place) drawRates(place.dataset.values.split(" ").filter(Boolean).map(Number));
setInterval(renew, EVERY_MS);
setInterval(renewAges, 1000);
if (rows.size) watch({ devices: [...rows.keys()] }, onPoints, renew);
