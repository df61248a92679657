/** One run in figures: where its time and money went, turn by turn. */

import { count, duration, money, plural, tokens } from "../model/format.js";
import { html, useState } from "../vendor/preact.js";
import { Elapsed } from "./parts.js";

/** @typedef {import("../model/types.js").RunView} RunView */

/** @param {{ open: { view: import("../model/thread_view.js").ThreadView } }} props */
export function Run({ open }) {
  const runs = [...open.view.runs.values()].reverse();
  const [chosen, setChosen] = useState("");
  const run = runs.find((one) => one.runId === chosen) ?? open.view.activeRun;
  if (!run) return html`<p class="panel-empty">Times and costs of the runs appear here.</p>`;
  return html`
    ${
      runs.length > 1 &&
      html`<label class="run-choice"><span class="sr">Run</span>
      <select value=${run.runId} onChange=${(/** @type {any} */ event) => setChosen(event.target.value)}>
        ${runs.map((one) => html`<option key=${one.runId} value=${one.runId}>${one.status} · ${one.task.slice(0, 60)}</option>`)}
      </select></label>`
    }
    <${Figures} run=${run} sandbox=${open.view.sandbox} />
    <${Timeline} run=${run} />
  `;
}

/** @param {{ run: RunView, sandbox: any }} props */
function Figures({ run, sandbox }) {
  const { usage } = run;
  const cached =
    usage && tokens(usage)
      ? Math.round(
          (usage.cache_read_tokens /
            Math.max(1, usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)) *
            100,
        )
      : 0;
  const left = Object.entries(run.left).filter(([, value]) => typeof value === "number");
  const rows = [
    ["State", html`${run.status}${run.reason && html` <span class="quiet">${run.reason}</span>`}`],
    [
      "Time",
      run.endedAt
        ? duration(run.endedAt - (run.startedAt || run.queuedAt))
        : html`<${Elapsed} from=${run.startedAt || run.queuedAt} />`,
    ],
    ["Waited", run.startedAt ? duration(run.startedAt - run.queuedAt) : "still waiting"],
    ["Turns", run.turn || "–"],
    ["Tokens", usage ? html`<span title=${usageText(usage)}>${tokens(usage).toLocaleString("en")}</span>` : "–"],
    ["Cached", usage && cached ? `${cached} % of the prompt` : "–"],
    ["Cost", usage ? money(usage.cost_usd) : "–"],
    ["Left", left.length ? left.map(([name, value]) => leftText(name, value)).join(" · ") : "–"],
    ["Model", run.model || "–"],
    [
      "Sandbox",
      run.sandbox
        ? html`${run.sandbox}${sandbox && html` <span class="quiet">network ${sandbox.network}</span>`}`
        : "–",
    ],
    [
      "Worker",
      html`${run.worker || "–"}${run.attempt > 1 && html` <span class="quiet">attempt ${run.attempt}</span>`}`,
    ],
    ["Run", html`<code>${run.runId}</code>`],
  ];
  return html`<section><h2>Run</h2>
    <dl class="figures">${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${
      sandbox?.gaps?.length > 0 &&
      html`<details class="gaps"><summary>${plural(sandbox.gaps.length, "thing")} this sandbox does not guarantee</summary>
      <ul>${sandbox.gaps.map((/** @type {string} */ gap) => html`<li key=${gap}>${gap}</li>`)}</ul></details>`
    }
  </section>`;
}

/** @param {import("../model/types.js").Usage} usage */
function usageText(usage) {
  const { input_tokens: read, cache_read_tokens: cached, cache_write_tokens: kept, output_tokens: written } = usage;
  return `${count(read)} read, ${count(cached)} from cache, ${count(kept)} into cache, ${count(written)} written`;
}

/** @param {string} name @param {number} value */
function leftText(name, value) {
  if (name === "usd") return money(value);
  if (name === "seconds") return duration(value * 1000);
  return `${count(value)} ${name}`;
}

/** @param {{ run: RunView }} props */
function Timeline({ run }) {
  const turns = run.turns.filter((turn) => turn.modelMs || turn.calls.length);
  if (!turns.length) return null;
  const longest = Math.max(...turns.map((turn) => turn.modelMs + toolMs(turn)), 1);
  const model = turns.reduce((sum, turn) => sum + turn.modelMs, 0);
  const tool = turns.reduce((sum, turn) => sum + toolMs(turn), 0);
  return html`<section><h2>Time by turn</h2>
    <p class="legend"><span class="key key-model"></span>model ${duration(model)} <span class="key key-tool"></span>tools ${duration(tool)}</p>
    <ol class="timeline">${turns.map(
      (turn) => html`<li key=${turn.turn} title=${turnText(turn)}>
      <span class="turn-number">${turn.turn}</span>
      <span class="turn-bars">
        <span class="turn-model" style=${{ width: `${(turn.modelMs / longest) * 100}%` }}></span>
        ${turn.calls.map(
          (call) => html`<span key=${call.callId} class=${call.ok ? "turn-tool" : "turn-tool is-bad"}
            style=${{ width: `${(call.ms / longest) * 100}%` }}></span>`,
        )}
      </span>
      <span class="turn-time">${duration(turn.modelMs + toolMs(turn))}</span>
      <span class="sr">${turnText(turn)}</span>
    </li>`,
    )}</ol>
  </section>`;
}

/** @param {import("../model/types.js").TimedTurn} turn */
function toolMs(turn) {
  return turn.calls.reduce((sum, call) => sum + call.ms, 0);
}

/** @param {import("../model/types.js").TimedTurn} turn */
function turnText(turn) {
  const calls = turn.calls.map((call) => `${call.tool} ${duration(call.ms)}${call.ok ? "" : " (failed)"}`);
  return [`Turn ${turn.turn}: model ${duration(turn.modelMs)}`, ...calls].join(", ");
}
