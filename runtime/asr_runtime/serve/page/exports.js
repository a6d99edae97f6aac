// Saves the results: CSV, JSON lines, and one HTML file to forward, without scripts or outside resources.
import { drawMap } from "./evidence.js";
import { percent, WORDS } from "./cards.js";

const COLUMNS = ["source", "verdict", "probability", "peak", "frames", "duration", "claims", "contradictions", "error"];

export function saveCsv(items) {
  const rows = items.map(({ name, result, error }) => [
    name,
    result?.verdict ?? "",
    result?.probability ?? "",
    result?.peak ?? "",
    result?.frames ?? "",
    result?.duration ?? "",
    (result?.claims ?? []).map((claim) => claim.text).join(" | "),
    (result?.contradictions ?? []).join(" | "),
    error ?? "",
  ]);
  const text = [COLUMNS, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  save("screening.csv", "text/csv", `\ufeff${text}\r\n`);
}

// A spreadsheet would run a cell that begins like a formula.
function cell(value) {
  const text = String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function saveJsonLines(items) {
  const lines = items.flatMap(({ records }) => records).map((record) => JSON.stringify(record) + "\n");
  save("screening.jsonl", "application/x-ndjson", lines.join(""));
}

export async function saveReport(items, model, limits) {
  const rows = [];
  for (const item of items) rows.push(await row(item));
  const counts = ["ai", "unsure", "real"].map((verdict) => {
    const count = items.filter(({ result }) => result?.verdict === verdict).length;
    return `${count} ${WORDS[verdict].toLowerCase()}`;
  });
  const failed = items.filter(({ error, result }) => error && !result).length;
  save(
    "screening.html",
    "text/html",
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>Screening of ${items.length} files</title><style>${STYLE}</style></head><body>
<h1>Screening of ${items.length} files</h1>
<p>${counts.join(", ")}${failed ? `, ${failed} not scored` : ""}. ${escape(new Date().toLocaleString())}.</p>
<p class="faint">${escape(limits)}</p>
<p class="faint">Model ${escape(model.name)}, SHA-256 ${escape(model.sha256)}. What a file says about itself can be forged; it does not change the probability.</p>
${rows.join("\n")}
</body></html>\n`,
  );
}

async function row({ name, result, error, shot, map }) {
  const verdict = result ? `<p class="${result.verdict}"><b>${WORDS[result.verdict]}</b> ${percent(result.probability)} likely AI-generated${result.frames ? `, ${result.frames} frames` : ""}</p>` : "";
  const claims = (result?.claims ?? []).map((claim) => `<li>${escape(claim.text)}</li>`).join("");
  const conflicts = (result?.contradictions ?? []).map((text) => `<p class="unsure">${escape(text)}</p>`).join("");
  const pictures = [picture(shot), map && picture(shot, drawMap(map))].filter(Boolean);
  const images = pictures.map((url) => `<img src="${url}" alt="">`).join("");
  return `<section><div class="shots">${images}</div><div><h2>${escape(name)}</h2>${verdict}${error ? `<p>${escape(error)}</p>` : ""}${conflicts}${claims && `<ul>${claims}</ul>`}</div></section>`;
}

function picture(shot, over) {
  const width = shot?.naturalWidth || shot?.videoWidth;
  const height = shot?.naturalHeight || shot?.videoHeight;
  if (!width || !height) return null;
  const factor = Math.min(1, 480 / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * factor), Math.round(height * factor)];
  const context = canvas.getContext("2d");
  if (over) context.filter = "grayscale(0.75)";
  context.drawImage(shot, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  if (over) context.drawImage(over, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}

const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
.faint{opacity:.75;font-size:.92rem;overflow-wrap:anywhere}section{display:flex;flex-wrap:wrap;gap:1rem;border-top:1px solid #8886;padding:1rem 0}
section>div:last-child{flex:1 1 18rem}h2{font-size:1rem;margin:0;overflow-wrap:anywhere}p{margin:.3rem 0}.shots img{max-width:14rem;max-height:14rem;margin-right:.4rem}
.ai b{color:#c62f26}.real b{color:#1d8a4d}.unsure b{color:#a06a00}p.unsure{border-left:3px solid #a06a00;padding-left:.6rem}`;
