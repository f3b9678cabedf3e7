// Choose items, see recommendations: retrieve.onnx in this page, through the same helper as in Node.
import * as ort from "./ort.wasm.min.mjs";
import { Retriever } from "./twotower.mjs";

const SHOWN = 8; // matches of a search
const HITS = 10;

const at = (id) => document.getElementById(id);
const json = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
};

ort.env.wasm.numThreads = 1; // more would need cross-origin isolation
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

let retriever;
let inputs = [];
let history = null;
const titles = new Map();
const chosen = [];
let asked = 0; // answers asked for so far: only the last one is shown

async function start() {
  const [schema, catalogue, session] = await Promise.all([
    json("schema.json"),
    json("titles.json"),
    ort.InferenceSession.create("retrieve.onnx", { executionProviders: ["wasm"] }),
  ]);
  if (catalogue.pair_id !== schema.pair_id) throw new Error("titles.json and schema.json are of two models");
  retriever = new Retriever(ort, session, schema);
  inputs = schema.towers.user.inputs;
  history = inputs.find((input) => input.kind === "history");
  for (const [id, title] of catalogue.items) titles.set(id, title);
  askAbout();
  at("search").disabled = false;
  at("search").placeholder = `One of ${titles.size.toLocaleString("en")} titles`;
  at("search").addEventListener("input", showMatches);
  at("search").focus();
  await recommend();
}

/** A field for every feature of the user that is a number or a text. */
function askAbout() {
  for (const { name, kind } of inputs) {
    if (kind !== "number" && kind !== "category" && kind !== "hash") continue;
    const label = document.createElement("label");
    const text = document.createElement("span");
    text.className = "label";
    text.textContent = name;
    const field = document.createElement("input");
    field.name = name;
    field.type = kind === "number" ? "number" : "text";
    field.placeholder = "not told";
    field.addEventListener("change", () => recommend().catch(failed));
    label.append(text, field);
    at("about").append(label);
  }
}

function showMatches() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const [id, title] of titles) {
    const text = title.toLowerCase();
    if (words.length && !chosen.includes(id) && words.every((word) => text.includes(word))) found.push(id);
    if (found.length === SHOWN) break;
  }
  at("matches").replaceChildren(...found.map((id) => button(id, () => choose(id))));
}

function choose(id) {
  chosen.push(id);
  at("search").value = "";
  at("search").focus();
  changed();
}

function changed() {
  showMatches();
  const remove = (id) => {
    chosen.splice(chosen.indexOf(id), 1);
    changed();
  };
  at("chosen").replaceChildren(...chosen.map((id) => button(id, () => remove(id))));
  recommend().catch(failed);
}

function button(id, click) {
  const line = document.createElement("li");
  const inner = document.createElement("button");
  inner.type = "button";
  inner.textContent = titles.get(id);
  inner.addEventListener("click", click);
  line.append(inner);
  return line;
}

/** The user as told so far; what is left empty is missing. */
function user() {
  const record = history ? { [history.name]: chosen } : {};
  for (const field of at("about").elements) {
    if (field.value !== "") record[field.name] = field.type === "number" ? field.valueAsNumber : field.value;
  }
  return record;
}

async function recommend() {
  const turn = ++asked;
  at("hits").setAttribute("aria-busy", "true");
  const before = performance.now();
  const [hits] = await retriever.recommend([user()], { k: HITS });
  const taken = performance.now() - before;
  if (turn !== asked) return;
  at("hits").replaceChildren(
    ...hits.map(({ id, score }) => {
      const line = document.createElement("li");
      for (const [name, text] of [["title", titles.get(id)], ["score", score.toFixed(3)]]) {
        const part = document.createElement("span");
        part.className = name;
        part.textContent = text;
        line.append(part);
      }
      return line;
    }),
  );
  at("status").textContent = `${titles.size.toLocaleString("en")} titles ranked in ${taken.toFixed(1)} ms, in this page.`;
  settled();
}

function settled() {
  at("hits").setAttribute("aria-busy", "false");
}

function failed(error) {
  settled();
  at("status").textContent = String(error.message ?? error);
}

start().catch((error) => {
  at("search").placeholder = "The model did not load";
  failed(error);
});
