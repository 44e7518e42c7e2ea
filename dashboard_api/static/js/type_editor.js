// The editor of a device type: a form over the JSON beside it. The JSON is what is sent; each keeps the other up to date.

const editor = document.getElementById("editor");
const text = document.getElementById("text");
const rows = editor.querySelector("[data-rows]");
const members = editor.querySelector("[data-members]");
const faults = JSON.parse(editor.dataset.faults || "{}");
let spec = {};

const MEMBERS = [
  ["description", "Description", "text"],
  ["unknown_fields", "Unknown fields", ["accept", "drop", "quarantine"]],
  ["expected_interval_s", "Expected interval, s", "number"],
  ["retention_days", "Retention, days", "number"],
  ["rate_limit", "Rate limit, each device", "text"],
  ["type_rate_limit", "Rate limit, all together", "text"],
];
const COLUMNS = [
  ["type", "Type", ["float", "int", "bool", "string"]],
  ["unit", "Unit", "text"],
  ["min", "Min", "number"],
  ["max", "Max", "number"],
  ["required", "Required", "checkbox"],
  ["description", "Description", "text"],
];

function labelled(title, input, path) {
  const label = document.createElement("label");
  label.append(title, input);
  const fault = faults[path];
  if (fault) {
    const note = document.createElement("span");
    note.className = "field-fault";
    note.id = `fault-${path}`;
    note.textContent = fault;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", note.id);
    label.append(note);
  }
  return label;
}

function control(kind, value) {
  if (Array.isArray(kind)) {
    const select = document.createElement("select");
    for (const word of kind) select.append(new Option(word, word, false, word === (value ?? kind[0])));
    return select;
  }
  const input = document.createElement("input");
  input.type = kind === "number" ? "text" : kind;
  if (kind === "number") input.inputMode = "decimal";
  if (kind === "checkbox") input.checked = Boolean(value);
  else input.value = value ?? "";
  return input;
}

function read(kind, input) {
  if (kind === "checkbox") return input.checked || undefined;
  if (input.value === "") return undefined;
  if (kind !== "number") return input.value;
  const number = Number(input.value.replace(",", "."));
  return Number.isNaN(number) ? input.value : number; // what is no number is for the platform to refuse
}

function set(target, key, value) {
  if (value === undefined) delete target[key];
  else target[key] = value;
  write();
}

function write() {
  text.value = JSON.stringify(spec, null, 2);
}

function showMembers() {
  members.replaceChildren();
  for (const [key, title, kind] of MEMBERS) {
    const input = control(kind, spec[key]);
    input.addEventListener("input", () => set(spec, key, read(kind, input)));
    members.append(labelled(title, input, key));
  }
}

function rename(from, to) {
  if (!to || (to !== from && to in spec.fields)) return from;
  spec.fields = Object.fromEntries(Object.entries(spec.fields).map(([name, field]) => [name === from ? to : name, field]));
  write();
  return to;
}

function showRow(first) {
  let name = first;
  const row = document.createElement("div");
  row.className = "field-row";
  const title = control("text", name);
  title.addEventListener("change", () => { name = rename(name, title.value.trim()); title.value = name; });
  row.append(labelled("Field", title, `fields.${name}`));
  for (const [key, words, kind] of COLUMNS) {
    const input = control(kind, spec.fields[name][key]);
    input.addEventListener("input", () => set(spec.fields[name], key, read(kind, input)));
    const label = labelled(words, input, `fields.${name}.${key}`);
    if (kind === "checkbox") label.classList.add("check-cell");
    row.append(label);
  }
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "quiet";
  remove.textContent = "Remove";
  remove.setAttribute("aria-label", `Remove field ${name}`);
  remove.addEventListener("click", () => { delete spec.fields[name]; write(); row.remove(); });
  row.append(remove);
  rows.append(row);
  return title;
}

function load() {
  try {
    spec = JSON.parse(text.value);
  } catch {
    return false; // half typed: the form waits
  }
  if (spec === null || typeof spec !== "object" || Array.isArray(spec)) return false;
  if (spec.fields === null || typeof spec.fields !== "object") spec.fields = {};
  showMembers();
  rows.replaceChildren();
  for (const name of Object.keys(spec.fields)) showRow(name);
  return true;
}

editor.querySelector("[data-add]").addEventListener("click", () => {
  let number = Object.keys(spec.fields).length + 1;
  while (`field${number}` in spec.fields) number += 1;
  spec.fields[`field${number}`] = {};
  write();
  const title = showRow(`field${number}`);
  title.focus();
  title.select();
});
text.addEventListener("change", load);

if (load()) {
  document.getElementById("form").hidden = false;
  document.getElementById("json").open = false;
}
document.getElementById("report")?.focus();
