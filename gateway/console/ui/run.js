/** One run in figures: where its time and money went, turn by turn. */

import { count, duration, money, plural, tokens } from "../model/format.js";
import { linkTo } from "../store.js";
import { html, useState } from "../vendor/preact.js";
import { Elapsed } from "./parts.js";
import { leftText } from "./status.js";

/** @typedef {import("../model/types.js").RunView} RunView */
/** @typedef {import("../model/types.js").TimedTurn} TimedTurn */

/** @param {{ open: { id: string, view: import("../model/thread_view.js").ThreadView } }} props */
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
    <${Timeline} run=${run} threadId=${open.id} />
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
    ["Left", leftText(run.left) || "–"],
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
    ["Configuration", run.configHash ? html`<code>${run.configHash}</code>` : "–"],
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

/** @param {{ run: RunView, threadId: string }} props */
function Timeline({ run, threadId }) {
  const turns = run.turns.filter((turn) => turn.modelMs || turn.calls.length);
  if (!turns.length) return null;
  const longest = Math.max(...turns.map((turn) => turn.modelMs + toolMs(turn)), 1);
  const model = turns.reduce((sum, turn) => sum + turn.modelMs, 0);
  const tool = turns.reduce((sum, turn) => sum + toolMs(turn), 0);
  return html`<section><h2>Time by turn</h2>
    <p class="legend"><span class="key key-model"></span>model ${duration(model)} <span class="key key-tool"></span>tools ${duration(tool)}</p>
    <ol class="timeline">${turns.map(
      (turn) => html`<li key=${turn.turn}><a href=${linkTo(threadId, turn.id)} title=${turnText(turn)}>
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
    </a></li>`,
    )}</ol>
  </section>
  <${ByTool} turns=${turns} />`;
}

/** How often each tool was used, and how long that took, longest first. @param {{ turns: TimedTurn[] }} props */
function ByTool({ turns }) {
  /** @type {Map<string, { tool: string, calls: number, failed: number, ms: number }>} */
  const tools = new Map();
  for (const call of turns.flatMap((turn) => turn.calls)) {
    const row = tools.get(call.tool) ?? { tool: call.tool, calls: 0, failed: 0, ms: 0 };
    tools.set(call.tool, {
      ...row,
      calls: row.calls + 1,
      failed: row.failed + Number(!call.ok),
      ms: row.ms + call.ms,
    });
  }
  if (!tools.size) return null;
  const rows = [...tools.values()].sort((a, b) => b.ms - a.ms);
  return html`<section><h2>Time by tool</h2>
    <table class="by-tool">
      <thead><tr><th scope="col">Tool</th><th scope="col">Calls</th><th scope="col">Failed</th><th scope="col">Time</th></tr></thead>
      <tbody>${rows.map(
        (row) => html`<tr key=${row.tool}><th scope="row">${row.tool}</th>
        <td>${row.calls}</td><td class=${row.failed ? "bad" : ""}>${row.failed || "–"}</td><td>${duration(row.ms)}</td></tr>`,
      )}</tbody>
    </table>
  </section>`;
}

/** @param {TimedTurn} turn */
function toolMs(turn) {
  return turn.calls.reduce((sum, call) => sum + call.ms, 0);
}

/** @param {TimedTurn} turn */
function turnText(turn) {
  const calls = turn.calls.map((call) => `${call.tool} ${duration(call.ms)}${call.ok ? "" : " (failed)"}`);
  return [`Turn ${turn.turn}: ${turn.model || "model"} ${duration(turn.modelMs)}`, ...calls].join(", ");
}
