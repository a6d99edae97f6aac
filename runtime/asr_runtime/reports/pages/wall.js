"use strict";
// Everything that a source or a record says is set as text, never as markup.
const SPAN = 600; // seconds that a strip shows
const SILENT = 3000; // milliseconds without an update after which the page says that it is old
const WORDS = { ai: "AI-generated", real: "real", unsure: "unsure" };
const tiles = new Map();
const flags = new Map();
let latest = null;
let arrived = 0;
let ended = false;

function make(tag, className, parent) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (parent) parent.append(element);
  return element;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tileOf(source) {
  let tile = tiles.get(source.number);
  if (tile) return tile;
  const root = make("li", "tile", document.getElementById("sources"));
  const shot = make("div", "shot", root);
  const image = make("img", "", shot);
  image.alt = "";
  image.hidden = true;
  const cover = make("div", "cover", shot);
  const facts = make("div", "facts", root);
  const name = make("div", "name", facts);
  const first = make("div", "row", facts);
  const verdict = make("span", "verdict", first);
  const probability = make("span", "", first);
  const scale = make("i", "", make("div", "scale", facts));
  const second = make("div", "row", facts);
  const state = make("span", "state", second);
  const rate = make("span", "", second);
  const strip = make("div", "line", facts);
  strip.setAttribute("role", "img");
  set(name, source.name);
  root.dataset.source = source.name;
  tile = { root, image, cover, verdict, probability, scale, state, rate, strip, version: 0, loading: false };
  tiles.set(source.number, tile);
  return tile;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
}

function ago(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

function load(tile, source) {
  if (tile.loading || tile.version === source.version || !source.version) return;
  tile.loading = true;
  const version = source.version;
  const next = new Image();
  const done = () => { tile.loading = false; };
  next.onerror = done;
  next.onload = () => {
    tile.image.src = next.src;
    tile.image.hidden = false;
    tile.version = version;
    done();
  };
  next.src = `picture/${source.number}?v=${version}`;
}

function strip(tile, source) {
  const now = latest.now;
  // Times of a camera are Unix times; those of a file count from its start.
  const end = source.live ? now : Math.max(...source.segments.map(s => s.end), source.segment_start ?? 0, 1);
  const span = source.live ? SPAN : end;
  const segments = [...source.segments];
  if (source.segment_start !== null && source.verdict) {
    segments.push({ start: source.segment_start, end, verdict: source.verdict });
  }
  const seen = segments.filter(s => s.end > end - span);
  tile.strip.replaceChildren(...seen.map(s => {
    const bar = make("i", s.verdict);
    const from = Math.max(0, (s.start - (end - span)) / span);
    bar.style.left = `${100 * from}%`;
    bar.style.width = `${100 * Math.max(0, (s.end - (end - span)) / span - from)}%`;
    return bar;
  }));
  const count = seen.filter(s => s.verdict === "ai").length;
  tile.strip.setAttribute("aria-label", `${seen.length} segments, ${count} of them AI-generated`);
}

function show() {
  const silent = performance.now() - arrived;
  const isOld = silent > SILENT || ended;
  const status = document.getElementById("status");
  status.classList.toggle("broken", isOld);
  if (!latest) return;
  const count = `${latest.sources.length} ${latest.sources.length === 1 ? "source" : "sources"}`;
  if (ended) set(status, "The run has ended. This is its last state.");
  else if (isOld) set(status, `No news for ${ago(silent / 1000)}: what is shown is old.`);
  else set(status, `${count}, ${latest.flagged_count} flagged`);
  for (const source of latest.sources) {
    const tile = tileOf(source);
    load(tile, source);
    const age = source.age === null ? null : source.age + silent / 1000;
    const isLive = !source.live || (source.state === "live" && !isOld);
    tile.root.className = `tile ${source.verdict === "ai" && isLive ? "ai" : ""} ${isLive ? "" : "old"}`;
    tile.root.dataset.state = isOld ? "old" : source.state;
    tile.image.alt = source.version ? `Newest scored picture of ${source.name}` : "";
    tile.verdict.className = `verdict ${source.verdict ?? ""}`;
    set(tile.verdict, source.verdict ? WORDS[source.verdict] : "not scored yet");
    set(tile.probability, source.probability === null ? "" : `P(AI) ${source.probability.toFixed(2)}`);
    tile.scale.className = source.verdict ?? "";
    tile.scale.style.width = `${100 * (source.probability ?? 0)}%`;
    tile.state.className = `state ${source.live ? source.state : ""}`;
    set(tile.state, source.live ? source.state : "file");
    set(tile.rate, source.live ? `${source.rate.toFixed(1)} frames/s, ${age === null ? "no picture" : `${ago(age)} old`}` : "");
    const trouble = source.live && source.state !== "live";
    tile.cover.hidden = !(trouble || source.errors);
    set(tile.cover, trouble
      ? `${source.state} since ${clock(source.since)}${source.detail ? `: ${source.detail}` : ""}`
      : `${source.errors} could not be scored: ${source.detail}`);
    strip(tile, source);
  }
  const shown = new Set(latest.sources.map(source => source.number));
  for (const [number, tile] of tiles) {
    if (!shown.has(number)) { tile.root.remove(); tiles.delete(number); }
  }
  showFlagged();
}

function showFlagged() {
  const list = document.getElementById("flagged");
  document.getElementById("none").hidden = latest.flagged.length > 0;
  for (const entry of [...latest.flagged].reverse()) {
    if (flags.has(entry.number)) continue;
    const item = make("li");
    const image = make("img", "", item);
    image.src = `flagged/${entry.number}`;
    image.alt = `Flagged picture of ${entry.source}`;
    set(make("p", "", item), `${entry.source}, ${clock(entry.time)}, P(AI) ${entry.probability.toFixed(2)}`);
    list.prepend(item);
    flags.set(entry.number, item);
  }
  const kept = new Set(latest.flagged.map(entry => entry.number));
  for (const [number, item] of flags) {
    if (!kept.has(number)) { item.remove(); flags.delete(number); }
  }
}

const events = new EventSource("events");
events.onmessage = event => {
  latest = JSON.parse(event.data);
  arrived = performance.now();
  ended = latest.summary !== null;
  show();
};
events.addEventListener("end", () => { ended = true; events.close(); show(); });
setInterval(show, 500);
