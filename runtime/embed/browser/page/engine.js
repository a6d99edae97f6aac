// A worker that runs the exported file with onnxruntime-web: pixels in, windows with their margins out, the centre at once.
import { nothingToJudge } from "./flatness.js";
import { windowsOf } from "./verdict.js";

const TOLERANCE = 1e-4; // largest difference to Python's probability on the built-in vector
let ort, session, card;

const bytes = async name => new Uint8Array(await (await fetch(name)).arrayBuffer());

/** WebGPU takes the exported file; WebAssembly the same graph as onnxruntime has optimised it when the page was built. */
async function model(kind) {
  if (kind === "webgpu") return bytes("model.onnx");
  const packed = await fetch("model.ort.gz");
  return new Uint8Array(await new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

async function open(kind) {
  const loading = model(kind); // while the engine is read and compiled
  ort = await import(kind === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  const cores = self.crossOriginIsolated ? (navigator.hardwareConcurrency || 2) : 1;
  ort.env.wasm.numThreads = Math.max(1, Math.min(4, cores));
  const graphOptimizationLevel = kind === "webgpu" ? "all" : "disabled";
  return ort.InferenceSession.create(await loading, { executionProviders: [kind], graphOptimizationLevel });
}

async function score(bgr, height, width) {
  const frames = new ort.Tensor("uint8", bgr, [1, height, width, 3]);
  const { probability, logits } = await session.run({ frames });
  return { probability: probability.data[0], margin: logits.data[1] - logits.data[0] };
}

/** Compare with what Python computed when the page was built. */
async function check(facts) {
  const pixels = await bytes("check.bin");
  const { height, width, probability } = facts.check;
  const computed = (await score(pixels, height, width)).probability;
  if (!(Math.abs(computed - probability) <= TOLERANCE)) throw new Error(`${computed} instead of ${probability}`);
}

/** WebGPU where a graphics processor computes it, then WebAssembly; or what `?engine=webgpu` or `wasm` asks for. */
async function engines(facts) {
  const wanted = new URLSearchParams(self.location.search).get("engine");
  if (wanted === "webgpu" || wanted === "wasm") return [wanted];
  const adapter = facts.webgpu ? await navigator.gpu?.requestAdapter().catch(() => null) : null;
  const isSoftware = adapter?.info?.isFallbackAdapter || adapter?.info?.architecture === "swiftshader";
  return adapter && !isSoftware ? ["webgpu", "wasm"] : ["wasm"];
}

async function start() {
  const facts = await (await fetch("model.json")).json();
  card = facts.card;
  const kinds = await engines(facts);
  let reason = "";
  for (const kind of kinds) {
    try {
      session = await open(kind);
      await check(facts);
      postMessage({ type: "ready", facts, kind, threads: ort.env.wasm.numThreads });
      return;
    } catch (error) {
      reason = `${kind}: ${error.message ?? error}`;
    }
  }
  postMessage({ type: "broken", reason });
}

async function picture({ id, rgba, width, height }) {
  try {
    const windows = [];
    const places = windowsOf(card, height, width);
    for (const { top, left, rows, columns } of places) {
      const bgr = new Uint8Array(rows * columns * 3);
      for (let row = 0, to = 0; row < rows; row++) {
        for (let column = 0, from = 4 * ((top + row) * width + left); column < columns; column++, from += 4) {
          bgr[to++] = rgba[from + 2];
          bgr[to++] = rgba[from + 1];
          bgr[to++] = rgba[from];
        }
      }
      const { margin } = await score(bgr, rows, columns);
      windows.push({ margin, reason: nothingToJudge(bgr, rows, columns) });
      if (windows.length === 1 && places.length > 1) postMessage({ type: "centre", id, window: windows[0] });
    }
    postMessage({ type: "windows", id, windows });
  } catch (error) {
    postMessage({ type: "failed", id, reason: String(error.message ?? error) });
  }
}

let queue = start();
onmessage = event => { queue = queue.then(() => picture(event.data)); };
