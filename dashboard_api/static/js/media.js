// The snapshots and other blobs of one device, newest first.

import { setAge, setClock } from "./format.js";

const PAGE = 12;
const device = document.querySelector(".page-head[data-device]").dataset.device;
const place = document.getElementById("media");
const note = document.querySelector("[data-media-note]");
const more = document.querySelector("[data-media-more]");
let cursor = null;

function bytes(size) {
  for (const [length, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (size >= length) return `${(size / length).toFixed(1)} ${unit}`;
  }
  return `${size} bytes`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text) made.textContent = text;
  return made;
}

function figureOf(item) {
  const figure = element("figure", "card medium");
  const link = document.createElement("a");
  link.href = item.path;
  link.target = "_blank";
  link.rel = "noopener";
  const name = `${item.channel}, ${item.time.slice(0, 19).replace("T", " ")} UTC`;
  if (item.thumbnail) {
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.alt = name;
    picture.addEventListener("error", () => {
      link.setAttribute("aria-label", `Open ${name}`);
      picture.replaceWith("No preview");
    });
    picture.src = item.thumbnail;
    link.append(picture);
  } else {
    link.textContent = `Download ${item.type}`;
    link.setAttribute("aria-label", `Download ${item.type} of ${name}`);
  }
  const caption = document.createElement("figcaption");
  const age = element("span", "muted small");
  const shape = item.width ? `${item.width} × ${item.height}, ` : "";
  caption.append(element("strong", "", item.channel), age, element("span", "muted small", shape + bytes(item.size)));
  figure.append(link, caption);
  setAge(age, item.time);
  return figure;
}

async function load() {
  const query = new URLSearchParams({ device, limit: String(PAGE) });
  if (cursor) query.set("cursor", cursor);
  const answer = await fetch(`/v1/media?${query}`).catch(() => null);
  if (answer?.status === 401) return location.reload();
  if (!answer?.ok) {
    note.textContent = "The media service does not answer just now.";
    return;
  }
  setClock(answer.headers.get("Date"));
  const page = await answer.json();
  place.append(...page.items.map(figureOf));
  cursor = page.next;
  more.hidden = !cursor;
  note.textContent = place.querySelector("figure") ? "" : "None is kept any more.";
}

more.querySelector("button").addEventListener("click", load);
load();
