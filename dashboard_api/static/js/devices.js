// The device table, alive: whoever sends is online and was seen just now.

import { nowIso, renewAges, setAge } from "./format.js";
import { watch } from "./feed.js";

const rows = new Map([...document.querySelectorAll("tr[data-device]")].map((row) => [row.dataset.device, row]));

function onPoints(points) {
  for (const point of points) {
    const row = rows.get(point.device);
    if (!row) continue;
    const seen = row.querySelector(".cell-seen"), dot = row.querySelector("[data-dot]"); // columns that may be left out
    if (seen) setAge(seen, nowIso()); // when it was heard, whatever its own clock says
    if (dot && !dot.matches(".is-online, .is-disabled")) {
      dot.className = "dot is-online";
      row.querySelector("[data-presence]").textContent = "online";
    }
  }
  renewAges();
}

setInterval(renewAges, 1000);
if (rows.size) watch({ devices: [...rows.keys()], fields: [] }, onPoints);
