/** Runs of all tenants that have not ended: why they wait, what is wrong with them, and what can be done. */

import { duration, money } from "../model/format.js";
import { Chip } from "../ui/parts.js";
import { html } from "../vendor/preact.js";
import { act, asked, filter, overview, pick, picked, runs } from "./store.js";

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
  return html`
    <${Filter} />
    ${page && !items.length && html`<p class="panel-empty">No such run is open.</p>`}
    ${
      items.length > 0 &&
      html`<div class="table-frame" tabindex="0" role="region" aria-label="Open runs"><table>
      <thead><tr><th><span class="sr">Chosen</span></th><th>Run</th><th>Tenant</th><th>State</th><th>Age</th><th>Turn</th><th>Cost</th><th>Task</th><th><span class="sr">Actions</span></th></tr></thead>
      <tbody>${items.map((one) => html`<${Row} key=${one.run.run_id} one=${one} />`)}</tbody>
    </table></div>`
    }
    ${page?.next_cursor && html`<p class="quiet">There are more; narrow down what is shown.</p>`}`;
}

function Filter() {
  const now = filter.value;
  const change = (/** @type {object} */ more) => (filter.value = { ...now, ...more });
  const tenants = overview.value?.tenants ?? [];
  return html`<div class="desk-bar">
    <label>Tenant <select value=${now.tenant} onChange=${(/** @type {any} */ event) => change({ tenant: event.target.value })}>
      <option value="">all</option>
      ${tenants.map((/** @type {any} */ one) => html`<option key=${one.tenant} value=${one.tenant}>${one.tenant} (${one.queued + one.running + one.waiting})</option>`)}
    </select></label>
    <label>State <select value=${now.status} onChange=${(/** @type {any} */ event) => change({ status: event.target.value })}>
      ${["", "running", "queued", "waiting"].map((name) => html`<option key=${name} value=${name}>${name || "all"}</option>`)}
    </select></label>
    <label><input type="checkbox" checked=${now.in_trouble} onChange=${(/** @type {any} */ event) => change({ in_trouble: event.target.checked })} /> only those in trouble</label>
    <button type="button" class="danger" disabled=${!picked.value.size}
      onClick=${() => (asked.value = { kind: "cancel", runIds: [...picked.value] })}>Cancel ${picked.value.size || ""} chosen</button>
  </div>`;
}

/** @param {{ one: any }} props */
function Row({ one }) {
  const { run } = one;
  const now = overview.value?.at ?? Date.now();
  const isIdle = run.status === "waiting" || run.waiting_for === "thread";
  return html`<tr>
    <td><input type="checkbox" aria-label=${`Choose ${run.run_id}`} checked=${picked.value.has(run.run_id)} onChange=${() => pick(run.run_id)} /></td>
    <td><code title=${run.run_id}>${run.run_id}</code></td>
    <td>${run.tenant}</td>
    <td>${run.status}${run.cancel_requested && " (cancelling)"} <span class="quiet">${one.why || run.owner}</span>
      ${one.trouble.map((/** @type {string} */ name) => html` <${Chip} key=${name} tone="bad" title=${TROUBLES[name]}>${name.replaceAll("_", " ")}<//>`)}</td>
    <td class="number">${duration(now - run.created_at)}</td>
    <td class="number">${run.turn}${run.attempt > 1 && ` (attempt ${run.attempt})`}</td>
    <td class="number">${money(run.usage.cost_usd)}</td>
    <td class="task" title=${run.task.slice(0, 1000)}>${run.task.slice(0, 200)}</td>
    <td><button type="button" disabled=${isIdle} onClick=${() => act(`runs/${run.run_id}/requeue`, undefined, "The run goes on elsewhere.")}>Requeue</button></td>
  </tr>`;
}
