// The page of one device, alive: newest values, and charts of history that the feed goes on drawing.

import { nowIso, nowMs, renewAges, setAge, setClock, value } from "./format.js";
import { watch } from "./feed.js";
import { lonely, makePlot, timeOfDay } from "./plot.js";

const head = document.querySelector(".page-head[data-device]");
const device = head.dataset.device;
const FNS = ["mean", "min", "max"];
const GAP_FACTOR = 5; // a pause of that many usual distances is a gap, not a line

const keyOf = (measurement, field) => JSON.stringify([measurement, field]);
const tiles = new Map([...document.querySelectorAll(".value-tile")].map(
  (tile) => [keyOf(tile.dataset.measurement, tile.dataset.field), tile]));

// A field's buckets, each [time, mean, min, max, number of values], oldest first.
class Chart {
  constructor(figure, lengthS, everyS) {
    this.field = figure.dataset.field;
    this.measurement = figure.dataset.measurement;
    this.unit = figure.dataset.unit;
    this.lengthS = lengthS;
    this.everyS = everyS;
    this.buckets = [];
    this.drawn = [[], [], [], []];
    this.readout = figure.querySelector("[data-readout]");
    this.place = figure.querySelector("[data-plot]");
    this.plot = makePlot(this.place, {
      series: (colour) => [
        { stroke: colour.line, width: 1.7, points: lonely },
        { stroke: "transparent", points: { show: false } },
        { stroke: "transparent", points: { show: false } },
      ],
      bands: (colour) => [{ series: [3, 2], fill: colour.band }],
      scales: { x: { range: () => [this.nowS() - this.lengthS, this.nowS()] } },
      onPoint: (at, isOver) => this.read(isOver ? at : null),
    });
  }

  nowS() {
    return nowMs() / 1000;
  }

  async load() {
    const nowNs = BigInt(nowMs()) * 1000000n;
    const query = new URLSearchParams({
      device, field: this.field, measurement: this.measurement, every: `${this.everyS}s`,
      start: String(nowNs - BigInt(this.lengthS) * 1000000000n), end: String(nowNs + 60000000000n),
    });
    for (const fn of FNS) query.append("fn", fn);
    const answer = await fetch(`/v1/query/aggregate?${query}`);
    if (answer.status === 401) return location.reload();
    setClock(answer.headers.get("Date"));
    if (!answer.ok) return this.say("The history cannot be read just now.");
    const { rows } = await answer.json();
    this.buckets = rows.filter((row) => typeof row.values[this.field]?.mean === "number").map((row) => {
      const found = row.values[this.field];
      return [Date.parse(row.time) / 1000, found.mean, found.min, found.max, 1];
    });
    this.draw();
  }

  add(timeS, fresh) {
    const start = Math.floor(timeS / this.everyS) * this.everyS;
    const last = this.buckets.at(-1);
    if (last && start < last[0]) return; // late: the next load shows it
    if (last && start === last[0]) {
      last[4] += 1;
      last[1] += (fresh - last[1]) / last[4];
      last[2] = Math.min(last[2], fresh);
      last[3] = Math.max(last[3], fresh);
    } else {
      this.buckets.push([start, fresh, fresh, fresh, 1]);
    }
  }

  draw() {
    const oldest = this.nowS() - this.lengthS - this.everyS;
    while (this.buckets.length && this.buckets[0][0] < oldest) this.buckets.shift();
    if (!this.buckets.length) return this.say("Nothing in this time span.");
    const gap = this.usualDistance() * GAP_FACTOR;
    const columns = [[], [], [], []];
    let before = null;
    for (const bucket of this.buckets) {
      if (before !== null && bucket[0] - before > gap) {
        columns[0].push(before + this.everyS);
        for (const column of columns.slice(1)) column.push(null);
      }
      columns.forEach((column, at) => column.push(bucket[at]));
      before = bucket[0];
    }
    this.drawn = columns;
    this.plot.set(columns);
    this.read(null);
  }

  usualDistance() {
    const distances = this.buckets.slice(1).map((bucket, at) => bucket[0] - this.buckets[at][0]).sort((a, b) => a - b);
    return distances[Math.floor(distances.length / 2)] ?? this.everyS;
  }

  read(at) {
    const [times, means, least, greatest] = this.drawn;
    const unit = this.unit ? ` ${this.unit}` : "";
    if (at !== null && means[at] !== null && means[at] !== undefined) {
      this.readout.textContent = `${value(means[at])}${unit} at ${timeOfDay(times[at])}`;
      return;
    }
    const low = Math.min(...least.filter((each) => each !== null));
    const high = Math.max(...greatest.filter((each) => each !== null));
    const span = low === high ? value(low) : `${value(low)} to ${value(high)}`;
    this.readout.textContent = Number.isFinite(low) ? `${span}${unit}` : "";
  }

  say(text) {
    if (this.drawn[0].length) return;
    const note = document.createElement("p");
    note.className = "plot-empty";
    note.textContent = text;
    this.place.replaceChildren(note);
  }
}

const board = document.getElementById("charts");
const charts = board ? [...board.querySelectorAll(".chart")].map(
  (figure) => new Chart(figure, Number(board.dataset.lengthS), Number(board.dataset.everyS))) : [];

async function loadAll() {
  for (const chart of charts) await chart.load().catch(() => chart.say("The history cannot be read just now."));
}

function onPoints(points) {
  for (const point of points) {
    const timeS = Date.parse(point.time) / 1000;
    for (const [field, fresh] of Object.entries(point.fields)) {
      const tile = tiles.get(keyOf(point.measurement, field));
      if (tile) {
        const known = tile.querySelector("time");
        if (!known || Date.parse(known.dateTime) <= timeS * 1000) tile.querySelector("[data-value]").textContent = value(fresh);
        setAge(tile.lastElementChild, point.time);
      }
      if (typeof fresh !== "number") continue;
      for (const chart of charts) {
        if (chart.field === field && chart.measurement === point.measurement) chart.add(timeS, fresh);
      }
    }
  }
  setAge(document.querySelector("[data-seen]"), nowIso());
  const dot = head.querySelector("[data-dot]:not(.is-online, .is-disabled)");
  if (dot) {
    dot.className = "dot is-online";
    head.querySelector("[data-presence]").textContent = "online";
  }
  renewAges();
}

setInterval(() => {
  renewAges();
  if (!document.hidden) for (const chart of charts) if (chart.buckets.length) chart.draw();
}, 1000);
loadAll();
watch({ devices: [device] }, onPoints, loadAll);
