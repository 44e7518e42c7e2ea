// State and control on the page of a device: presence, twin editor with conflicts, commands with live states.

import { nowMs, setAge } from "./format.js";

const place = document.getElementById("control");
const base = `/v1/devices/${encodeURIComponent(place.dataset.device)}`;
const may = place.dataset.may === "yes";
const EVERY_MS = 2000;
const DAY_MS = 86400000;
const LISTED = 20;
const part = (name) => place.querySelector(`[data-${name}]`);

async function call(method, path, body, headers = {}) {
  const options = { method, headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (answer.status === 401) location.reload();
  return [answer, await answer.json().catch(() => ({}))];
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function tell(target, text) {
  target.textContent = text;
  target.hidden = !text;
}

// ---- presence

function drawPresence(shown) {
  const end = nowMs();
  const start = end - DAY_MS;
  const events = [{ time: new Date(start).toISOString(), state: shown.before }, ...shown.events];
  const spans = events.map((event, at) => {
    const from = Math.max(Date.parse(event.time), start);
    const until = at + 1 < events.length ? Date.parse(events[at + 1].time) : end;
    const span = element("span", "", `presence-span is-${event.state}`);
    span.style.flexGrow = String(Math.max(0, until - from));
    span.title = `${event.state} from ${event.time.slice(0, 19).replace("T", " ")} UTC`;
    return span;
  });
  part("timeline").replaceChildren(...spans);
  const known = Object.entries(shown.availability).filter(([, share]) => share !== null);
  part("availability").textContent = known.map(([span, share]) => `${span}: ${share}% online`).join(" · ");
  part("timeline").setAttribute("aria-label", `Presence in the last 24 hours, now ${shown.state}`);
  part("events").replaceChildren(...shown.events.slice(-50).reverse().map((event) => {
    const flaps = event.flaps ? `, ${event.flaps} short absences of ${event.lost_s} s` : "";
    return element("li", `${event.time.slice(0, 19).replace("T", " ")} UTC: ${event.state} (${event.reason}${flaps})`);
  }));
}

// ---- twin

const editor = part("twin").querySelector("textarea");
let tag = null; // of what is in the editor
let clean = ""; // text of the editor as it was loaded

const write = (document) => JSON.stringify(document, null, 2);

function drawTwin(twin, etag) {
  const desired = write(twin.desired);
  const isDirty = editor.value !== clean;
  if (!isDirty) {
    editor.value = clean = desired;
    tag = etag;
    tell(part("conflict"), "");
  } else if (desired !== clean && etag.split(".")[0] !== tag.split(".")[0]) {
    tell(part("conflict"), `Somebody changed it meanwhile (version ${twin.desired_version}). Saving is refused: discard, and make your change again.`);
  }
  part("reported").textContent = twin.reported_version ? write(twin.reported) : "nothing yet";
  part("delta").textContent = Object.keys(twin.delta).length ? write(twin.delta) : "nothing";
  part("versions").textContent = `desired version ${twin.desired_version}, reported version ${twin.reported_version}`;
}

async function loadTwin(isFresh = false) {
  const [answer, twin] = await call("GET", `${base}/twin`);
  if (!answer.ok) return;
  if (isFresh) editor.value = clean;
  drawTwin(twin, answer.headers.get("ETag"));
}

async function saveTwin(event) {
  event.preventDefault();
  let wanted;
  try {
    wanted = JSON.parse(editor.value);
  } catch (error) {
    return tell(part("conflict"), `This is not JSON: ${error.message}`);
  }
  const [answer, told] = await call("PUT", `${base}/twin/desired`, wanted, { "If-Match": tag });
  if (!answer.ok) return tell(part("conflict"), told.detail ?? "It could not be saved.");
  clean = editor.value;
  await loadTwin(true);
}

// ---- commands

function row(command) {
  const line = document.createElement("tr");
  const head = element("th", command.name);
  head.scope = "row";
  const answer = command.error ?? (command.result === null ? "" : JSON.stringify(command.result));
  const age = element("td", "", "num");
  setAge(age, command.created);
  const deed = document.createElement("td");
  if (may && command.ended === null) {
    const cancel = element("button", "Cancel", "quiet");
    cancel.type = "button";
    cancel.setAttribute("aria-label", `Cancel ${command.name}`);
    cancel.addEventListener("click", async () => {
      await call("POST", `/v1/commands/${command.id}:cancel`);
      await loadCommands();
    });
    deed.append(cancel);
  }
  const state = document.createElement("td");
  state.append(element("span", command.state, `chip${["failed", "expired"].includes(command.state) ? " is-warn" : ""}`));
  line.append(head, state, element("td", answer, "break"), age, deed);
  return line;
}

async function loadCommands() {
  const [answer, page] = await call("GET", `${base}/commands?limit=${LISTED}`);
  if (!answer.ok || !page.items.length) return;
  const focused = document.activeElement?.getAttribute("aria-label");
  part("commands").replaceChildren(...page.items.map(row));
  if (focused) part("commands").querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

async function send(event) {
  event.preventDefault();
  const form = event.target;
  let params;
  try {
    params = JSON.parse(form.elements.params.value || "{}");
  } catch (error) {
    return tell(part("refused"), `The parameters are not JSON: ${error.message}`);
  }
  const body = { name: form.elements.name.value, params, deadline_s: Number(form.elements.deadline.value) };
  const [answer, told] = await call("POST", `${base}/commands`, body);
  tell(part("refused"), answer.ok ? "" : told.detail ?? "It could not be sent.");
  await loadCommands();
}

async function loadAll() {
  const start = new Date(nowMs() - DAY_MS).toISOString();
  const [answer, shown] = await call("GET", `${base}/presence?start=${encodeURIComponent(start)}`);
  if (answer.ok) drawPresence(shown);
  await loadTwin();
  await loadCommands();
}

part("twin").addEventListener("submit", saveTwin);
part("reload")?.addEventListener("click", () => loadTwin(true));
part("send")?.addEventListener("submit", send);
setInterval(() => {
  if (!document.hidden) loadAll().catch(() => {});
}, EVERY_MS);
loadAll().catch(() => {});
