// The page: takes files, sends them one by one, shows what comes back.
import { fillFacts, makeCard, percent, showItem, WORDS } from "./cards.js";
import { drawMap } from "./evidence.js";
import { saveCsv, saveJsonLines, saveReport } from "./exports.js";

const AT_ONCE = 3; // requests; the server has a queue for more
const FRAMES_PER_SECOND = 2; // of clips
const MAP_WINDOWS = 49;
const MEDIA = /\.(jpe?g|jpe|jfif|png|webp|bmp|dib|tiff?|avif|mp4|m4v|mov|3gp|mkv|webm|avi|m?ts|m2ts|mpe?g|flv|wmv|asf|ogv|h26[45]|264|hevc|mjpe?g)$/i;
const VIDEO = /\.(mp4|m4v|mov|3gp|mkv|webm|avi|m?ts|m2ts|mpe?g|flv|wmv|asf|ogv|h26[45]|264|hevc|mjpe?g)$/i;

const $ = (id) => document.getElementById(id);
const items = [];
const waiting = [];
let running = 0;
let filter = "all";
let mapped = false;
let open = null; // the item in the enlarged view
let model = { name: "", sha256: "", card: { decision: { real_below: 0.5, ai_from: 0.5 }, preprocess: {} } };

document.body.classList.add("empty");
const ready = loadModel();

async function loadModel() {
  try {
    const answer = await fetch("v1/model");
    if (!answer.ok) throw new Error((await answer.json()).error);
    model = await answer.json();
    $("model").textContent = `Model ${model.name}, on this server`;
    $("limits").textContent = limitsOf(model.card);
    $("alone").hidden = !model.browser_demo;
    refresh();
  } catch (error) {
    $("model").textContent = `The server does not answer (${error.message}).`;
  }
}

function limitsOf(card) {
  const point = card.operating_points.at(-1);
  const tested = point
    ? `In its calibration on pictures of sources it had not seen, this model called ${percent(point.false_positive_rate)} of real photographs AI-generated and missed ${percent(1 - point.true_positive_rate)} of the generated ones. `
    : "";
  return `${tested}A verdict is a hint, never proof.`;
}

function decisionOf(result) {
  const { card } = model;
  if (result.type === "video") return card.video?.decision ?? card.decision;
  return result.look === "whole" ? (card.whole?.decision ?? card.decision) : card.decision;
}

// --- files in ---

function add(files) {
  let leftOut = 0;
  for (const { file, name } of files) {
    if (!MEDIA.test(name) && !/^(image|video)\//.test(file.type)) {
      leftOut += 1;
      continue;
    }
    const isVideo = VIDEO.test(name) || (file.type.startsWith("video/") && !MEDIA.test(name));
    const item = { file, name, isVideo, url: URL.createObjectURL(file), records: [], frames: [], started: false };
    items.push(item);
    waiting.push(item);
    $("cards").append(makeCard(item));
    item.card.querySelector(".shot").addEventListener("click", () => enlarge(item));
  }
  $("notice").hidden = !leftOut;
  $("notice").textContent = `${leftOut} ${leftOut === 1 ? "file that is" : "files that are"} no picture or clip left out.`;
  refresh();
  work();
}

const chosen = (list) => [...list].map((file) => ({ file, name: file.webkitRelativePath || file.name }));

$("choose").addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder").click());
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", ({ target }) => {
    add(chosen(target.files));
    target.value = "";
  });
}
document.addEventListener("paste", ({ clipboardData }) => add(chosen(clipboardData.files)));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return add(chosen(event.dataTransfer.files));
  const files = [];
  for (const entry of entries) await collect(entry, files);
  add(files);
});

// Lists a dropped file, or all files of a dropped folder.
async function collect(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    files.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const each of entries) await collect(each, files);
  }
}

// --- to the server and back ---

function work() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    screen(waiting.shift()).finally(() => {
      running -= 1;
      work();
      refresh();
    });
  }
}

async function screen(item) {
  await ready; // what to ask for is in the model's card
  item.started = true;
  update(item);
  try {
    const answer = await send(item);
    if (!answer.ok) throw new Error((await answer.json()).error);
    for await (const record of recordsOf(answer)) take(item, record);
    if (!item.result && !item.error) item.error = "The answer of the server broke off.";
  } catch (error) {
    item.error = error instanceof TypeError ? "The server does not answer." : error.message;
  }
  update(item);
}

// Sends a file; waits and tries again while the server is busy.
async function send(item) {
  const query = new URLSearchParams({ name: item.name, fps: FRAMES_PER_SECOND });
  if (model.reads_claims) query.set("claims", "true");
  if (model.card.preprocess.mode === "crop") query.set("map", MAP_WINDOWS); // other models have no windows
  for (;;) {
    const answer = await fetch(`v1/screen?${query}`, {
      method: "POST",
      body: item.file,
      headers: { Accept: "application/x-ndjson", "Content-Type": item.file.type || "application/octet-stream" },
    });
    if (answer.status !== 429 || !items.includes(item)) return answer;
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

async function* recordsOf(answer) {
  const decoder = new TextDecoder();
  const reader = answer.body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
    if (done) return;
  }
}

function take(item, record) {
  if (record.type === "map") {
    item.map = record;
  } else if (record.type === "frame") {
    item.frames.push(record);
  } else if (record.type === "image" || record.type === "video") {
    item.result = record;
  } else if (record.type === "error") {
    item.error = record.error;
  }
  if (record.type !== "summary") item.records.push(record);
  update(item);
}

// --- what is shown ---

function update(item) {
  showItem(item, mapped, decisionOf);
  if (open === item) fillViewer();
  refreshSoon();
}

let isDue = false;
function refreshSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    refresh();
  });
}

const kindOf = ({ result, error }) => result?.verdict ?? (error ? "error" : "waiting");

const ORDERS = {
  added: null,
  high: (a, b) => (b.result?.probability ?? -1) - (a.result?.probability ?? -1),
  low: (a, b) => (a.result?.probability ?? 2) - (b.result?.probability ?? 2),
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
};

function shown() {
  const order = ORDERS[$("sort").value];
  const all = items.filter((item) => filter === "all" || kindOf(item) === filter);
  return order ? all.toSorted(order) : all;
}

function refresh() {
  const isEmpty = !items.length;
  document.body.classList.toggle("empty", isEmpty);
  $("results").hidden = isEmpty && $("notice").hidden;
  for (const button of document.querySelectorAll("[data-filter]")) {
    const kind = button.dataset.filter;
    button.setAttribute("aria-pressed", String(kind === filter));
    const count = items.filter((item) => kind === "all" || kindOf(item) === kind).length;
    button.querySelector("b").textContent = count;
    button.hidden = kind === "error" && !count && filter !== kind;
  }
  const done = items.filter((item) => kindOf(item) !== "waiting").length;
  document.querySelector(".progress").hidden = done === items.length;
  $("progress").max = Math.max(1, items.length);
  $("progress").value = done;
  $("count").textContent = `${done} of ${items.length}`;
  if (items.length) announce(done);
  $("legend").hidden = !mapped;
  order();
}

// Moves only the cards that are out of place, so that the focus stays.
function order() {
  const list = $("cards");
  const wanted = shown().map(({ card }) => card);
  const visible = new Set(wanted);
  for (const { card } of items) card.hidden = !visible.has(card);
  wanted.forEach((card, index) => {
    if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
  });
}

let announced = 0;
function announce(done) {
  const now = performance.now();
  if (done < items.length && now - announced < 5000) return;
  announced = now;
  const counts = Object.keys(WORDS).map((kind) => `${items.filter((item) => kindOf(item) === kind).length} ${kind}`);
  const text = `${done} of ${items.length} screened: ${counts.join(", ")}`;
  if ($("status").textContent !== text) $("status").textContent = text;
}

for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    filter = button.dataset.filter;
    refresh();
  });
}
$("sort").addEventListener("change", refresh);
$("map").addEventListener("click", () => showMaps(!mapped));
$("clear").addEventListener("click", () => {
  for (const { url } of items) URL.revokeObjectURL(url);
  items.length = waiting.length = 0;
  $("cards").replaceChildren();
  $("notice").hidden = true;
  filter = "all";
  refresh();
  $("choose").focus();
});
$("save-csv").addEventListener("click", () => saveCsv(shown()));
$("save-jsonl").addEventListener("click", () => saveJsonLines(shown()));
$("save-html").addEventListener("click", () => saveReport(shown(), model, $("limits").textContent));

function showMaps(on) {
  mapped = on;
  $("map").setAttribute("aria-pressed", String(on));
  $("viewer-map").setAttribute("aria-pressed", String(on));
  for (const item of items) showItem(item, mapped, decisionOf);
  if (open) fillViewer();
  refresh();
}

// --- one file, enlarged ---

function enlarge(item) {
  open = item;
  const facts = item.card.querySelector(".facts").cloneNode(true);
  facts.querySelector(".name").remove();
  $("viewer-facts").replaceWith(facts);
  facts.id = "viewer-facts";
  fillViewer();
  if (!$("viewer").open) $("viewer").showModal();
}

function fillViewer() {
  const { name, shot, map } = open;
  const large = shot.cloneNode(true);
  if (open.isVideo && large.tagName === "VIDEO") large.controls = true;
  $("viewer").className = kindOf(open);
  $("viewer-name").textContent = name;
  $("viewer-map").hidden = !map;
  $("viewer-shot").classList.toggle("mapped", mapped && Boolean(map));
  $("viewer-shot").replaceChildren(large, ...(mapped && map ? [drawMap(map)] : []));
  fillFacts($("viewer"), open, decisionOf);
}

$("viewer-map").addEventListener("click", () => showMaps(!mapped));
$("viewer-close").addEventListener("click", () => $("viewer").close());
$("viewer").addEventListener("close", () => {
  open?.card.querySelector(".shot").focus();
  open = null;
});
$("viewer").addEventListener("click", ({ target }) => {
  if (target === $("viewer")) $("viewer").close();
});
$("viewer").addEventListener("keydown", ({ key, target }) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!step || target.tagName === "VIDEO") return;
  const all = shown();
  const next = all[all.indexOf(open) + step];
  if (next) enlarge(next);
});
