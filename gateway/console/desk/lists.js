/** What models' calls cost, notices that nobody took, and tenants. */

import { count, money } from "../model/format.js";
import { Spinner, Time } from "../ui/parts.js";
import { html } from "../vendor/preact.js";
import { Table, unseen, valueTo } from "./parts.js";
import { act, asked, blocked, costs, days, dead, overview } from "./store.js";

const COST_HEADS = ["Tenant", "Model", "Cost", "Tokens", "Calls"];
const NOTICE_HEADS = ["Given up", "Tenant", "Event", "Address", "Attempts", "Result", unseen("Actions")];
const TENANT_HEADS = ["Tenant", "At work", "Queued", "Wait for a person", "Blocked", unseen("Actions")];

export function Costs() {
  const found = costs.value;
  return html`
    <div class="desk-bar"><label>Days (UTC) <select value=${days.value} onChange=${valueTo((value) => (days.value = Number(value)))}>
      ${[1, 2, 7, 31].map((one) => html`<option key=${one} value=${one}>${one === 1 ? "today" : one}</option>`)}
    </select></label>${found && html`<b>${money(found.total_usd)}</b>`}</div>
    ${!found && html`<p class="panel-empty"><${Spinner} /></p>`}
    ${found && !found.items.length && html`<p class="panel-empty">No model was called.</p>`}
    ${
      found?.items.length > 0 &&
      html`<${Table} label="Costs" heads=${COST_HEADS}>${found.items.map(
        (/** @type {any} */ one) => html`<tr key=${`${one.tenant} ${one.model}`}>
        <td>${one.tenant}</td><td>${one.model}</td><td class="number">${money(one.usd)}</td>
        <td class="number">${count(one.tokens)}</td><td class="number">${one.calls.toLocaleString("en")}</td></tr>`,
      )}<//>`
    }
    ${found?.next_cursor && html`<p class="quiet">The 200 dearest are shown.</p>`}`;
}

export function Webhooks() {
  const found = dead.value;
  if (!found) return html`<p class="panel-empty"><${Spinner} /></p>`;
  if (!found.items.length) return html`<p class="panel-empty">Every notice was delivered or is on its way.</p>`;
  return html`<${Table} label="Dead webhooks" heads=${NOTICE_HEADS}>${found.items.map(
    (/** @type {any} */ one) => html`<tr key=${one.id}>
      <td><${Time} at=${one.died_at} /></td><td>${one.tenant}</td><td>${one.type} <code>${one.run_id}</code></td><td>${one.url}</td>
      <td class="number">${one.attempts}</td><td>${one.result}</td>
      <td><button type="button" onClick=${() => act(`webhooks/${one.id}/replay`, undefined, "The notice is delivered again.")}>Replay</button></td>
    </tr>`,
  )}<//>`;
}

export function Tenants() {
  const queues = overview.value.tenants;
  /** @type {any[]} */
  const blocks = blocked.value?.items ?? [];
  const names = [...new Set([...blocks, ...queues].map((one) => one.tenant))];
  return html`
    <div class="desk-bar"><button type="button" onClick=${() => (asked.value = { kind: "block", tenant: "" })}>Block a tenant</button></div>
    ${!names.length && html`<p class="panel-empty">No tenant has an open run, and none is blocked.</p>`}
    ${
      names.length > 0 &&
      html`<${Table} label="Tenants" heads=${TENANT_HEADS}>${names.map((name) => {
        const queue = queues.find((/** @type {any} */ one) => one.tenant === name) ?? {
          running: 0,
          queued: 0,
          waiting: 0,
        };
        return html`<${Tenant} key=${name} name=${name} queue=${queue} block=${blocks.find((one) => one.tenant === name)} />`;
      })}<//>`
    }`;
}

/** @param {{ name: string, queue: any, block: any }} props */
function Tenant({ name, queue, block }) {
  return html`<tr>
    <td>${name}</td><td class="number">${queue.running}</td><td class="number">${queue.queued}</td><td class="number">${queue.waiting}</td>
    <td>${block && html`${block.reason} <span class="quiet">by ${block.by}</span>`}</td>
    <td>${
      block
        ? html`<button type="button" onClick=${() => act("tenants/unblock", { tenant: name }, "The tenant may start runs again.")}>Unblock</button>`
        : html`<button type="button" onClick=${() => (asked.value = { kind: "block", tenant: name })}>Block</button>`
    }</td>
  </tr>`;
}
