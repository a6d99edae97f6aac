// The page: takes files, decodes them, asks the worker, shows verdicts. Names of files are set as text only.
import { decode } from "./pixels.js";
import { judge } from "./verdict.js";

const WORDS = { ai: "Probably AI-generated", real: "Probably a real picture", unsure: "Unsure" };
const waiting = new Map();
const engine = document.getElementById("engine");
const drop = document.getElementById("drop");
let card = null;
let count = 0;
let queue = Promise.resolve();

/** Without these headers a page gets no threads; the service worker adds them, whatever server this is. */
async function prepare() {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("service-worker.js");
  await navigator.serviceWorker.ready;
  if (!self.crossOriginIsolated && !sessionStorage.getItem("reloaded")) {
    sessionStorage.setItem("reloaded", "yes");
    if (!navigator.serviceWorker.controller) {
      await new Promise(done => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
    }
    location.reload();
    await new Promise(() => {});
  }
}

function text(parent, tag, className, content = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = content;
  parent.append(element);
  return element;
}

function ask(worker, pixels) {
  return new Promise((done, failed) => {
    const id = count++;
    waiting.set(id, { done, failed });
    worker.postMessage({ id, ...pixels }, [pixels.rgba.buffer]);
  });
}

function show(item, result) {
  item.classList.add(result.verdict);
  const body = item.querySelector(".text");
  body.querySelector(".verdict").textContent = WORDS[result.verdict];
  const scale = text(body, "div", "scale");
  scale.setAttribute("role", "img");
  const percent = Math.round(100 * result.probability);
  scale.setAttribute("aria-label", `Probability of AI ${percent} percent`);
  const { real_below: from, ai_from: to } = result.decision;
  const band = text(scale, "span", "band");
  band.style.left = `${100 * from}%`;
  band.style.width = `${100 * (to - from)}%`;
  text(scale, "span", "mark").style.left = `${100 * result.probability}%`;
  const ends = text(body, "div", "ends");
  text(ends, "span", "", "real");
  text(ends, "span", "", `P(AI) ${result.probability.toFixed(2)}`);
  text(ends, "span", "", "AI");
  item.dataset.probability = result.probability;
  item.dataset.verdict = result.verdict;
}

async function take(worker, file) {
  const item = text(document.getElementById("results"), "li", "item");
  const image = document.createElement("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  item.append(image);
  const body = text(item, "div", "text");
  text(body, "div", "verdict", "Working");
  text(body, "div", "name", file.name);
  item.dataset.name = file.name;
  const began = performance.now();
  try {
    const pixels = await decode(file).catch(() => { throw new Error("This browser cannot decode the file."); });
    show(item, judge(card, await ask(worker, pixels)));
    item.dataset.seconds = ((performance.now() - began) / 1000).toFixed(3);
  } catch (error) {
    item.dataset.verdict = "error";
    body.querySelector(".verdict").textContent = error.message;
  }
}

async function main() {
  await prepare();
  const worker = new Worker("engine.js", { type: "module" });
  await new Promise(ready => {
    worker.onmessage = ({ data }) => {
      if (data.type === "ready") {
        card = data.facts.card;
        const how = data.kind === "webgpu" ? "WebGPU" : `WebAssembly, ${data.threads} thread${data.threads > 1 ? "s" : ""}`;
        engine.textContent = `Ready (${how}): computes what Python computed on the built-in vector.`;
        engine.dataset.state = "ready";
        document.getElementById("model").textContent = `Model ${data.facts.name}, SHA-256 ${data.facts.sha256.slice(0, 16)}.`;
        ready();
      } else if (data.type === "broken") {
        engine.textContent = `The detector does not work in this browser (${data.reason}). Nothing is scored.`;
        engine.classList.add("broken");
        engine.dataset.state = "broken";
      } else {
        const { done, failed } = waiting.get(data.id);
        waiting.delete(data.id);
        if (data.type === "margins") done(data.margins);
        else failed(new Error(data.reason));
      }
    };
  });
  // One at a time: a folder of photos decoded at once would not fit into memory.
  const add = files => { for (const file of files) queue = queue.then(() => take(worker, file)); };
  document.getElementById("files").onchange = event => add(event.target.files);
  document.ondragover = event => { event.preventDefault(); drop.classList.add("over"); };
  document.ondragleave = () => drop.classList.remove("over");
  document.ondrop = event => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); };
  document.onpaste = event => add(event.clipboardData.files);
}

main();
