/** What the run does now, how long it takes, what it costs, and how to stop it. */

import { budget, count, money, tokens } from "../model/format.js";
import { api, attempt, panel, thread, tick } from "../store.js";
import { html, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { Elapsed, Spinner } from "./parts.js";

/** @typedef {import("../model/types.js").RunView} RunView */

export function StatusBar() {
  void tick.value;
  const open = thread.value;
  const run = open?.view.activeRun;
  if (!open || !run || (run.status !== "running" && run.status !== "queued")) return null;
  const waiting = [...open.view.runs.values()].filter((one) => one.status === "queued" && one !== run).length;
  const steps = run.plan.length ? run.plan : [];
  const done = steps.filter((step) => step.status === "done" || step.status === "dropped").length;
  return html`<div class="status" role="group" aria-label="The run">
    <${Spinner} />
    <span class="status-text">${activity(open.view, run)}</span>
    ${waiting > 0 && html`<span class="quiet">${waiting} queued</span>`}
    <span class="status-facts">
      ${
        steps.length > 0 &&
        html`<button type="button" class="progress" onClick=${() => (panel.value = "plan")} title="Show the plan">
        <${Bar} done=${done} total=${steps.length} />${done}/${steps.length}</button>`
      }
      ${run.usage && html`<span class="spent" title=${leftText(run.left)}>${spentText(run)}</span>`}
      <${Elapsed} from=${run.startedAt || run.queuedAt} />
    </span>
    <${Cancel} key=${run.runId} runId=${run.runId} />
  </div>`;
}

/** @param {{ done: number, total: number }} props */
export function Bar({ done, total }) {
  return html`<span class="bar" aria-hidden="true"><span style=${{ width: `${total ? (done / total) * 100 : 0}%` }}></span></span>`;
}

/** @param {{ runId: string }} props */
function Cancel({ runId }) {
  const [isAsked, setAsked] = useState(false);
  const cancel = async () => {
    setAsked(true);
    if (!(await attempt(() => api.cancel(runId, "cancelled in the console")))) setAsked(false);
  };
  return html`<button type="button" class="cancel" disabled=${isAsked} onClick=${cancel}>
    <${Icon} name="stop" size=${14} />${isAsked ? "Cancelling…" : "Cancel"}
  </button>`;
}

/** What the run has used, and how much money it may still use. @param {RunView} run */
function spentText({ usage, left }) {
  const facts = [`${count(tokens(usage))} tokens`];
  if (usage?.cost_usd) facts.push(money(usage.cost_usd));
  if (usage?.cost_usd && typeof left.usd === "number") facts.push(`${money(left.usd)} left`);
  return facts.join(" · ");
}

/** What is left of a run's budgets; "" when there are none. @param {Record<string, number>} left */
export function leftText(left) {
  const facts = Object.entries(left).filter(([, value]) => typeof value === "number");
  return facts.map(([name, value]) => budget(name, value)).join(" · ");
}

/** In a few words what goes on. @param {import("../model/thread_view.js").ThreadView} view @param {RunView} run */
function activity(view, run) {
  if (run.status === "queued") {
    const ahead = run.position ? `, ${run.position} before it` : "";
    return `Waiting${run.waitingFor ? ` for ${run.waitingFor}` : ""}${ahead}`;
  }
  if (run.waitingFor) return `Waiting for ${run.waitingFor}`;
  const block = view.chunks
    .slice(-3)
    .flatMap((chunk) => chunk.blocks)
    .findLast(isUnfinished);
  if (block?.kind === "question") return "Waiting for your answer";
  if (block?.kind === "message") return block.text ? "Writing" : "Thinking";
  if (block?.kind === "tool") return block.isPreparing ? "Preparing a tool call" : `Running ${block.tool}`;
  return "Working";
}

/** @param {import("../model/types.js").Block} block */
function isUnfinished(block) {
  if (block.isHidden) return false;
  if (block.kind === "question") return !block.answer && !block.isClosed;
  if (block.kind === "message") return !block.isDone;
  return block.kind === "tool" && !block.result && !block.isAbandoned && block.tool !== "ask_person";
}
