// node node.mjs BUNDLE PACKAGES WORK [ARGUMENTS]: one of the works of cases.mjs in Node; its result as JSON on stdout.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import * as cases from "./cases.mjs";

const [bundle, packages, work, given = "null"] = process.argv.slice(2);
const ort = createRequire(join(packages, "package.json"))("onnxruntime-node");
const read = async (path) => JSON.parse(await readFile(path, "utf8"));
const open = (file) =>
  ort.InferenceSession.create(join(bundle, file), { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 4 });
const schema = await read(join(bundle, "schema.json"));

const works = {
  golden: async (options) => cases.golden(ort, open, schema, await read(join(bundle, "golden.json")), options ?? {}),
  retrieve: async ({ requests }) => cases.retrieve(ort, open, schema, await read(requests)),
  fuzz: async (options) => cases.fuzz(ort, open, schema, options),
};
process.stdout.write(JSON.stringify({ runtime: ort.env.versions.node, result: await works[work](JSON.parse(given)) }));
