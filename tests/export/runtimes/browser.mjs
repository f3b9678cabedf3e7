// node browser.mjs SITE BUNDLE PACKAGES WORK [ARGUMENTS]: a work in headless Chromium; its result as JSON on stdout.
// The page comes from a plain static server under a policy without unsafe-eval, and may speak to that server only.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";

const [site, bundle, packages, work, given = "{}"] = process.argv.slice(2);
const options = JSON.parse(given);
const { chromium } = createRequire(join(packages, "package.json"))("playwright-core");

const TYPES = {
  ".html": "text/html",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; img-src data:";

const ANSWERED = "#hits[aria-busy='false']"; // a click makes it busy at once, before the answer is begun

const folders = { "/bundle/": bundle, "/cases/": import.meta.dirname, "/": site };
const server = createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const prefix = Object.keys(folders).find((name) => path.startsWith(name));
  try {
    const file = path === "/blank.html" ? Buffer.from("<!doctype html><title>blank</title>") : null;
    const content = file ?? (await readFile(join(folders[prefix], path.slice(prefix.length) || "index.html")));
    response.writeHead(200, {
      "content-type": TYPES[extname(path) || ".html"] ?? "application/octet-stream",
      "content-security-policy": POLICY,
    });
    response.end(content);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    ...["--disable-component-update", "--disable-sync"],
  ],
});
const errors = [];
let result;
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 720 } });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("request", (request) => request.url().startsWith(origin) || request.url().startsWith("data:") || errors.push(request.url()));
  result = work === "page" ? await choose(page) : await inPage(page);
} finally {
  await browser.close();
  server.close();
}
if (errors.length) throw new Error(errors.join("\n"));
process.stdout.write(JSON.stringify({ runtime: "web", result }));

/** A work of cases.mjs inside a page. */
async function inPage(page) {
  await page.goto(`${origin}/blank.html`);
  const requests = options.requests ? JSON.parse(await readFile(options.requests, "utf8")) : null;
  return page.evaluate(
    async ([work, options, requests]) => {
      const ort = await import("/ort.wasm.min.mjs");
      const cases = await import("/cases/cases.mjs");
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = `${location.origin}/`;
      ort.env.logLevel = "fatal";
      const json = async (name) => (await fetch(`/bundle/${name}`)).json();
      const open = (file) => ort.InferenceSession.create(`/bundle/${file}`, { executionProviders: ["wasm"] });
      const schema = await json("schema.json");
      if (work === "retrieve") return cases.retrieve(ort, open, schema, requests);
      if (work === "fuzz") return cases.fuzz(ort, open, schema, options);
      return cases.golden(ort, open, schema, await json("golden.json"), {});
    },
    [work, options, requests],
  );
}

/** What a visitor does: search, choose, read. */
async function choose(page) {
  await page.goto(origin);
  await page.waitForSelector(ANSWERED);
  const seconds = [];
  for (const title of options.titles) {
    await page.fill("#search", title);
    const started = Date.now();
    await page.click("#matches button");
    await page.waitForSelector(ANSWERED);
    seconds.push((Date.now() - started) / 1000);
  }
  await page.screenshot({ path: options.screenshot });
  return {
    seconds,
    hits: await page.$$eval("#hits .title", (lines) => lines.map((line) => line.textContent)),
    chosen: await page.$$eval("#chosen button", (lines) => lines.map((line) => line.textContent)),
  };
}
