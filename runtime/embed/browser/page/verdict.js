// From the margins of a picture's windows to its verdict: the rules of the card, as asr_runtime.contract has them.

/** Upper left pixels (row, column) of the windows of a picture; the centre alone where the card has no more. */
export function corners(card, height, width) {
  const size = card.preprocess.size;
  const down = Math.max(0, height - size);
  const right = Math.max(0, width - size);
  const places = card.whole?.is_default ? card.whole.windows : [[0.5, 0.5]];
  const found = new Map();
  for (const [row, column] of places) {
    const corner = [Math.floor(row * down), Math.floor(column * right)];
    found.set(corner.join(), corner);
  }
  return [...found.values()];
}

/** @returns {{probability: number, verdict: "ai" | "real" | "unsure", decision: object}} */
export function judge(card, margins) {
  const isWhole = margins.length > 1;
  const { calibration, decision } = isWhole ? card.whole : card;
  const best = [...margins].sort((a, b) => b - a).slice(0, isWhole ? card.whole.top : 1);
  const margin = best.reduce((sum, value) => sum + value, 0) / best.length;
  const probability = 1 / (1 + Math.exp(-(margin / calibration.temperature + calibration.shift)));
  const verdict = probability >= decision.ai_from ? "ai" : probability < decision.real_below ? "real" : "unsure";
  return { probability, verdict, decision };
}
