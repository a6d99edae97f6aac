// Why a window holds nothing to judge, for example a blank page: the rules of asr_runtime.inference.flatness.

const FLAT_SHARE = 0.75;
const GRAPHICS_SHARE = 0.4;
const TWO_LEVELS_SHARE = 0.65;
const SMALLEST_SIDE = 8; // pixels
const SAMPLES = 512; // rows, and columns, that are compared with their neighbours

/**
 * @param {Uint8Array} bgr pixels of the window, row by row
 * @returns {string | null} a short phrase; null: there is something to judge
 */
export function nothingToJudge(bgr, height, width) {
  const isSame = (one, other) =>
    bgr[one] === bgr[other] && bgr[one + 1] === bgr[other + 1] && bgr[one + 2] === bgr[other + 2];
  if (Math.min(height, width) < SMALLEST_SIDE) {
    for (let at = 0; at < bgr.length; at += 3) if (!isSame(0, at)) return "too few pixels";
    return "one colour";
  }
  const down = Math.max(1, Math.floor(height / SAMPLES));
  const right = Math.max(1, Math.floor(width / SAMPLES));
  const levels = new Uint32Array(256); // of green
  let pixels = 0;
  let flat = 0; // pixels that equal those to their right and below
  let isOneColour = true;
  for (let row = 0; row < height - 1; row += down) {
    for (let column = 0; column < width - 1; column += right) {
      const at = 3 * (row * width + column);
      pixels++;
      levels[bgr[at + 1]]++;
      if (isSame(at, at + 3) && isSame(at, at + 3 * width)) flat++;
      if (!isSame(0, at)) isOneColour = false;
    }
  }
  if (flat === pixels && isOneColour) return "one colour";
  if (flat / pixels >= FLAT_SHARE) return "flat areas dominate";
  if (flat / pixels < GRAPHICS_SHARE) return null;
  const [first, second] = [...levels].sort((a, b) => b - a);
  return (first + second) / pixels >= TWO_LEVELS_SHARE ? "text or graphics of two colours" : null;
}
