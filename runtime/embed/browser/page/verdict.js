// From the margins of a picture's windows to its verdict: the rules of the card, as asr_runtime.contract has them.

/** Returns what the network is shown, each {top, left, rows, columns}: the card's windows, the centre first, or all of it. */
export function windowsOf(card, height, width) {
  if (card.preprocess.mode !== "crop") return [{ top: 0, left: 0, rows: height, columns: width }];
  const rows = Math.min(card.preprocess.size, height);
  const columns = Math.min(card.preprocess.size, width);
  const places = card.whole?.is_default ? card.whole.windows : [[0.5, 0.5]];
  const windows = new Map();
  for (const [down, right] of places) {
    const [top, left] = [Math.floor(down * (height - rows)), Math.floor(right * (width - columns))];
    windows.set(`${top},${left}`, { top, left, rows, columns });
  }
  return [...windows.values()];
}

/**
 * Windows without content to judge have no weight if another window has content.
 *
 * @param {{margin: number, reason: string | null}[]} windows of one picture
 * @returns {{probability: number, verdict: "ai" | "real" | "unsure", reason: string | null, decision: object}}
 */
export function judge(card, windows) {
  const isWhole = windows.length > 1;
  const { calibration, decision } = isWhole ? card.whole : card;
  const judged = windows.filter(({ reason }) => reason === null);
  const margins = (judged.length ? judged : windows).map(({ margin }) => margin);
  const best = margins.sort((a, b) => b - a).slice(0, isWhole ? card.whole.top : 1);
  const margin = best.reduce((sum, value) => sum + value, 0) / best.length;
  const probability = 1 / (1 + Math.exp(-(margin / calibration.temperature + calibration.shift)));
  if (!judged.length) return { probability, verdict: "unsure", reason: windows[0].reason, decision };
  const verdict = probability >= decision.ai_from ? "ai" : probability < decision.real_below ? "real" : "unsure";
  return { probability, verdict, reason: null, decision };
}
