// The page: takes files, decodes them, asks the worker, shows verdicts. Names of files are set as text only.
import { decode } from "./pixels.js";
import { judge } from "./verdict.js";

const WORDS = { ai: "Looks AI-generated", real: "Looks real", unsure: "Unsure" };
const waiting = new Map(); // number of a question to the worker -> how to answer it
const engine = document.getElementById("engine");
const drop = document.getElementById("drop");
let card = null; // the model's
let questions = 0;
let files = 0; // that were given so far
const PAUSE = 1000; // milliseconds without a picture, after which the page stores its files for use without a network

/** Without these headers a page gets no threads; the service worker adds them, whatever server this is. */
async function prepare() {
  const registered = await navigator.serviceWorker?.register("service-worker.js").catch(() => null);
  if (!registered) return; // browsers refuse it on pages without TLS, and to users who allow no storage
  if (self.crossOriginIsolated || sessionStorage.getItem("reloaded")) return;
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    await new Promise(done => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
  }
  if (files) return; // they would be lost; the next visit has threads
  sessionStorage.setItem("reloaded", "yes");
  location.reload();
  await new Promise(() => {});
}

/** @returns {Promise<Worker>} once it computes what Python computed; rejected if it does not */
async function start() {
  await prepare();
  const worker = new Worker(`engine.js${location.search}`, { type: "module" });
  return new Promise((ready, broken) => {
    worker.onmessage = ({ data }) => {
      if (data.type === "ready") {
        card = data.facts.card;
        const how = data.kind === "webgpu" ? "WebGPU" : `WebAssembly, ${data.threads} thread${data.threads > 1 ? "s" : ""}`;
        engine.textContent = `Ready (${how}): computes what Python computed on the built-in vector.`;
        engine.dataset.state = "ready";
        engine.dataset.kind = data.kind;
        storeWhenIdle(data.kind);
        document.getElementById("model").textContent = `Model ${data.facts.name}, SHA-256 ${data.facts.sha256.slice(0, 16)}.`;
        ready(worker);
      } else if (data.type === "broken") {
        engine.textContent = `The detector does not work in this browser (${data.reason}). Nothing is scored.`;
        engine.classList.add("broken");
        engine.dataset.state = "broken";
        broken(new Error("The detector does not work in this browser."));
      } else if (data.type === "centre") {
        waiting.get(data.id).centre(data.window);
      } else {
        const { done, failed } = waiting.get(data.id);
        waiting.delete(data.id);
        if (data.type === "windows") done(data.windows);
        else failed(new Error(data.reason));
      }
    };
  });
}

let queue = Promise.resolve(); // of pictures to score

/** Has the service worker store the files once there was nothing to compute for a while: it would take the same cores. */
async function storeWhenIdle(kind) {
  const services = navigator.serviceWorker;
  if (!services?.controller) return;
  services.onmessage = ({ data }) => {
    if (data !== "stored" || engine.dataset.offline) return;
    engine.dataset.offline = "yes";
    engine.textContent += " It works without a network from now on.";
  };
  for (let before = null; before !== queue;) {
    before = queue;
    await queue;
    await new Promise(done => setTimeout(done, PAUSE));
  }
  services.controller?.postMessage({ store: kind });
}

/** @param {(window: object) => void} centre is told of the centre window where more windows follow */
function ask(worker, pixels, centre) {
  return new Promise((done, failed) => {
    const id = questions++;
    waiting.set(id, { done, failed, centre });
    worker.postMessage({ id, ...pixels }, [pixels.rgba.buffer]);
  });
}

function text(parent, tag, className, content = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = content;
  parent.append(element);
  return element;
}

function addItem({ file, name }) {
  const item = text(document.getElementById("results"), "li", "item");
  const image = document.createElement("img");
  image.alt = "";
  image.onerror = () => image.classList.add("missing");
  image.src = URL.createObjectURL(file);
  item.append(image);
  const body = text(item, "div", "text");
  text(body, "div", "verdict", "Waiting …");
  text(body, "div", "name", name);
  item.dataset.name = name;
  return item;
}

/** Shows what all windows say; of the centre alone, that it is not the last word. */
function show(item, result, isCentre) {
  const body = item.querySelector(".text");
  body.querySelector(".verdict").textContent = WORDS[result.verdict] + (isCentre ? " so far …" : "");
  const percent = Math.round(100 * result.probability);
  const scale = body.querySelector(".scale") ?? text(body, "div", "scale");
  scale.setAttribute("role", "img");
  scale.setAttribute("aria-label", `Probability of AI ${percent} percent`);
  const { real_below: from, ai_from: to } = result.decision;
  scale.textContent = "";
  const band = text(scale, "span", "band");
  band.style.left = `${100 * from}%`;
  band.style.width = `${100 * (to - from)}%`;
  text(scale, "span", "mark").style.left = `${100 * result.probability}%`;
  const ends = body.querySelector(".ends") ?? text(body, "div", "ends");
  ends.textContent = "";
  text(ends, "span", "", "real");
  text(ends, "span", "", `${percent}% AI`);
  text(ends, "span", "", "AI");
  if (isCentre) {
    item.dataset.centre = result.verdict;
    return;
  }
  if (result.reason) text(body, "div", "why", `Nothing to judge: ${result.reason}.`);
  item.classList.add(result.verdict);
  item.dataset.probability = result.probability;
  item.dataset.verdict = result.verdict;
}

async function score(ready, item, file) {
  const verdict = item.querySelector(".verdict");
  try {
    const worker = await ready;
    verdict.textContent = "Looking …";
    const pixels = await decode(file).catch(() => { throw new Error("The file is damaged, or no picture that this browser can decode."); });
    const windows = await ask(worker, pixels, centre => show(item, judge(card, [centre]), true));
    show(item, judge(card, windows), false);
  } catch (error) {
    item.dataset.verdict = "error";
    verdict.textContent = "Not scored";
    text(item.querySelector(".text"), "div", "why", error.message);
  }
}

/** Lists a dropped file, or all files of a dropped folder but hidden ones. */
async function collect(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (!file.name.startsWith(".")) found.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const each of entries) await collect(each, found);
  }
}

/** Takes files from now on; those that come while the detector starts wait for it. */
function takeFiles(ready) {
  const add = list => {
    files += list.length;
    for (const each of list) {
      const item = addItem(each);
      queue = queue.then(() => score(ready, item, each.file)); // one at a time: a folder would not fit into memory
    }
  };
  const plain = list => [...list].map(file => ({ file, name: file.name }));
  const input = document.getElementById("files");
  input.onchange = () => {
    add(plain(input.files));
    input.value = "";
  };
  document.onpaste = event => add(plain(event.clipboardData.files));
  document.ondragover = event => {
    event.preventDefault();
    drop.classList.add("over");
  };
  document.ondragleave = event => {
    if (!event.relatedTarget) drop.classList.remove("over");
  };
  document.ondrop = async event => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.length) return add(plain(event.dataTransfer.files));
    const found = [];
    for (const entry of entries) await collect(entry, found);
    add(found);
  };
}

const ready = start();
ready.catch(() => {}); // `score` tells it
takeFiles(ready);
