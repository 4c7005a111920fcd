
"use strict";
(() => {
const CHANGES = ["changed", "appeared", "gone", "same"];
const COVERS = ["uncovered", "covered", "waived"];
const SIGNS = ["~", "+", "\u2212"];
const NOT_SAID = "not said";
const ABSENT = -1, UNSEEN = -2;
const ROW = 44;  // pixels, as --row has it
const AHEAD = 8;  // rows drawn above and below what is seen
const COMMIT = "https://gitlab.com/qemu-project/qemu/-/commit/";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const { releases, values, causes } = data;
const LAST = releases.length - 1;
const short = (release) => release.name.replace(/^(qemu|qsd)-/, "");

// Text of QEMU's, on one line, without marks that turn it round: as launcher/display.py does it.
const plain = (text) => text.replace(/[\p{C}\p{Z}]/gu, (c) =>
  c === " " ? c : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));

/** An element of these properties and children; strings become text, never markup. */
function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// -- what there is -----------------------------------------------------------------------------

const affectsOf = (cause) => (cause < 0 ? null : causes[cause].affects) || NOT_SAID;
const AFFECTS = [...new Set(causes.map((cause) => cause.affects || NOT_SAID))].sort();
if (!AFFECTS.includes(NOT_SAID)) AFFECTS.push(NOT_SAID);
const NOTHING = 1 << 30;  // cover and effect of a row that stayed the same
const SAME = [{ change: 3, changeBit: 8, coverBit: NOTHING, affectsBit: NOTHING }];

const step = (packed) => packed && {
  change: packed[0], cover: packed[1], cause: packed[2],
  changeBit: 1 << packed[0], coverBit: 1 << packed[1], affectsBit: 1 << AFFECTS.indexOf(affectsOf(packed[2])),
};
const rows = data.rows.map(([family, type, property, facet, cells, steps], number) => ({
  number, family: data.words[family], type: data.words[type],
  property: data.words[property], facet: data.words[facet],
  cells: Array.isArray(cells) ? cells : releases.map(() => cells),
  steps: steps ? steps.map(step) : null,
}));
const FAMILIES = [...new Set(rows.map((row) => row.family))];
for (const row of rows) row.place = FAMILIES.indexOf(row.family);
const keyText = (parts) => parts.map(plain).join("\0");
const byKey = new Map();  // a property by each of its facets, and by none: the one that says most
for (const row of rows) {
  const key = [row.family, row.type, row.property];
  byKey.set(keyText([...key, row.facet]), row);
  if (row.facet === "value" || !byKey.has(keyText(key))) byKey.set(keyText(key), row);
}

/** A value as the table shows it. */
function shown(value, facet) {
  if (value === true) return /^(word$|takes |feature )/.test(facet) ? "present" : facet === "value" || facet === "default" ? "on" : "yes";
  if (value === false) return facet === "value" || facet === "default" ? "off" : "no";
  if (value === null) return "none";
  if (value === "") return "(empty)";
  if (typeof value === "string") return plain(value);
  const keys = typeof value === "object" && !Array.isArray(value) ? Object.keys(value) : [];
  if (keys.length === 1 && keys[0] === "host") return "depends on the host";
  if (keys.length === 1 && typeof value[keys[0]] === "string") return plain(`${keys[0]}: ${value[keys[0]]}`);
  return plain(JSON.stringify(value));
}

/** The place of a row or waiver: a file below launcher/platforms, and its line. */
const whereOf = (cause) => (cause.line ? `${cause.file}:${cause.line}` : cause.file);

/** What a search looks at: names, values, files and references. */
const haystack = (row) => row.hay ??= [
  row.family, row.type, row.property, row.facet,
  ...row.cells.filter((cell, n) => cell >= 0 && cell !== row.cells[n - 1]).map((cell) => shown(values[cell], row.facet)),
  ...(row.steps || []).filter((s) => s && s.cause >= 0).map((s) => `${whereOf(causes[s.cause])} ${causes[s.cause].ref}`),
].join(" ").toLowerCase();

// -- what is asked for -------------------------------------------------------------------------

const GROUPS = [
  { key: "change", title: "Change", options: CHANGES },
  { key: "cover", title: "Platform data", options: COVERS },
  { key: "affects", title: "Affects", options: AFFECTS },
  { key: "family", title: "Family", options: FAMILIES },
];
const whole = data.pair || [0, LAST];
const fresh = () => ({
  text: "", from: whole[0], to: whole[1], sort: "weight", down: false,
  change: new Set(), cover: new Set(), affects: new Set(), family: new Set(),
});
let asked = fresh();
let order = rows, found = [], chosen = null;

const inSpan = (n) => n >= asked.from && n < asked.to;
const stepsOf = (row) => {
  const steps = row.steps ? row.steps.filter((s, n) => s && inSpan(n)) : [];
  return steps.length ? steps : SAME;
};

/** How much a row wants to be looked at: uncovered first, then what a guest or a migration feels. */
function weigh(row) {
  // What a machine type keeps of a property says it once more.
  const again = row.family.startsWith("compat") ? -15 : 0;
  let most = 0;
  for (const s of stepsOf(row)) {
    if (s === SAME[0]) continue;
    const weight = [60, 40, 20][s.cover] + (affectsOf(s.cause) === NOT_SAID ? 0 : 10) + [3, 1, 2][s.change] + again;
    if (weight > most) most = weight;
  }
  return most;
}

function keyOf(row) {
  const release = /^r(\d+)$/.exec(asked.sort);
  if (!release) return asked.sort === "weight" ? -weigh(row) : row[asked.sort];
  const n = Number(release[1]), s = n > 0 && row.steps && row.steps[n - 1];
  const cell = row.cells[n];
  return `${s ? s.change : 3} ${cell < 0 ? "\uffff" : shown(values[cell], row.facet)}`;
}

function sortRows() {
  const keys = rows.map(keyOf), sign = asked.down ? -1 : 1;
  order = rows.map((row) => row.number).sort((a, b) =>
    (keys[a] < keys[b] ? -sign : keys[a] > keys[b] ? sign : a - b)).map((n) => rows[n]);
  for (const row of rows) row.now = stepsOf(row);
}

const mask = (options, picked) => picked.size ? options.reduce((bits, o, n) => bits | (picked.has(o) ? 1 << n : 0), 0) : ~0;

function count(counts, bits) {
  for (let n = 0; n < counts.length; n++) counts[n] += (bits >> n) & 1;
}

/** The rows that fit, and for each option how many would with it instead of its group's others. */
function select() {
  const words = plain(asked.text).toLowerCase().split(" ").filter(Boolean);
  const masks = Object.fromEntries(GROUPS.map((g) => [g.key, mask(g.options, asked[g.key])]));
  const counts = Object.fromEntries(GROUPS.map((g) => [g.key, new Array(g.options.length).fill(0)]));
  let changes = 0;
  found = [];
  for (const row of order) {
    if (words.length && !words.every((word) => haystack(row).includes(word))) continue;
    let change = 0, cover = 0, affects = 0, hits = 0;
    for (const s of row.now) {
      const a = s.changeBit & masks.change, b = s.coverBit & masks.cover, c = s.affectsBit & masks.affects;
      if (b && c) change |= s.changeBit;
      if (a && c) cover |= s.coverBit;
      if (a && b) affects |= s.affectsBit;
      if (a && b && c) hits++;
    }
    if (hits) counts.family[row.place]++;
    if (!(masks.family & (1 << row.place))) continue;
    count(counts.change, change);
    count(counts.cover, cover);
    count(counts.affects, affects);
    if (hits) { found.push(row); if (row.now !== SAME) changes += hits; }
  }
  return { counts, changes };
}

// -- drawing -----------------------------------------------------------------------------------

const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const scroller = byId("scroller"), grid = byId("grid"), body = byId("rows"), detail = byId("detail");
const chips = {};

function cell(row, n) {
  const value = row.cells[n], s = n > 0 && row.steps ? row.steps[n - 1] : null;
  const out = n < asked.from || n > asked.to;
  const marks = [out ? "out" : "", s && (out || n === asked.from ? "" : CHANGES[s.change])];
  const made = make("td", { className: marks.filter(Boolean).join(" ") });
  const text = value >= 0 ? shown(values[value], row.facet) : value === UNSEEN ? "?" : "\u00b7";
  const line = make("div", { className: value >= 0 ? "t" : "t none" });
  if (s) line.append(make("i", {}, SIGNS[s.change]), " ");
  line.append(s && s.change === 2 && value < 0 ? "gone" : text);
  made.append(line);
  if (!s) return made;
  const why = make("div", { className: "t r" });
  if (s.cover === 0) {
    why.append(make("b", { className: "flag" }, "! uncovered"));
  } else {
    const cause = causes[s.cause];
    why.append(plain(s.cover === 2 ? `waived: ${cause.why}` : [whereOf(cause), cause.ref.replace(/^QEMU commits? /, "")].filter(Boolean).join(" \u00b7 ")));
  }
  made.append(why);
  made.title = `${text}\n${why.textContent}`;
  return made;
}

function tableRow(row, index) {
  const property = row.property === "*" ? "(itself)" : row.property || "(empty)";
  const made = make("tr", { id: `r${row.number}`, role: "row", "aria-rowindex": index + 2, "aria-selected": row === chosen });
  const name = make("th", { className: "name", scope: "row", title: plain(`${row.family} ${row.type} ${property}: ${row.facet}`) },
    make("div", { className: "t" }, plain(property)), make("div", { className: "t r" }, plain(row.facet)));
  made.append(
    make("td", { className: "where" }, make("div", { className: "t" }, plain(row.family))),
    make("td", { className: "where" }, make("div", { className: "t" }, plain(row.type))),
    name, ...releases.map((_, n) => cell(row, n)));
  return made;
}

const space = (pixels) => {
  const made = make("td", { colSpan: releases.length + 3 });
  made.style.height = `${pixels}px`;
  return make("tr", { className: "space", role: "presentation" }, made);
};

let drawn = "";
/** Draws the rows that are in sight, or all of them to print. */
function draw(all) {
  const first = all ? 0 : Math.max(0, Math.floor(scroller.scrollTop / ROW) - AHEAD);
  const end = all ? found.length : Math.min(found.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + AHEAD);
  if (drawn === `${first} ${end}`) return;
  drawn = `${first} ${end}`;
  const parts = document.createDocumentFragment();
  if (first) parts.append(space(first * ROW));
  for (let n = first; n < end; n++) parts.append(tableRow(found[n], n));
  if (end < found.length) parts.append(space((found.length - end) * ROW));
  body.replaceChildren(parts);
}
const redraw = () => { drawn = ""; draw(false); };

function drawHead() {
  const heads = [["family", "Family"], ["type", "Type"], ["property", "Property"]].map(([key, title]) => [key, title, "", ""]);
  releases.forEach((release, n) => {
    const side = asked.from === 0 && asked.to === LAST && !data.pair ? "" : n === asked.from ? " \u00b7 old" : n === asked.to ? " \u00b7 new" : "";
    heads.push([`r${n}`, `${short(release)}${side}`, release.build || release.version, n >= asked.from && n <= asked.to ? "in" : ""]);
  });
  byId("head").replaceChildren(...heads.map(([key, title, under, name]) => {
    const sorted = asked.sort === key ? (asked.down ? "descending" : "ascending") : "none";
    const button = make("button", { type: "button", title: plain(under), onclick: () => sortBy(key) }, plain(title));
    if (under) button.append(make("small", {}, plain(under)));
    return make("th", { scope: "col", className: name, "aria-sort": sorted }, button);
  }));
}

function drawControls({ counts, changes }) {
  for (const group of GROUPS) {
    group.options.forEach((option, n) => {
      const [button, count] = chips[group.key][n];
      button.setAttribute("aria-pressed", asked[group.key].has(option));
      count.data = number(counts[group.key][n]);
    });
  }
  byId("from").value = asked.from;
  byId("to").value = asked.to;
  for (const button of byId("pairs").children) {
    button.setAttribute("aria-pressed", button.value === `${asked.from} ${asked.to}`);
  }
  byId("status").textContent = `${number(found.length)} of ${number(rows.length)} rows, ${number(changes)} changes`;
  byId("nothing").hidden = found.length > 0;
  grid.setAttribute("aria-rowcount", found.length + 1);
  if (byId("search").value !== asked.text) byId("search").value = asked.text;
}

/** What follows from a change of what is asked; `sorted` when only the filters moved. */
function update(sorted) {
  if (!sorted) { sortRows(); drawHead(); }
  const result = select();
  drawControls(result);
  scroller.scrollTop = 0;
  redraw();
  writeFragment();
}

// -- one row in full ---------------------------------------------------------------------------

/** A reference, with its commits of QEMU as links: followed only when they are clicked. */
function reference(text) {
  const parts = [];
  let rest = 0;
  if (/^QEMU commit/.test(text)) {
    for (const hit of text.matchAll(/\b[0-9a-f]{10,40}\b/g)) {
      parts.push(plain(text.slice(rest, hit.index)), make("a", { href: COMMIT + hit[0], target: "_blank", rel: "noopener noreferrer" }, hit[0]));
      rest = hit.index + hit[0].length;
    }
  }
  return [...parts, plain(text.slice(rest))];
}

function causeCells(s) {
  if (!s) return [make("td"), make("td"), make("td")];
  const change = make("td", {}, make("span", { className: CHANGES[s.change] }, make("i", {}, SIGNS[s.change]), ` ${CHANGES[s.change]}`));
  if (s.cause < 0) return [change, make("td", {}, make("b", { className: "flag" }, "! uncovered")), make("td")];
  const by = causes[s.cause];
  const said = by.was === null && by.now === null ? "" : `${by.was ?? "nothing"} \u2192 ${by.now ?? "left to the machine type"}`;
  const cover = make("td", {}, s.cover === 2 ? "waived in " : `covered: ${plain(by.kind)} in `, make("code", {}, plain(whereOf(by))));
  if (said) cover.append(make("small", {}, plain(said)));
  if (by.affects) cover.append(make("small", {}, plain(`affects: ${by.affects}`)));
  const why = make("td", {}, plain(by.why));
  if (by.ref) why.append(make("small", {}, ...reference(by.ref)));
  return [change, cover, why];
}

function drawDetail(row) {
  const close = make("button", { type: "button", onclick: () => { closeDetail(); grid.focus(); } }, "Close");
  const link = make("a", { href: `#${path(row)}`, title: "Address of this row" }, "link");
  const title = make("h2", {}, plain(`${row.family} ${row.type} `), make("code", {}, plain(row.property)), plain(` (${row.facet})`));
  const heads = ["Release", "Value", "Change", "Platform data", "Why, reference"].map((text) => make("th", { scope: "col" }, text));
  const lines = releases.map((release, n) => {
    const at = row.cells[n];
    const value = at >= 0 ? make("code", {}, plain(JSON.stringify(values[at]))) : at === UNSEEN ? "not shown by this release" : "not there";
    const name = make("td", {}, plain(short(release)), make("small", {}, plain(release.build || release.version)));
    return make("tr", {}, name, make("td", {}, value), ...causeCells(n > 0 && row.steps ? row.steps[n - 1] : null));
  });
  detail.replaceChildren(make("div", { className: "top" }, title, link, close),
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
  detail.hidden = false;
}

function closeDetail() {
  detail.hidden = true;
  draw(false);
}

/** Makes a row the chosen one and brings it into sight. */
function choose(row, open) {
  chosen = row;
  if (row && (open || !detail.hidden)) drawDetail(row); else if (!row) closeDetail();
  const at = row ? found.indexOf(row) : -1;
  if (at >= 0) {
    const top = at * ROW, head = byId("head").offsetHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    const low = top + ROW + head - scroller.clientHeight;
    if (low > scroller.scrollTop) scroller.scrollTop = low;
    grid.setAttribute("aria-activedescendant", `r${row.number}`);
  } else {
    grid.removeAttribute("aria-activedescendant");
  }
  redraw();
  writeFragment();
}

// -- the address: #family/type/property/facet?filters -------------------------------------------

function path(row) {
  const key = [row.family, row.type, row.property];
  if (byKey.get(keyText(key)) !== row) key.push(row.facet);
  return key.map((part) => encodeURIComponent(plain(part))).join("/");
}

function fragment() {
  const query = new URLSearchParams();
  if (asked.text) query.set("q", asked.text);
  if (asked.from !== whole[0] || asked.to !== whole[1]) query.set("span", `${asked.from}-${asked.to}`);
  for (const { key } of GROUPS) if (asked[key].size) query.set(key, [...asked[key]].join(","));
  if (asked.sort !== "weight" || asked.down) query.set("sort", (asked.down ? "-" : "") + asked.sort);
  return (chosen ? path(chosen) : "") + (String(query) && `?${query}`);
}

let waiting = 0;
/** Later, once for many keystrokes: browsers refuse an address that changes too often. */
function writeFragment() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const now = fragment();
    if (now !== location.hash.slice(1)) history.replaceState(null, "", now ? `#${now}` : location.pathname + location.search);
  }, 300);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function readFragment() {
  clearTimeout(waiting);
  const [, where, rest] = /^#?([^?]*)\??(.*)$/s.exec(location.hash);
  const query = new URLSearchParams(rest);
  asked = fresh();
  asked.text = query.get("q") || "";
  const span = /^(\d+)-(\d+)$/.exec(query.get("span") || "");
  if (span && +span[1] < +span[2] && +span[2] <= LAST) [asked.from, asked.to] = [+span[1], +span[2]];
  for (const { key, options } of GROUPS) {
    for (const word of (query.get(key) || "").split(",")) if (options.includes(word)) asked[key].add(word);
  }
  const sort = /^(-?)(family|type|property|r\d+)$/.exec(query.get("sort") || "");
  if (sort && (sort[2][0] !== "r" || +sort[2].slice(1) <= LAST)) [asked.down, asked.sort] = [sort[1] === "-", sort[2]];
  const row = where ? byKey.get(keyText(where.split("/").map(decoded))) : null;
  chosen = null;
  update(false);
  if (row && !found.includes(row)) {
    asked = fresh();
    update(false);
  }
  choose(row || null, true);
}

// -- what the user does ------------------------------------------------------------------------

function sortBy(key) {
  // Up, down, and back to what wants to be looked at.
  if (asked.sort !== key) [asked.sort, asked.down] = [key, false];
  else if (!asked.down) asked.down = true;
  else [asked.sort, asked.down] = ["weight", false];
  const at = [...byId("head").children].findIndex((head) => head.contains(document.activeElement));
  update(false);
  if (at >= 0) byId("head").children[at].firstChild.focus();
}

function setSpan(from, to) {
  [asked.from, asked.to] = from < to ? [from, to] : from === LAST ? [from - 1, from] : [from, from + 1];
  update(false);
}

function toggle(key, option) {
  if (!asked[key].delete(option)) asked[key].add(option);
  update(true);
}

function moveBy(key) {
  const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 1), at = chosen ? found.indexOf(chosen) : -1;
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: found.length - 1 }[key];
  if (to === undefined || !found.length) return false;
  choose(found[Math.min(found.length - 1, Math.max(0, to))], false);
  return true;
}

function escape() {
  if (!detail.hidden) {
    closeDetail();
    grid.focus();
  } else if (asked.text) {
    asked.text = "";
    update(true);
  }
}

function build() {
  byId("filters").append(...GROUPS.map((group) => {
    chips[group.key] = group.options.map((option) => {
      const count = document.createTextNode("");
      const button = make("button", { type: "button", value: option, onclick: () => toggle(group.key, option) },
        make("span", {}, plain(option)), make("span", {}, count));
      return [button, count];
    });
    return make("fieldset", { id: `by-${group.key}` }, make("legend", {}, group.title), ...chips[group.key].map(([button]) => button));
  }));
  for (const id of ["from", "to"]) {
    byId(id).append(...releases.map((release, n) => make("option", { value: n }, plain(short(release)))));
    byId(id).onchange = () => setSpan(Number(byId("from").value), Number(byId("to").value));
  }
  byId("pairs").append(...data.counts.map((counts, n) => make("button",
    { type: "button", value: `${n} ${n + 1}`, onclick: () => (asked.from === n && asked.to === n + 1 ? setSpan(0, LAST) : setSpan(n, n + 1)) },
    make("b", {}, plain(`${short(releases[n])} \u2192 ${short(releases[n + 1])}`)),
    make("small", {}, `~ ${number(counts.changed)}  + ${number(counts.appeared)}  \u2212 ${number(counts.gone)}`),
    make("small", {}, `${number(counts.covered)} covered, ${number(counts.waived)} waived`),
    counts.uncovered ? make("b", { className: "flag" }, `! ${number(counts.uncovered)} uncovered`) : make("small", {}, "none uncovered"))));
  const widths = ["12%", "12%", "17%", ...releases.map(() => `${59 / releases.length}%`)];
  byId("columns").append(...widths.map((width) => { const column = make("col"); column.style.width = width; return column; }));
}

function listen() {
  byId("search").oninput = (event) => { asked.text = event.target.value; update(true); };
  byId("reset").onclick = () => { asked = fresh(); [asked.from, asked.to] = [0, LAST]; update(false); };
  let pending = false;
  scroller.onscroll = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => { pending = false; draw(false); });
  };
  body.onclick = (event) => {
    const at = event.target.closest("tr[id]");
    if (at) choose(rows[Number(at.id.slice(1))], true);
  };
  grid.onkeydown = (event) => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && chosen) {
      choose(chosen, true);
      detail.focus();
      event.preventDefault();
    } else if (moveBy(event.key)) {
      event.preventDefault();
    }
  };
  document.onkeydown = (event) => {
    const typing = /^(INPUT|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) {
      byId("search").focus();
      event.preventDefault();
    } else if (event.key === "Escape") {
      escape();
    } else if (event.key === "ArrowDown" && event.target === byId("search")) {
      grid.focus();
      event.preventDefault();
    }
  };
  window.onhashchange = readFragment;
  window.onresize = () => draw(false);
  window.onbeforeprint = () => draw(true);
  window.onafterprint = redraw;
}

if (data.pair) document.title = `${document.title}: ${plain(data.pair.map((n) => short(releases[n])).join(" \u2192 "))}`;
build();
listen();
readFragment();
setTimeout(() => rows.forEach(haystack));  // so that the first keystroke need not
})();
