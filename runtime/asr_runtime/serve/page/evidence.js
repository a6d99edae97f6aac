// Draws which parts of a picture speak for AI: the mean probability of the windows over each part.

const LONGEST = 96; // cells of the longer side; the browser smooths between them
const STRONG = 0.75; // opacity of the tint at probability 1; at 0.5 there is none
const UNSEEN = 0.6; // opacity of the shade over parts that no window covers

// Returns a canvas that lies over a picture of `width` x `height` pixels.
export function drawMap({ width, height, windows }) {
  const scale = LONGEST / Math.max(width, height);
  const columns = Math.max(1, Math.round(width * scale));
  const rows = Math.max(1, Math.round(height * scale));
  const sums = new Float32Array(columns * rows);
  const counts = new Uint16Array(columns * rows);
  for (const { x, y, size, probability } of windows) {
    const right = Math.min(columns, Math.round((x + size) * scale));
    const bottom = Math.min(rows, Math.round((y + size) * scale));
    for (let row = Math.round(y * scale); row < bottom; row++) {
      for (let column = Math.round(x * scale); column < right; column++) {
        sums[row * columns + column] += probability;
        counts[row * columns + column] += 1;
      }
    }
  }
  const small = new ImageData(columns, rows);
  for (let cell = 0; cell < sums.length; cell++) {
    const strength = counts[cell] ? Math.max(0, 2 * (sums[cell] / counts[cell]) - 1) : 0;
    const tint = counts[cell] ? [255 - 35 * strength, 200 - 180 * strength, 30 * strength] : [0, 0, 0];
    small.data.set([...tint, 255 * (counts[cell] ? STRONG * Math.sqrt(strength) : UNSEEN)], 4 * cell);
  }
  return enlarged(small, width, height);
}

function enlarged(small, width, height) {
  const cells = document.createElement("canvas");
  [cells.width, cells.height] = [small.width, small.height];
  cells.getContext("2d").putImageData(small, 0, 0);
  const canvas = document.createElement("canvas");
  const factor = Math.min(1, 1024 / Math.max(width, height));
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  return canvas;
}
