// One card per file, and the same facts enlarged. Everything that a file or a record says is set as text.
import { drawMap } from "./evidence.js";

export const WORDS = { ai: "Looks AI-generated", real: "Looks real", unsure: "Unsure" };
const SOURCES = { c2pa: "Content Credentials", iptc: "IPTC", png: "PNG text", xmp: "XMP", exif: "EXIF" };

export const percent = (probability) => `${Math.round(100 * probability)}%`;

const template = document.getElementById("card");

// Makes the card of an item; `decision` is the model's rule for pictures or videos.
export function makeCard(item) {
  const card = template.content.firstElementChild.cloneNode(true);
  const shot = card.querySelector(".shot");
  shot.setAttribute("aria-label", `Enlarge ${item.name}`);
  item.shot = preview(item);
  shot.append(item.shot);
  card.querySelector(".name").textContent = item.name;
  item.card = card;
  showItem(item, false);
  return card;
}

function preview(item) {
  const isVideo = item.isVideo;
  const element = document.createElement(isVideo ? "video" : "img");
  if (isVideo) Object.assign(element, { muted: true, preload: "auto", playsInline: true });
  else Object.assign(element, { alt: "", decoding: "async" });
  element.addEventListener("error", () => {
    const none = document.createElement("span");
    none.className = "no-preview";
    none.textContent = "This browser cannot show the file.";
    element.replaceWith(none);
  });
  element.src = item.url;
  return element;
}

// Shows what is known of an item by now.
export function showItem(item, mapped, decisionOf) {
  const { card, result, error } = item;
  const state = result?.verdict ?? (error ? "failed" : "waiting");
  card.className = `card ${state}`;
  card.classList.toggle("mapped", mapped && Boolean(item.map));
  fillFacts(card, item, decisionOf);
  const shot = card.querySelector(".shot");
  shot.querySelector("canvas")?.remove();
  if (mapped && item.map) shot.append(drawMap(item.map));
}

// Fills verdict, scale, claims and errors into a card or the enlarged view.
export function fillFacts(root, item, decisionOf) {
  const { result, error, frames } = item;
  const waiting = frames.length ? `Frame ${frames.length} …` : item.started ? "Looking …" : "Waiting …";
  root.querySelector(".word").textContent = result ? WORDS[result.verdict] : error ? "Not scored" : waiting;
  root.querySelector(".number").textContent = result ? `${percent(result.probability)} AI` : "";
  const scale = root.querySelector(".scale");
  scale.hidden = root.querySelector(".ends").hidden = !result;
  if (result) fillScale(scale, result, decisionOf(result));
  fillStrip(root.querySelector(".strip"), frames);
  const note = result?.reason ? `Nothing to judge: ${result.reason}.` : result?.note ? `Note: ${result.note}.` : "";
  setText(root.querySelector(".error"), error ?? note);
  setText(root.querySelector(".contradiction"), (result?.contradictions ?? []).join(" "));
  const claims = root.querySelector(".claims");
  claims.hidden = !result?.claims?.length;
  claims.replaceChildren(...(result?.claims ?? []).map(claimLine));
}

function setText(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function claimLine(claim) {
  const line = document.createElement("li");
  const source = document.createElement("b");
  source.textContent = `${SOURCES[claim.source] ?? claim.source}: `;
  line.append(source, claim.text);
  return line;
}

function fillScale(scale, { probability }, { real_below: low, ai_from: high }) {
  scale.style.setProperty("--low", `${100 * low}%`);
  scale.style.setProperty("--rest", `${100 * (1 - high)}%`);
  const [band, mark] = scale.children;
  band.style.left = `${100 * low}%`;
  band.style.width = `${100 * (high - low)}%`;
  mark.style.left = `${100 * probability}%`;
  scale.setAttribute(
    "aria-label",
    `Probability of AI ${percent(probability)}; unsure from ${percent(low)} to ${percent(high)}`,
  );
}

// Bars of the frames of a clip, in time.
function fillStrip(strip, frames) {
  strip.hidden = frames.length < 2;
  if (strip.hidden) return;
  const end = frames.at(-1).time || 1;
  const width = 100 / frames.length;
  strip.replaceChildren(
    ...frames.map(({ time, probability, verdict }) => {
      const bar = document.createElement("i");
      bar.className = verdict;
      bar.style.left = `${(time / end) * (100 - width)}%`;
      bar.style.width = `${Math.max(0.4, width - 0.3)}%`;
      bar.style.height = `${Math.max(4, 100 * probability)}%`;
      return bar;
    }),
  );
  strip.setAttribute("aria-label", `Probability of AI over the ${end.toFixed(1)} seconds of the clip`);
}
