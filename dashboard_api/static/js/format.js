// How values, ages and rates are written: the same rules as the server's (look.py).

const NARROW = "\u202f";
const DASH = "\u2013";
const SIGNIFICANT = 6;
const WHOLE = [10 ** SIGNIFICANT, 1e15]; // size of numbers that are written to the unit instead

export function value(shown) {
  if (shown === null || shown === undefined) return DASH;
  if (typeof shown !== "number") return String(shown);
  const size = Math.abs(shown);
  if (size >= WHOLE[0] && size < WHOLE[1]) return shown.toFixed(0);
  return String(Number(shown.toPrecision(SIGNIFICANT)));
}

export function count(shown) {
  return shown === null || shown === undefined ? DASH : Math.round(shown).toLocaleString("en-US");
}

export function rate(shown) {
  if (shown === null || shown === undefined) return DASH;
  const digits = shown < 100 ? 1 : 0;
  return shown.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function seconds(shown) {
  if (shown === null || shown === undefined) return DASH;
  if (shown < 0.0005) return `0${NARROW}s`;
  if (shown < 1) return `${Math.round(shown * 1000)}${NARROW}ms`;
  return shown < 60 ? `${shown.toFixed(1)}${NARROW}s` : ago(shown);
}

export function ago(elapsed) {
  if (elapsed < 2) return "now";
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (elapsed >= length) return `${Math.floor(elapsed / length)}${NARROW}${unit} ago`;
  }
  return `${Math.floor(elapsed)}${NARROW}s ago`;
}

// Ages are counted against the server's clock: a laptop that is minutes off must not show devices as silent.
let skew = 0;

export function setClock(header) {
  const there = Date.parse(header ?? "");
  if (!Number.isNaN(there) && Math.abs(there - Date.now()) > 5000) skew = there - Date.now();
}

export const nowMs = () => Date.now() + skew;
export const nowIso = () => new Date(nowMs()).toISOString();

export function renewAges(root = document) {
  const now = nowMs();
  for (const element of root.querySelectorAll("time[data-age]")) {
    const text = ago((now - Date.parse(element.dateTime)) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}

// Puts a time into a place that may have said "never" before.
export function setAge(place, iso) {
  let element = place.querySelector("time[data-age]");
  if (!element) {
    element = document.createElement("time");
    element.dataset.age = "";
    place.replaceChildren(element);
  }
  if (element.dateTime && Date.parse(element.dateTime) > Date.parse(iso)) return;
  element.dateTime = iso;
  element.title = iso.slice(0, 19).replace("T", " ") + " UTC";
  renewAges(place);
}
