/** Runs of all tenants that have not ended: why they wait, what is wrong with them, and what can be done. */

import { duration, money } from "../model/format.js";
import { Chip } from "../ui/parts.js";
import { html } from "../vendor/preact.js";
import { checkedTo, Table, unseen, valueTo } from "./parts.js";
import { act, asked, filter, overview, pick, picked, runs } from "./store.js";

const RUN_HEADS = ["Run", "Tenant", "State", "Age", "Turn", "Cost", "Task", unseen("Actions")];

/** What each mark means, for those who point at it. @type {Record<string, string>} */
const TROUBLES = {
  lease_lost: "Its worker is silent; it is taken over in a moment.",
  silent: "At work without an event for five minutes.",
  retried: "A worker died while it worked on it.",
  set_apart: "It may have killed its workers; such runs go on one at a time.",
  overdue: "It waits although there is room.",
  not_cancelled: "Its worker does not obey a cancel.",
};

export function Runs() {
  const page = runs.value;
  const items = page?.items ?? [];
  const heads = [html`<${All} />`, ...RUN_HEADS];
  return html`
    <${Filter} />
    ${page && !items.length && html`<p class="panel-empty">No such run is open.</p>`}
    ${
      items.length > 0 &&
      html`<${Table} label="Open runs" heads=${heads}>${items.map((one) => html`<${Row} key=${one.run.run_id} one=${one} />`)}<//>`
    }
    ${page?.next_cursor && html`<p class="quiet">There are more; narrow down what is shown.</p>`}`;
}

/** Chooses all runs that are shown, or none. */
function All() {
  const ids = (runs.value?.items ?? []).map((one) => one.run.run_id);
  const isOn = ids.every((id) => picked.value.has(id));
  return html`<input type="checkbox" aria-label="Choose all that are shown" checked=${isOn}
    onChange=${() => (picked.value = new Set(isOn ? [] : ids))} />`;
}

function Filter() {
  const now = filter.value;
  const change = (/** @type {object} */ more) => (filter.value = { ...now, ...more });
  const tenants = overview.value?.tenants ?? [];
  return html`<div class="desk-bar">
    <label>Tenant <select value=${now.tenant} onChange=${valueTo((tenant) => change({ tenant }))}>
      <option value="">all</option>
      ${tenants.map((/** @type {any} */ one) => {
        const open = one.queued + one.running + one.waiting;
        return html`<option key=${one.tenant} value=${one.tenant}>${one.tenant} (${open})</option>`;
      })}
    </select></label>
    <label>State <select value=${now.status} onChange=${valueTo((status) => change({ status }))}>
      ${["", "running", "queued", "waiting"].map((name) => html`<option key=${name} value=${name}>${name || "all"}</option>`)}
    </select></label>
    <label><input type="checkbox" checked=${now.in_trouble}
      onChange=${checkedTo((isOn) => change({ in_trouble: isOn }))} /> only those in trouble</label>
    <button type="button" class="danger" disabled=${!picked.value.size}
      onClick=${() => (asked.value = { kind: "cancel", runIds: [...picked.value] })}>Cancel ${picked.value.size || ""} chosen</button>
  </div>`;
}

/** @param {{ one: any }} props */
function Row({ one }) {
  const { run } = one;
  const now = overview.value?.at ?? Date.now();
  const requeue = () => act(`runs/${run.run_id}/requeue`, undefined, "The run goes on elsewhere.");
  const isIdle = run.status === "waiting" || run.waiting_for === "thread";
  return html`<tr>
    <td><input type="checkbox" aria-label=${`Choose ${run.run_id}`} checked=${picked.value.has(run.run_id)} onChange=${() => pick(run.run_id)} /></td>
    <td><code title=${run.run_id}>${run.run_id}</code></td>
    <td>${run.tenant}</td>
    <td>${run.status}${run.cancel_requested && " (cancelling)"} <span class="quiet">${one.why || run.owner}</span>
      ${one.trouble.map((/** @type {string} */ name) => {
        const words = name.replaceAll("_", " ");
        return html` <${Chip} key=${name} tone="bad" title=${TROUBLES[name]}>${words}<//>`;
      })}</td>
    <td class="number">${duration(now - run.created_at)}</td>
    <td class="number">${run.turn}${run.attempt > 1 && ` (attempt ${run.attempt})`}</td>
    <td class="number">${money(run.usage.cost_usd)}</td>
    <td class="task" title=${run.task.slice(0, 1000)}>${run.task.slice(0, 200)}</td>
    <td><button type="button" disabled=${isIdle} onClick=${requeue}>Requeue</button></td>
  </tr>`;
}
