// Selecting devices in the table, and doing the same to all of them: preview, then a job whose progress is shown.

const LOOK_MS = 400;
const MAX_NAMED = 100; // ids in one `id in (..)`
const bar = document.querySelector("[data-selection]");
const dialog = document.getElementById("bulk");
const boxes = [...document.querySelectorAll("[data-select]")];
const page = document.querySelector("[data-select-page]");
const everything = document.querySelector("[data-select-all]");
const part = (name) => dialog.querySelector(`[data-bulk-${name}]`);
const form = dialog?.querySelector("form");

const chosen = () => boxes.filter((box) => box.checked).map((box) => box.dataset.select);
const query = () => (everything?.checked ? bar.dataset.query : `id in (${chosen().join(", ")})`);

function show() {
  const count = chosen().length;
  page.checked = count === boxes.length;
  page.indeterminate = count > 0 && count < boxes.length;
  const all = everything?.checked;
  bar.querySelector("[data-selected]").textContent = all ? "all that match" : count ? `${count} selected` : "none selected";
  bar.querySelector("[data-bulk-open]").disabled = !all && (count === 0 || count > MAX_NAMED);
  for (const box of [...boxes, page]) box.disabled = Boolean(all);
}

async function ask(method, path, body) {
  const answer = await fetch(path, { method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail || `The platform answered ${answer.status}.`);
  return told;
}

// Numbers, true and false are what they look like; the rest is text.
function valueOf(text) {
  if (/^(true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?)$/.test(text)) return JSON.parse(text);
  return text;
}

function action() {
  const { do: what, key, value, type, group } = Object.fromEntries(new FormData(form));
  const patches = {
    set_tag: { tags: { [key]: value } },
    remove_tag: { tags: { [key]: null } },
    set_attribute: { attributes: { [key]: valueOf(value ?? "") } },
    remove_attribute: { attributes: { [key]: null } },
    set_type: { type: type || null },
  };
  if (patches[what]) return { do: "update", patch: patches[what] };
  return what.endsWith("group") ? { do: what, group } : { do: what };
}

function showFields() {
  const what = form.elements.do.value;
  for (const field of dialog.querySelectorAll("[data-for]")) {
    field.hidden = !field.dataset.for.split(" ").includes(what);
    for (const input of field.querySelectorAll("input, select")) input.required = !field.hidden && input.name !== "type" && input.name !== "value";
  }
}

function say(fault) {
  part("fault").hidden = !fault;
  part("fault").textContent = fault;
}

async function open() {
  say("");
  part("progress").hidden = true;
  part("go").hidden = false;
  part("go").disabled = true;
  part("count").textContent = "the selected devices";
  part("examples").textContent = "";
  part("failures").replaceChildren();
  showFields();
  dialog.showModal();
  try {
    const found = await ask("POST", "/v1/devices:bulk", { query: query(), action: { do: "disable" }, preview: true });
    part("count").textContent = `${found.count.toLocaleString("en-US")} device${found.count === 1 ? "" : "s"}`;
    const names = found.examples.map((device) => device.id).join(", ");
    part("examples").textContent = found.count > found.examples.length ? `${names}, ...` : names;
    part("go").disabled = found.count === 0;
  } catch (error) {
    say(error.message);
  }
}

async function go() {
  if (!form.reportValidity()) return;
  say("");
  part("go").disabled = true;
  try {
    const job = await ask("POST", "/v1/devices:bulk", { query: query(), action: action() });
    part("go").hidden = true;
    part("progress").hidden = false;
    follow(job);
  } catch (error) {
    say(error.message);
    part("go").disabled = false;
  }
}

async function follow(started) {
  let job = started;
  while (true) {
    showJob(job);
    if (job.state !== "queued" && job.state !== "running") break;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    job = await ask("GET", `/v1/jobs/${job.id}`).catch(() => job); // a platform that restarts goes on with it
  }
  part("close").dataset.reload = "yes";
  part("close").focus();
}

function showJob(job) {
  const bar = dialog.querySelector("progress");
  bar.max = Math.max(1, job.total ?? 1);
  bar.value = job.done + job.failed;
  const ended = { done: "Done", failed: `Failed: ${job.error}`, cancelled: "Cancelled" }[job.state] ?? "Working";
  part("said").textContent = `${ended}: ${job.done} of ${job.total ?? "?"}${job.failed ? `, ${job.failed} failed` : ""}`;
  part("failures").replaceChildren(...(job.result.failures ?? []).map((failure) => {
    const line = document.createElement("li");
    line.textContent = `${failure.id}: ${failure.detail}`;
    return line;
  }));
}

if (bar && dialog) {
  for (const box of [...boxes, everything].filter(Boolean)) box.addEventListener("change", show);
  page.addEventListener("change", () => {
    for (const box of boxes) box.checked = page.checked;
    show();
  });
  bar.querySelector("[data-bulk-open]").addEventListener("click", open);
  form.elements.do.addEventListener("change", showFields);
  part("go").addEventListener("click", go);
  form.addEventListener("submit", (event) => {
    if (event.submitter !== part("close")) { // Enter in a field
      event.preventDefault();
      if (!part("go").hidden && !part("go").disabled) go();
    }
  });
  dialog.addEventListener("close", () => {
    if (part("close").dataset.reload) location.reload();
  });
  show();
}
