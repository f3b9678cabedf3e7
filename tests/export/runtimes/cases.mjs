// Every golden case and every request of a bundle in one JavaScript runtime, without the helper: what the files do.

/** Nested lists of golden.json -> a tensor. */
function tensorOf(ort, input, values) {
  const dims = [values.length];
  if (input.shape.length === 2) {
    dims.push(values.length ? values[0].length : typeof input.shape[1] === "number" ? input.shape[1] : 0);
  }
  const flat = dims.length === 2 ? values.flat() : values;
  const data = arrayOf(input.dtype, flat.map((value) => (value === null ? NaN : value)));
  return new ort.Tensor(input.dtype, data, dims);
}

function hex(floats) {
  return Array.from(new Uint32Array(floats.buffer, floats.byteOffset, floats.length), (bits) =>
    bits.toString(16).padStart(8, "0"),
  ).join("");
}

/** @returns {side: {cases, worst, bits}}: the largest difference from golden.json, and each vector's exact bits. */
/** The data of a tensor. dtype: as schema.json names it. */
const arrayOf = (dtype, values) => ({ string: Array, float32: Float32Array, float64: Float64Array })[dtype].from(values);

export async function golden(ort, open, schema, content, { onlyEmpty = false } = {}) {
  const results = {};
  for (const side of ["user", "item"]) {
    const { file, inputs } = schema.towers[side];
    const session = await open(file);
    const result = { cases: 0, worst: 0, bits: [] };
    for (const { inputs: given, embedding: expected } of content[side]) {
      if (onlyEmpty && expected.length) continue;
      const feeds = Object.fromEntries(inputs.map((input) => [input.name, tensorOf(ort, input, given[input.name])]));
      const { embedding } = await session.run(feeds);
      if (embedding.dims[0] !== expected.length || embedding.dims[1] !== schema.dim) throw new Error(`${side}: shape`);
      expected.flat().forEach((value, place) => {
        const off = Math.abs(value - embedding.data[place]);
        result.worst = Number.isNaN(off) ? Infinity : Math.max(result.worst, off);
      });
      result.bits.push(hex(embedding.data));
      result.cases += 1;
    }
    results[side] = result;
  }
  return results;
}

/** Ids that `retrieve.onnx` gives for users: requests [{inputs, exclude, k}], each a batch. */
export async function retrieve(ort, open, schema, requests) {
  const session = await open("retrieve.onnx");
  const answers = [];
  for (const { inputs: given, exclude, k } of requests) {
    const { inputs } = schema.towers.user;
    const feeds = Object.fromEntries(inputs.map((input) => [input.name, tensorOf(ort, input, given[input.name])]));
    feeds.exclude = tensorOf(ort, { dtype: "string", shape: ["N", "E"] }, exclude);
    feeds.k = new ort.Tensor("int64", BigInt64Array.of(BigInt(k)), [1]);
    const { ids, scores } = await session.run(feeds);
    if (ids.dims[0] !== exclude.length) throw new Error("rows");
    const width = ids.dims[1];
    answers.push(exclude.map((_, row) => Array.from(ids.data.slice(row * width, (row + 1) * width))));
    if (scores.dims.join() !== ids.dims.join()) throw new Error("scores and ids differ in shape");
  }
  return answers;
}

/** Hostile raw tensors, from a seed: a result is unit vectors, anything else an error that leaves the session alive. */
export async function fuzz(ort, open, schema, { seed, rounds }) {
  let state = seed >>> 0;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
    return state / 2 ** 32;
  };
  const pick = (list) => list[Math.floor(random() * list.length)];
  const numbers = [0, -0, 1, -1, 1e38, -1e38, 3.4028235e38, 1e-45, NaN, Infinity, -Infinity, 20, 1990];
  const texts = ["", "i1", "50", "👩🏽‍🚀", "映画", "\0", "a\0b", "\ud800", "x".repeat(1 << 16), "' OR 1=1", "NaN", "\uffff", " "];
  const counts = { vectors: 0, refused: 0 };
  for (const side of ["user", "item"]) {
    const { file, inputs } = schema.towers[side];
    const session = await open(file);
    const feedsOf = (rows, width) =>
      Object.fromEntries(
        inputs.map((input) => {
          const dims = input.shape.map((axis, place) => (place === 0 ? rows : axis === "L" ? width : axis));
          const size = dims.reduce((product, axis) => product * axis, 1);
          const values = Array.from({ length: size }, () => pick(input.dtype === "string" ? texts : numbers));
          const data = arrayOf(input.dtype, values);
          return [input.name, new ort.Tensor(input.dtype, data, dims)];
        }),
      );
    const spoil = [
      (feeds) => delete feeds[pick(inputs).name],
      (feeds) => (feeds[pick(inputs).name] = new ort.Tensor("int64", new BigInt64Array(2), [2])),
      (feeds) => (feeds[pick(inputs).name] = new ort.Tensor("float32", new Float32Array(8), [2, 2, 2])),
      (feeds) => (feeds[pick(inputs).name] = new ort.Tensor("bool", [true], [1])),
    ];
    for (let round = 0; round < rounds; round++) {
      const rows = pick([1, 2, 3, 17]);
      const feeds = feedsOf(rows, pick([0, 1, 2, 50, 300]));
      const spoilt = random() < 0.3;
      if (spoilt) pick(spoil)(feeds);
      let result;
      try {
        result = await session.run(feeds);
      } catch (error) {
        if (!spoilt) throw error;
        counts.refused += 1;
        continue;
      }
      if (spoilt) continue; // a wrong type that the runtime did not mind is not ours to judge
      unit(result.embedding.data, schema.dim);
      counts.vectors += rows;
    }
    unit((await session.run(feedsOf(2, 3))).embedding.data, schema.dim);
  }
  return counts;
}

function unit(data, dim) {
  for (let start = 0; start < data.length; start += dim) {
    let total = 0;
    for (let place = start; place < start + dim; place++) total += data[place] ** 2;
    if (!(Math.abs(Math.sqrt(total) - 1) < 1e-5)) throw new Error(`a vector of length ${Math.sqrt(total)}`);
  }
}
