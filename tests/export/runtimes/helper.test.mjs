// node --test helper.test.mjs, with BUNDLE and PACKAGES set: the helper of the examples, right and wrong input.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { InputError, Retriever, Tower } from "../../../examples/node/twotower.mjs";

const { BUNDLE: bundle, PACKAGES: packages } = process.env;
const ort = createRequire(join(packages, "package.json"))("onnxruntime-node");
const schema = JSON.parse(await readFile(join(bundle, "schema.json"), "utf8"));
const open = (file) => ort.InferenceSession.create(join(bundle, file));
const user = new Tower(ort, await open("user_tower.onnx"), schema, "user");
const item = new Tower(ort, await open("item_tower.onnx"), schema, "item");
const retriever = new Retriever(ort, await open("retrieve.onnx"), schema);

const near = (one, other) => one.forEach((value, place) => assert.ok(Math.abs(value - other[place]) < 1e-6));

test("what is left out, null and undefined are missing", async () => {
  const [empty, nulls, undefineds] = await user.embed([{}, { age: null, history: null }, { age: undefined }]);
  near(empty, nulls);
  near(empty, undefineds);
});

test("more rows than a call takes", async () => {
  const records = Array.from({ length: 600 }, (_, row) => ({ age: row, history: [`i${row % 7}`] }));
  const vectors = await user.embed(records);
  assert.equal(vectors.length, 600);
  near(vectors[599], (await user.embed([records[599]]))[0]);
});

test("no rows", async () => {
  assert.deepEqual(await user.embed([]), []);
  assert.deepEqual(await retriever.recommend([]), []);
});

test("numbers are ids too, a typed array is a vector", async () => {
  near((await user.embed([{ history: [3] }]))[0], (await user.embed([{ history: ["3"] }]))[0]);
  near((await item.embed([{ poster: new Float32Array(5) }]))[0], (await item.embed([{ poster: [0, 0, 0, 0, 0] }]))[0]);
});

test("recommendations leave out the history and what is excluded", async () => {
  const [[first, second]] = await retriever.recommend([{}], { k: 2 });
  const [hits] = await retriever.recommend([{ history: [first.id] }], { k: 100, exclude: [second.id] });
  assert.equal(hits.length, schema.single_file.items - 2);
  assert.ok(!hits.some(({ id }) => id === first.id || id === second.id));
});

const wrong = [
  [() => user.embed([{}, { agee: 3 }]), /record 2: there is no input "agee"; expected age, city/],
  [() => user.embed([{ age: "30" }]), /record 1: input "age": expected a number, found "30"/],
  [() => user.embed([{ history: "i1" }]), /input "history": expected a list, found "i1"/],
  [() => user.embed([{ history: [{}] }]), /input "history": expected text, found \[object Object\]/],
  [() => user.embed([{ city: "a\0b" }]), /input "city": a NUL character/],
  [() => user.embed([{ city: "\ud83d" }]), /input "city": a lone surrogate/],
  [() => user.embed([3]), /record 1: expected an object, found 3/],
  [() => user.embed("x"), /expected a list of records, found "x"/],
  [() => item.embed([{ poster: [1, 2] }]), /input "poster": expected 5 numbers, found 2/],
  [() => user.embedColumns({ age: [1] }), /input "city" is not there/],
  [() => item.embedColumns({ item_id: ["i1", "i2"], year: [1], genres: [], poster: [] }), /input "year" has 1 rows, expected 2/],
  [() => item.embedColumns({ item_id: [], x: [] }), /there is no input "x"/],
  [() => retriever.recommend([{}], { k: -1 }), /k is -1, expected a whole number/],
  [() => retriever.recommend([{}], { k: 1.5 }), /k is 1.5/],
  [() => retriever.recommend([{}], { k: 2 ** 70 }), /k is/],
];
for (const [call, message] of wrong) {
  test(`refused: ${message.source}`, async () => {
    await assert.rejects(async () => call(), (error) => error instanceof InputError && message.test(error.message));
    assert.equal((await user.embed([{}])).length, 1);
  });
}

test("a graph of another model is refused", async () => {
  const session = await open("item_tower.onnx");
  assert.throws(() => new Tower(ort, session, schema, "user"), /they are not of one model/);
});
