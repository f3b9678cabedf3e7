// @ts-check
/**
 * Two towers in JavaScript, the same file for Node and the browser: plain objects in, vectors or item ids out.
 *
 * onnxruntime takes what it is given: it ignores a name that it does not know, cuts a string at a NUL, and says of a
 * wrong type only that it is wrong. So everything is checked here, and an error says in one sentence which record and
 * which input it is about.
 *
 * @typedef {{name: string, dtype: "float32" | "float64" | "string", shape: (string | number)[], kind: string, max_length?: number | null}} Input
 * @typedef {{pair_id: string, dim: number, towers: Record<"user" | "item", {file: string, inputs: Input[]}>, single_file?: {file: string, items: number}}} Schema
 * @typedef {Record<string, unknown>} UserOrItem  A record: a value a feature; what is left out, null or undefined is missing.
 * @typedef {Record<string, ArrayLike<unknown>>} Columns  A column a feature: numbers, texts, or lists of them.
 * @typedef {{id: string, score: number}} Hit
 * @typedef {{run(feeds: any): Promise<any>, inputNames: readonly string[]}} Session
 */

/** Rows sent in one call: memory grows with rows times list length. */
const CHUNK = 256;

/** What is wrong with an input, in one sentence. */
export class InputError extends Error {
  name = "InputError";
}

/** One tower: embeds users or items. */
export class Tower {
  /**
   * @param {any} ort  the onnxruntime module, of Node or of the browser
   * @param {Session} session  of `user_tower.onnx` or `item_tower.onnx`
   * @param {Schema} schema  the content of `schema.json`
   * @param {"user" | "item"} side
   */
  constructor(ort, session, schema, side) {
    this.ort = ort;
    this.session = session;
    this.dim = schema.dim;
    this.inputs = schema.towers[side].inputs;
    sameInputs(session, this.inputs.map((input) => input.name));
  }

  /**
   * The unit vectors of records, one after the other.
   * @param {UserOrItem[]} records
   * @returns {Promise<Float32Array[]>}
   */
  async embed(records) {
    return this.embedColumns(columnsOf(this.inputs, records), records.length);
  }

  /**
   * The unit vectors of columns of equal length.
   * @param {Columns} columns
   * @param {number} [rows]  how many; told by the columns if left out
   * @returns {Promise<Float32Array[]>}
   */
  async embedColumns(columns, rows = rowsOf(columns)) {
    const vectors = [];
    for (const [feeds, count] of feedsOf(this.ort, this.inputs, columns, rows)) {
      const { embedding } = await this.session.run(feeds);
      for (let row = 0; row < count; row++) {
        vectors.push(embedding.data.slice(row * this.dim, (row + 1) * this.dim));
      }
    }
    return vectors;
  }
}

/** The whole of retrieval: users in, item ids out. */
export class Retriever {
  /**
   * @param {any} ort  the onnxruntime module, of Node or of the browser
   * @param {Session} session  of `retrieve.onnx`
   * @param {Schema} schema  the content of `schema.json`
   */
  constructor(ort, session, schema) {
    this.ort = ort;
    this.session = session;
    /** @type {Input} */
    const exclude = { name: "exclude", dtype: "string", shape: ["N", "E"], kind: "categories" };
    this.inputs = [...schema.towers.user.inputs, exclude];
    sameInputs(session, [...this.inputs.map((input) => input.name), "k"]);
  }

  /**
   * The best items for each user, best first: k of them, or fewer where fewer are left. The history is left out.
   * @param {UserOrItem[]} users
   * @param {{k?: number, exclude?: string[]}} [options]  exclude: ids that nobody is to get
   * @returns {Promise<Hit[][]>}
   */
  async recommend(users, { k = 10, exclude = [] } = {}) {
    if (!Number.isSafeInteger(k) || k < 0) {
      throw new InputError(`k is ${show(k)}, expected a whole number from 0`);
    }
    const columns = columnsOf(this.inputs, users.map((user) => ({ ...user, exclude })));
    const hits = [];
    for (const [feeds, count] of feedsOf(this.ort, this.inputs, columns, users.length)) {
      feeds.k = new this.ort.Tensor("int64", BigInt64Array.of(BigInt(k)), [1]);
      const { ids, scores } = await this.session.run(feeds);
      const width = ids.dims[1];
      for (let row = 0; row < count; row++) {
        const found = [];
        for (let place = row * width; place < (row + 1) * width; place++) {
          if (ids.data[place] !== "") found.push({ id: ids.data[place], score: scores.data[place] });
        }
        hits.push(found);
      }
    }
    return hits;
  }
}

/** @param {Session} session @param {string[]} names */
function sameInputs(session, names) {
  const found = [...session.inputNames];
  if (found.length !== names.length || names.some((name) => !found.includes(name))) {
    throw new InputError(`the graph takes ${show(found)}, schema.json says ${show(names)}: they are not of one model`);
  }
}

/**
 * Records to columns. A name that no input has is refused: it would be ignored, and nobody would know.
 * @param {Input[]} inputs @param {UserOrItem[]} records @returns {Columns}
 */
function columnsOf(inputs, records) {
  const names = inputs.map((input) => input.name);
  if (!Array.isArray(records)) throw new InputError(`expected a list of records, found ${show(records)}`);
  records.forEach((record, row) => {
    if (record === null || typeof record !== "object" || Array.isArray(record)) {
      throw new InputError(`record ${row + 1}: expected an object, found ${show(record)}`);
    }
    for (const name of Object.keys(record)) {
      if (!names.includes(name)) {
        throw new InputError(`record ${row + 1}: there is no input "${name}"; expected ${names.join(", ")}`);
      }
    }
  });
  return Object.fromEntries(names.map((name) => [name, records.map((record) => record[name])]));
}

/** @param {Columns} columns */
function rowsOf(columns) {
  const first = Object.values(columns)[0];
  return first === undefined ? 0 : first.length;
}

/**
 * Checked tensors, a chunk of rows at a time. No rows, no call.
 * @param {any} ort @param {Input[]} inputs @param {Columns} columns @param {number} rows
 * @returns {Generator<[Record<string, any>, number]>}
 */
function* feedsOf(ort, inputs, columns, rows) {
  for (const name of Object.keys(columns)) {
    if (!inputs.some((input) => input.name === name)) {
      throw new InputError(`there is no input "${name}"; expected ${inputs.map((input) => input.name).join(", ")}`);
    }
  }
  for (const { name } of inputs) {
    if (!(name in columns)) throw new InputError(`input "${name}" is not there; give null where it is missing`);
    if (columns[name]?.length !== rows) {
      throw new InputError(`input "${name}" has ${columns[name]?.length} rows, expected ${rows} as in the others`);
    }
  }
  for (let start = 0; start < rows; start += CHUNK) {
    const count = Math.min(CHUNK, rows - start);
    /** @type {Record<string, any>} */
    const feeds = {};
    for (const input of inputs) {
      const values = Array.from({ length: count }, (_, row) => columns[input.name][start + row]);
      feeds[input.name] = tensorOf(ort, input, values, start);
    }
    yield [feeds, count];
  }
}

/** @param {any} ort @param {Input} input @param {unknown[]} values @param {number} start */
function tensorOf(ort, input, values, start) {
  /** @param {number} row */
  const place = (row) => `record ${start + row + 1}: input "${input.name}"`;
  if (input.shape.length === 1) {
    if (input.dtype === "string") {
      const texts = values.map((value, row) => textOf(value, place(row)));
      return new ort.Tensor("string", texts, [values.length]);
    }
    const numbers = values.map((value, row) => numberOf(value, place(row)));
    const data = input.dtype === "float64" ? Float64Array.from(numbers) : Float32Array.from(numbers);
    return new ort.Tensor(input.dtype, data, [values.length]);
  }
  const lists = values.map((value, row) => listOf(value, place(row)));
  if (input.dtype === "float32") {
    const size = Number(input.shape[1]);
    const data = new Float32Array(values.length * size).fill(NaN);
    lists.forEach((list, row) => {
      if (list.length !== 0 && list.length !== size) {
        throw new InputError(`${place(row)}: expected ${size} numbers, found ${list.length}`);
      }
      list.forEach((entry, column) => (data[row * size + column] = numberOf(entry, place(row))));
    });
    return new ort.Tensor("float32", data, [values.length, size]);
  }
  const width = lists.reduce((most, list) => Math.max(most, list.length), 0);
  const data = new Array(values.length * width).fill("");
  lists.forEach((list, row) => {
    list.forEach((entry, column) => (data[row * width + column] = textOf(entry, place(row))));
  });
  return new ort.Tensor("string", data, [values.length, width]);
}

/** @param {unknown} value @param {string} place @returns {number} */
function numberOf(value, place) {
  if (value === null || value === undefined) return NaN;
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  throw new InputError(`${place}: expected a number, found ${show(value)}`);
}

/** @param {unknown} value @param {string} place @returns {string} */
function textOf(value, place) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean" || typeof value === "bigint") return String(value);
  if (typeof value !== "string") throw new InputError(`${place}: expected text, found ${show(value)}`);
  if (value.includes("\0")) throw new InputError(`${place}: a NUL character in ${show(value)}`);
  if (/[\uD800-\uDFFF]/u.test(value)) throw new InputError(`${place}: a lone surrogate in ${show(value)}`);
  return value;
}

/** @param {unknown} value @param {string} place @returns {unknown[]} */
function listOf(value, place) {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return Array.from(/** @type {any} */ (value));
  throw new InputError(`${place}: expected a list, found ${show(value)}`);
}

/** @param {unknown} value */
function show(value) {
  const text = typeof value === "string" ? JSON.stringify(value) : Array.isArray(value) ? `[${value}]` : String(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
