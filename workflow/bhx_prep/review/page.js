"use strict";
// Everything from the data becomes text of the page, never markup: only textContent and attributes are set.
const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns;
const rows = data.rows.map(values => Object.fromEntries(values.map((value, i) => [data.fields[i], value])));
const order = new Intl.Collator(undefined, {numeric: true});
const NAMED = ["cohort", "subject", "session", "task", "run", "modality", "decision", "who", "when", "why"];
const STEP = 200;
const pictures = new Map();   // of the batches that were loaded last
const loaded = [];
const decided = new Map();    // row -> {decision, why}
let sorted = {column: "subject", down: false};
let shown = [], limit = STEP, chosen = null;

const $ = id => document.getElementById(id);
function element(tag, text, attributes) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  return made;
}
function format(value, column) {
  if (value === null || value === undefined) return "";
  if (!column.number) return String(value);
  return Number.isInteger(value) ? String(value) : String(+value.toPrecision(4));
}

function compare(a, b) {
  const x = a[sorted.column] ?? null, y = b[sorted.column] ?? null;
  if (x === null || y === null) return (x === null) - (y === null);   // what is not known comes last, either way
  const before = typeof x === "number" && typeof y === "number" ? x - y : order.compare(x, y);
  return sorted.down ? -before : before;
}
function passes(row) {
  if ($("state").value && row.state !== $("state").value) return false;
  if ($("modality").value && row.modality !== $("modality").value) return false;
  const text = $("text").value.trim().toLowerCase();
  if (text && ![row.key, row.reason, row.why, ...(row.notes || [])].some(t => t && t.toLowerCase().includes(text))) return false;
  for (const line of $("numbers").children) {
    const value = row[line.querySelector("select").value];
    const [low, high] = [...line.querySelectorAll("input")].map(input => input.value);
    if (low === "" && high === "") continue;
    if (value === null || value === undefined) return false;
    if ((low !== "" && value < +low) || (high !== "" && value > +high)) return false;
  }
  return true;
}
function refresh() {
  shown = rows.filter(passes).sort(compare);
  limit = STEP;
  draw();
}
function draw() {
  const head = document.querySelector("thead tr");
  const scan = element("th", "scan", {scope: "col", class: "still"});
  head.replaceChildren(scan, ...columns.map(column => {
    const cell = element("th", column.name, {title: column.help, tabindex: 0, scope: "col"});
    if (column.number) cell.className = "n";
    if (column.name === sorted.column) {
      cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      cell.textContent += sorted.down ? " \u2193" : " \u2191";
    }
    const sort = () => {
      sorted = {column: column.name, down: sorted.column === column.name && !sorted.down};
      refresh();
    };
    cell.addEventListener("click", sort);
    cell.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    return cell;
  }));
  document.querySelector("tbody").replaceChildren(...shown.slice(0, limit).map(line));
  thumbnails();
  $("count").textContent = `${shown.length} of ${rows.length} scans`;
  $("more").hidden = shown.length <= limit;
}
function line(row) {
  const made = element("tr", undefined, {tabindex: 0, "data-key": row.key, "data-modality": row.modality});
  if (row === chosen) made.setAttribute("aria-selected", "true");
  const small = element("td", undefined, {class: "small"});
  if (row.batch) small.append(element("img", undefined, {alt: "", width: 92, height: 48, hidden: ""}));
  made.append(small);
  for (const column of columns) {
    const cell = element("td", format(row[column.name], column));
    if (column.number) cell.className = "n";
    if (column.name === "state") {
      const mine = decided.get(row);
      cell.className = row.state.startsWith("excluded") ? "excluded" : "used";
      if (mine) {
        cell.classList.add("decided");
        cell.textContent += ` \u2192 ${mine.decision || "no decision"}`;
      }
    }
    made.append(cell);
  }
  made.addEventListener("click", () => look(row));
  made.addEventListener("keydown", event => { if (event.key === "Enter") look(row); });
  return made;
}

const small = new Map();       // of all batches that were in sight
const asked = new Map();
function thumbnails() {
  for (const made of document.querySelectorAll("#list tbody tr")) {
    const row = shown.find(one => one.key === made.dataset.key && one.modality === made.dataset.modality);
    if (!row.batch) continue;
    if (!asked.has(row.batch)) asked.set(row.batch, fetched(`batch-${row.batch}.small.js`).catch(() => {}));
    asked.get(row.batch).then(() => {
      const svg = small.get(`${row.modality} ${row.key}`), image = made.querySelector("img");
      if (svg === undefined) return;
      image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
      image.hidden = false;
    });
  }
}
function fetched(file) {
  return new Promise((resolve, reject) => {
    const script = element("script", undefined, {src: file});
    script.onload = () => { script.remove(); resolve(); };
    script.onerror = () => { script.remove(); reject(new Error(file)); };
    document.head.append(script);
  });
}

// called by the files of pictures, which are scripts: a page from a disk may read no other files
window.bhxPicture = (key, modality, kind, svg) => {
  const place = `${modality} ${key}`;
  if (kind === "thumbnail") { small.set(place, svg); return; }
  if (!pictures.has(place)) pictures.set(place, new Map());
  pictures.get(place).set(kind, svg);
};
async function load(batch) {
  if (loaded.some(one => one.batch === batch)) return;
  const before = new Set(pictures.keys());
  await fetched(`batch-${batch}.js`);
  loaded.push({batch, places: [...pictures.keys()].filter(place => !before.has(place))});
  while (loaded.length > 2) for (const place of loaded.shift().places) pictures.delete(place);
}
function look(row) {
  chosen = row;
  document.querySelectorAll("tbody tr").forEach(made =>
    made.setAttribute("aria-selected", String(made.dataset.key === row.key && made.dataset.modality === row.modality)));
  const panel = $("scan");
  panel.querySelectorAll("img").forEach(image => URL.revokeObjectURL(image.src));
  panel.replaceChildren(element("h2", `${row.key} ${row.modality}`), state(row), decide(row), figures(row), numbers(row));
  panel.scrollTop = 0;
}
function state(row) {
  const made = element("div");
  made.append(element("p", row.state, {class: row.state.startsWith("excluded") ? "excluded" : "used"}));
  if (row.reason) made.append(element("p", row.reason));
  if (row.decision) made.append(element("p", `${row.decision}, ${row.who || "somebody"} ${row.when || ""}: ${row.why}`));
  if (row.overruled) made.append(element("p", `limits that are overruled: ${row.overruled}`));
  for (const note of row.notes || []) made.append(element("p", note, {class: "muted"}));
  const written = data.reports[row.subject] || [];
  if (written.length) {
    const line = element("p", "fMRIPrep: ");
    written.forEach(([name, href], i) => line.append(i ? ", " : "", element("a", name, {href, target: "_blank", rel: "noopener"})));
    made.append(line);
  }
  return made;
}
function decide(row) {
  const made = element("p"), mine = decided.get(row);
  const why = element("input", undefined, {id: "why", placeholder: "why", size: 40, "aria-label": "why"});
  why.value = mine ? mine.why : "";
  const set = decision => {
    if (!why.value.trim()) { why.focus(); $("changed").textContent = "say why first"; return; }
    decided.set(row, {decision, why: why.value});
    changed();
  };
  const buttons = [["exclude", () => set("exclude")], ["keep", () => set("keep")],
    ["undo", () => { decided.delete(row); changed(); }]];
  made.append(why, " ");
  for (const [name, act] of buttons) {
    const button = element("button", name, {type: "button", id: name});
    button.addEventListener("click", act);
    made.append(button, " ");
  }
  return made;
}
function changed() {
  const n = decided.size;
  $("changed").textContent = n ? `${n} new ${n === 1 ? "decision" : "decisions"}, not yet downloaded` : "no new decisions";
  draw();
}
function figures(row) {
  const made = element("div");
  if (!row.batch) { made.append(element("p", "There are no images to draw, only series.", {class: "muted"})); return made; }
  load(row.batch).then(() => {
    if (chosen !== row) return;
    const mine = pictures.get(`${row.modality} ${row.key}`) || new Map();
    for (const kind of data.kinds) {
      if (!mine.has(kind)) continue;
      // as an image, in which no script runs whatever the file holds
      const address = URL.createObjectURL(new Blob([mine.get(kind)], {type: "image/svg+xml"}));
      made.append(element("img", undefined, {src: address, alt: `${kind} of ${row.key}`, "data-kind": kind}));
    }
    if (!mine.size) made.append(element("p", "No picture of this scan could be drawn.", {class: "muted"}));
  }).catch(() => made.append(element("p", `batch-${row.batch}.js is not beside this page: copy the whole folder.`, {class: "excluded"})));
  return made;
}
function numbers(row) {
  const made = element("table"), body = element("tbody");
  for (const column of columns) {
    if (!column.number || row[column.name] === null || row[column.name] === undefined) continue;
    const pair = element("tr");
    pair.append(element("td", column.name), element("td", format(row[column.name], column), {class: "n"}), element("td", column.help, {class: "muted"}));
    body.append(pair);
  }
  made.append(body);
  return made;
}

function cell(text) {
  const plain = String(text ?? "").replace(/\s+/g, " ").trim();
  return plain.includes('"') ? `"${plain.replaceAll('"', '""')}"` : plain;
}
function table() {
  const lines = [...decided].map(([row, mine]) => ({...row, cohort: data.cohort, decision: mine.decision,
    who: $("who").value, when: new Date().toISOString().slice(0, 10), why: mine.why, key: row.ambiguous ? row.key : ""}));
  const names = lines.some(one => one.key) ? [...NAMED, "key"] : NAMED;
  return [names, ...lines.map(one => names.map(name => cell(one[name])))].map(cells => cells.join("\t")).join("\n") + "\n";
}
function download() {
  if (!decided.size) { $("changed").textContent = "no new decisions: choose a scan, say why, and exclude or keep it"; return; }
  const address = URL.createObjectURL(new Blob([table()], {type: "text/tab-separated-values"}));
  const link = element("a", undefined, {href: address, download: `${data.cohort}_decisions.tsv`});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
  $("changed").textContent = `${decided.size} downloaded: bhx qc merge ${data.cohort}_decisions.tsv`;
}
function filter() {
  const made = element("div");
  const select = element("select", undefined, {"aria-label": "number"});
  select.append(...columns.filter(column => column.number).map(column => element("option", column.name, {value: column.name})));
  const [low, high] = ["at least", "at most"].map(text =>
    element("input", undefined, {type: "number", step: "any", class: "number", placeholder: text, "aria-label": text}));
  const remove = element("button", "remove", {type: "button"});
  remove.addEventListener("click", () => { made.remove(); refresh(); });
  for (const input of [select, low, high]) input.addEventListener("input", refresh);
  made.append(select, " ", low, " ", high, " ", remove);
  $("numbers").append(made);
}
for (const name of ["state", "modality"]) {
  $(name).append(...[...new Set(rows.map(row => row[name]))].sort().map(value => element("option", value, {value})));
  $(name).addEventListener("input", refresh);
}
$("text").addEventListener("input", refresh);
$("add").addEventListener("click", filter);
$("more").addEventListener("click", () => { limit += STEP; draw(); });
$("download").addEventListener("click", download);
document.addEventListener("keydown", event => {
  if (!["j", "k"].includes(event.key) || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const at = shown.indexOf(chosen) + (event.key === "j" ? 1 : -1);
  if (shown[at]) {
    look(shown[at]);
    document.querySelector("tr[aria-selected=true]")?.scrollIntoView({block: "nearest"});
  }
});
refresh();
