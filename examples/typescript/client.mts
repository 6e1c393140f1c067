// A worker in TypeScript: it makes a run, pushes one gradient as JSON and one as safetensors, and prints the weights.
//
//     GRADSERVE_URL=http://127.0.0.1:8970 node client.mts [run]
//
// Node 22.18 and newer run this file as it is. The types come from the service's OpenAPI document.

import { randomUUID } from "node:crypto";
import type { components } from "./schema.d.ts";

type Schemas = components["schemas"];
type Tensors = Record<string, { shape: number[]; values: Float32Array }>;

const SAFETENSORS = "application/vnd.safetensors";
const server = (process.env.GRADSERVE_URL ?? "http://127.0.0.1:8970").replace(/\/$/, "");
const token = process.env.GRADSERVE_TOKEN;

/** One request. A refusal is thrown with the words of its problem document. */
async function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const binary = body instanceof Uint8Array;
  const answer = await fetch(server + path, {
    method,
    headers: {
      ...(body === undefined ? {} : { "Content-Type": binary ? SAFETENSORS : "application/json" }),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: body === undefined ? undefined : binary ? new Uint8Array(body) : JSON.stringify(body),
  });
  if (!answer.ok) {
    const problem = (await answer.json()) as Schemas["ProblemDocument"];
    throw new Error(`${problem.status} ${problem.code}: ${problem.detail}`);
  }
  return answer;
}

/** A frame: length of the header, header, then the tensors end to end in the order of their names. */
function encodeFrame(tensors: Tensors, metadata: Record<string, string>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  const names = Object.keys(tensors).sort();
  for (const name of names) {
    const { shape, values } = tensors[name];
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += values.byteLength)] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const begin = 8 + text.length + (-(8 + text.length) & 63); // the data begins at a multiple of 64 bytes
  const frame = new Uint8Array(begin + end).fill(0x20, 8, begin); // JSON may end with spaces
  const view = new DataView(frame.buffer);
  view.setBigUint64(0, BigInt(begin - 8), true);
  frame.set(text, 8);
  let place = begin;
  for (const name of names) {
    for (const value of tensors[name].values) {
      view.setFloat32(place, value, true);
      place += 4;
    }
  }
  return frame;
}

/** The tensors of a frame. */
function decodeFrame(frame: Uint8Array): Tensors {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const begin = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(frame.subarray(8, begin)));
  const tensors: Tensors = {};
  for (const [name, tensor] of Object.entries<any>(header)) {
    if (name === "__metadata__") continue;
    const [from, to] = tensor.data_offsets;
    const values = new Float32Array((to - from) / 4);
    for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(begin + from + 4 * i, true);
    tensors[name] = { shape: tensor.shape, values };
  }
  return tensors;
}

const run = `/v1/runs/${process.argv[2] ?? "typescript"}`;
const spec = {
  optimizer: { name: "adam", lr: 0.1 },
  weights: { b: 0.25, w: [[1, 2, 3], [4, 5, 6]] },
};
const made = (await (await ask("PUT", run, spec)).json()) as Schemas["RunDescription"];

const joined = await ask("PUT", `${run}/workers/node`, { instance: randomUUID() });
const worker = (await joined.json()) as Schemas["WorkerRow"];
const pushes = `${run}/workers/node/pushes`;

// A gradient as JSON: for a few numbers.
const gradients = { b: 0.5, w: [[1, -2, 3], [-4, 5, -6]] };
const first = await ask("PUT", `${pushes}/${worker.next_sequence}`, { gradients, base: made.etag, samples: 32 });
const outcome = (await first.json()) as Schemas["PushOutcome"];

// A gradient as safetensors, and the new weights in its answer: for real sizes. What JSON has as fields is metadata.
const now = (await (await ask("GET", run)).json()) as Schemas["RunDescription"];
const frame = encodeFrame(
  {
    b: { shape: [], values: new Float32Array([0.125]) },
    w: { shape: [2, 3], values: new Float32Array([0.5, 0.25, 0, -0.25, -0.5, 1]) },
  },
  { base: now.etag ?? "", samples: "16" },
);
const second = await ask("PUT", `${pushes}/${outcome.next_sequence}`, frame, { Prefer: "return=representation" });
const answered = decodeFrame(new Uint8Array(await second.arrayBuffer()));

const pulled = await ask("GET", `${run}/weights`);
const weights = decodeFrame(new Uint8Array(await pulled.arrayBuffer()));
const shown = (tensors: Tensors) =>
  Object.fromEntries(Object.entries(tensors).map(([name, { values }]) => [name, [...values]]));
console.log(
  JSON.stringify({
    outcomes: [outcome.outcome, second.headers.get("gradserve-outcome")],
    version: Number(pulled.headers.get("gradserve-version")),
    answered: shown(answered),
    weights: shown(weights),
  }),
);
