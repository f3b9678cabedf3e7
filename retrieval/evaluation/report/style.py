"""The report's style and script: light and dark, wide and narrow, nothing from the network."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #5c6876; --line: #e1e5ea;
  --own: #2563eb; --good: #047857; --good-back: #d9f5e8; --bad: #b91c1c; --bad-back: #fde4e4; --level: #92600a;
  --level-back: #fdf0d0; --mark: #fff3c4; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa6b5;
  --line: #2c3542; --own: #7aa8ff; --good: #5be0ab; --good-back: #0f3a2c; --bad: #ff9b9b; --bad-back: #47191c;
  --level: #f7cf73; --level-back: #41320d; --mark: #4a3f12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 72px; }
h1 { font-size: 15px; font-weight: 600; letter-spacing: .02em; color: var(--soft); margin: 0 0 12px;
  overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0 0 12px; }
.soft, .note { color: var(--soft); }
.note { font-size: 14px; margin: 0 0 14px; }
.verdict { font-size: clamp(20px, 2.6vw, 29px); line-height: 1.32; font-weight: 650; letter-spacing: -.012em;
  margin: 0 0 18px; text-wrap: balance; }
.badge { display: inline-block; font-size: 13px; font-weight: 650; border-radius: 999px; padding: 3px 12px;
  margin-bottom: 12px; }
.wins { color: var(--good); background: var(--good-back); }
.loses { color: var(--bad); background: var(--bad-back); }
.level, .alone { color: var(--level); background: var(--level-back); }
.facts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 0 0 26px; padding: 0; }
.facts div { font-size: 14px; color: var(--soft); }
.facts b { display: block; font-size: 19px; color: var(--ink); font-weight: 620; font-variant-numeric: tabular-nums; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 22px 22px 18px;
  margin-bottom: 18px; min-width: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; }
.pair > .card { margin-bottom: 0; }
.pair { margin-bottom: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 550; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--card); }
tr:last-child td { border-bottom: 0; }
tr.own td { font-weight: 620; color: var(--own); }
td.best { background: var(--mark); border-radius: 4px; }
.chart { width: 100%; }
.chart summary { display: none; }
.users { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 18px; }
.user { border: 1px solid var(--line); border-radius: 12px; padding: 16px; min-width: 0; }
.user .soft { font-size: 14px; margin: 2px 0 0; }
.user h4 { margin: 12px 0 4px; font-size: 12.5px; font-weight: 600; color: var(--soft); }
ol, ul { margin: 0; padding-left: 22px; font-size: 14px; }
ol li::marker { color: var(--soft); font-variant-numeric: tabular-nums; }
li { overflow-wrap: anywhere; }
.right { background: var(--mark); border-radius: 4px; padding: 0 4px; font-weight: 620; }
footer { color: var(--soft); font-size: 14px; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
#vg-tooltip-element { background: var(--card) !important; color: var(--ink) !important;
  border: 1px solid var(--line) !important; font: 13px system-ui, "DejaVu Sans", sans-serif !important; }
@media (max-width: 559px) {
  .card { padding: 18px 14px 14px; }
  table { font-size: 13.5px; }
  th, td { padding: 7px 6px; } }
@media print { .card, .user { break-inside: avoid; } }
"""

# Draws every chart with the page's own colours, and again when they change.
SCRIPT: Final = """
const narrow = innerWidth < 560;  // a phone: legends in fewer columns, smaller labels
const written = document.getElementById("specs").textContent;
const specs = JSON.parse(narrow ? written.replace(/"columns":[34]/g, '"columns":2') : written);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(name).trim();
  const font = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  const config = { background: "transparent", font, view: { stroke: null },
    axis: { labelColor: of("--soft"), titleColor: of("--soft"), gridColor: of("--line"), domainColor: of("--line"),
      tickColor: of("--line"), labelFontSize: narrow ? 10 : 12, titleFontSize: 12.5,
      titleFontWeight: 500, labelLimit: 150 },
    legend: { labelColor: of("--ink"), titleColor: of("--soft"), labelFontSize: 12.5, symbolSize: 90, labelLimit: 170 },
    bar: { discreteBandSize: { band: 0.9 } } };
  for (const [id, spec] of Object.entries(specs))
    vegaEmbed("#" + id, spec, { actions: false, renderer: "svg", config });
}
draw();
dark.addEventListener("change", draw);
"""
