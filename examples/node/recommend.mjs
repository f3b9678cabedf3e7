// node recommend.mjs FOLDER ID,ID,...   recommendations of an exported bundle, computed in this process
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import ort from "onnxruntime-node";
import { Retriever, Tower } from "./twotower.mjs";

const [folder = "../../artifacts/demo", ids = "50,181,172"] = process.argv.slice(2);
const schema = JSON.parse(await readFile(join(folder, "schema.json"), "utf8"));
const history = schema.towers.user.inputs.find((input) => input.kind === "history");
const user = { [history.name]: ids.split(",") };

const tower = new Tower(ort, await ort.InferenceSession.create(join(folder, "user_tower.onnx")), schema, "user");
const [vector] = await tower.embed([user]);
console.log(`user vector: ${vector.length} numbers, beginning ${Array.from(vector.slice(0, 4), (x) => x.toFixed(4))}`);

const retriever = new Retriever(ort, await ort.InferenceSession.create(join(folder, "retrieve.onnx")), schema);
const [hits] = await retriever.recommend([user], { k: 10 });
for (const { id, score } of hits) console.log(`${score.toFixed(4)}  ${id}`);
