/** The last hours as lines. */

import { bytes, count, duration, money } from "../model/format.js";
import { Spinner } from "../ui/parts.js";
import { html, useState } from "../vendor/preact.js";
import { valueTo } from "./parts.js";
import { history, hours } from "./store.js";

const WIDTH = 600;
const HEIGHT = 120;

/** @typedef {{ name: string, key: string }} Series */
/** @typedef {{ title: string, series: Series[], format: (value: number) => string }} ChartKind */

const seconds = (/** @type {number} */ value) => duration(value * 1000);
/** @type {ChartKind[]} */
const CHARTS = [
  {
    title: "Runs that ended",
    format: count,
    series: [
      ["finished", "finished"],
      ["failed", "failed"],
      ["cancelled", "cancelled"],
    ].map(named),
  },
  {
    title: "Load",
    format: count,
    series: [
      ["at work", "running"],
      ["wait for a worker", "ready"],
      ["not ended", "open"],
    ].map(named),
  },
  {
    title: "Latency, 95th percentile",
    format: seconds,
    series: [
      ["to the first start", "wait_s"],
      ["a model’s answer", "model_s"],
    ].map(named),
  },
  {
    title: "Time of a run, 95th percentile",
    format: seconds,
    series: [["from first start to end", "run_s"]].map(named),
  },
  { title: "Money", format: money, series: [["US dollars", "cost_usd"]].map(named) },
  { title: "Tokens", format: count, series: [["tokens", "tokens"]].map(named) },
  {
    title: "Requests",
    format: count,
    series: [
      ["answered", "requests"],
      ["with 5xx", "server_errors"],
    ].map(named),
  },
  { title: "Redis’s memory", format: bytes, series: [["bytes", "redis_bytes"]].map(named) },
];

/** @param {string[]} pair @returns {Series} */
function named([name, key]) {
  return { name, key };
}

export function Charts() {
  const found = history.value;
  return html`
    <div class="desk-bar"><label>The last <select value=${hours.value} onChange=${valueTo((value) => (hours.value = Number(value)))}>
      ${[1, 3, 6, 12].map((one) => html`<option key=${one} value=${one}>${one} h</option>`)}
    </select></label>
    ${found && html`<span class="quiet">one point is ${duration(found.step_ms)}</span>`}</div>
    ${!found && html`<p class="panel-empty"><${Spinner} /></p>`}
    <div class="charts">${found && CHARTS.map((kind) => html`<${Chart} key=${kind.title} kind=${kind} points=${found.items} />`)}</div>`;
}

/** @param {{ kind: ChartKind, points: any[] }} props */
function Chart({ kind, points }) {
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const values = kind.series.map(({ key }) => points.map((point) => point[key] ?? null));
  const top = Math.max(...values.flat().map((value) => value ?? 0), 0) || 1;
  const shown = at ?? points.length - 1;
  const onMove = (/** @type {PointerEvent} */ event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    const place = Math.round(((event.clientX - box.left) / box.width) * (points.length - 1));
    setAt(Math.min(points.length - 1, Math.max(0, place)));
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) setAt(Math.min(points.length - 1, Math.max(0, shown + step)));
  };
  return html`<figure class="chart">
    <figcaption>${kind.title} <span class="quiet">highest ${kind.format(top === 1 && !values.flat().some(Boolean) ? 0 : top)}</span></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${kind.title}: ${spoken(kind, points, shown)}`}
      tabindex="0" onPointerMove=${onMove} onPointerLeave=${() => setAt(null)} onKeyDown=${onKey} onBlur=${() => setAt(null)}>
      <path class="grid" d=${`M0 ${HEIGHT - 1}H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}`} />
      ${values.map((line, index) => html`<path key=${index} class=${`line line-${index}`} d=${path(line, top)} />`)}
      ${at !== null && html`<path class="cursor" d=${`M${x(at, points.length)} 0V${HEIGHT}`} />`}
    </svg>
    <p class="legend">${kind.series.map(
      ({ name, key }, index) =>
        html`<span key=${key}><span class=${`key line-${index}`}></span>${name} <b>${text(kind, points[shown]?.[key])}</b></span>`,
    )}<span class="quiet">${points[shown] ? time(points[shown].at) : ""}</span></p>
  </figure>`;
}

/** @param {(number | null)[]} line @param {number} top */
function path(line, top) {
  let isOpen = false;
  return line
    .map((value, index) => {
      if (value === null) {
        isOpen = false;
        return "";
      }
      const step = `${isOpen ? "L" : "M"}${x(index, line.length)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 6)).toFixed(1)}`;
      const dot = !isOpen && (line[index + 1] ?? null) === null ? "h-5" : ""; // else a lone value would be unseen
      isOpen = true;
      return step + dot;
    })
    .join("");
}

/** @param {number} index @param {number} length */
function x(index, length) {
  return ((index / Math.max(1, length - 1)) * WIDTH).toFixed(1);
}

/** @param {ChartKind} kind @param {number | null | undefined} value */
function text(kind, value) {
  return value === null || value === undefined ? "–" : kind.format(value);
}

/** @param {ChartKind} kind @param {any[]} points @param {number} index */
function spoken(kind, points, index) {
  if (!points[index]) return "nothing yet";
  return `${time(points[index].at)}: ${kind.series.map(({ name, key }) => `${name} ${text(kind, points[index][key])}`).join(", ")}`;
}

/** @param {number} at */
function time(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
