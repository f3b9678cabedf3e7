// npm run site [BUNDLE] [SITE]: puts the page, the runtime and the exported files into one folder, for any static server.
import { copyFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const [bundle = "../../artifacts/demo", site = "site"] = process.argv.slice(2);
const here = import.meta.dirname;
const runtime = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
const files = {
  [here]: ["index.html", "page.mjs", "style.css"],
  [join(here, "../node")]: ["twotower.mjs"],
  [runtime]: ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"],
  [bundle]: ["schema.json", "retrieve.onnx", "titles.json"],
};
await mkdir(site, { recursive: true });
for (const [folder, names] of Object.entries(files)) {
  for (const name of names) {
    await copyFile(join(folder, name), join(site, name)).catch((error) => {
      const hint = folder === bundle ? `; write it with "twotower export ${bundle} --single-file"` : "";
      console.error(`${join(folder, name)}: ${error.code}${hint}`);
      process.exit(1);
    });
  }
}
console.log(`${site}: ready; python3 -m http.server -d ${site}`);
