// node score.js MODEL FRAMES N H W: prints probability and logits of raw uint8 BGR frames as JSON.
process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before the library loads: nothing leaves this machine
const fs = require("fs");
const ort = require("onnxruntime-node");

async function main([model, file, ...shape]) {
  const session = await ort.InferenceSession.create(model);
  const frames = new ort.Tensor("uint8", new Uint8Array(fs.readFileSync(file)), [...shape.map(Number), 3]);
  const { probability, logits } = await session.run({ frames });
  console.log(JSON.stringify({ probability: Array.from(probability.data), logits: Array.from(logits.data) }));
}

main(process.argv.slice(2));
