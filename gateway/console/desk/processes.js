/** Workers, gateways and Redis. */

import { bytes, duration } from "../model/format.js";
import { Chip } from "../ui/parts.js";
import { html } from "../vendor/preact.js";
import { Table, unseen } from "./parts.js";
import { act, asked, overview } from "./store.js";

const WORKER_HEADS = [
  "Worker",
  "Runs",
  "Loop lag",
  "Memory",
  "Sandboxes",
  "Free disk",
  "Model",
  "Configuration",
  "Up",
  unseen("Actions"),
];
const GATEWAY_HEADS = ["Gateway", "Streams", "Loop lag", "Memory", "Configuration", "Up"];

export function Processes() {
  const { workers, gateways, redis, hints, runs, at } = overview.value;
  return html`
    <section><h2>Workers</h2>
      ${!workers.length && html`<p class="panel-empty">No worker is alive. Runs are accepted and wait.</p>`}
      ${
        workers.length > 0 &&
        html`<${Table} label="Workers" heads=${WORKER_HEADS}>
          ${workers.map((/** @type {any} */ one) => html`<${Worker} key=${one.worker} one=${one} at=${at} />`)}
        <//>`
      }
    </section>
    <section><h2>Gateways</h2><${Table} label="Gateways" heads=${GATEWAY_HEADS}>${gateways.map(
      (/** @type {any} */ one) => html`<tr key=${one.gateway}>
        <td><code>${one.gateway}</code></td><td class="number">${one.streams}</td><td class="number">${one.loop_lag_ms} ms</td>
        <td class="number">${bytes(one.memory_bytes)}</td><td><${Configuration} config=${one.config} /></td>
        <td class="number">${duration(at - one.started_at)}</td>
      </tr>`,
    )}<//></section>
    <section><h2>Redis and queues</h2><dl class="figures">
      ${[
        ["Version", redis.version],
        [
          "Memory",
          `${bytes(redis.memory_bytes)} (at most ${bytes(redis.peak_bytes)} so far; limit ${redis.limit_bytes ? bytes(redis.limit_bytes) : "none"})`,
        ],
        ["Keys", redis.keys.toLocaleString("en")],
        ["Clients", redis.clients],
        ["Commands", `${redis.commands_per_s} a second`],
        ["Persists", redis.persists ? "yes" : "no: a crash loses what it holds"],
        ["Up", duration(redis.uptime_s * 1000)],
        ["Hints", `${hints} that no worker has taken yet`],
        ["Set apart", `${runs.set_apart} runs that may have killed their worker`],
      ].map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl></section>`;
}

/** @param {{ one: any, at: number }} props */
function Worker({ one, at }) {
  const state = one.drained_by ? `drained by ${one.drained_by}` : "stopping";
  const share = one.disk_bytes ? one.disk_free_bytes / one.disk_bytes : 1;
  const wake = () =>
    act(`workers/${encodeURIComponent(one.worker)}/undrain`, undefined, "The worker takes runs again.");
  return html`<tr>
    <td><code>${one.worker}</code> ${one.draining && html`<${Chip} tone="bad">${state}<//>`}</td>
    <td class="number">${one.running} of ${one.concurrency}</td>
    <td class="number">${one.loop_lag_ms} ms</td>
    <td class="number">${bytes(one.memory_bytes)}</td>
    <td>${one.sandboxes} <span class="quiet" title=${one.sandbox_gaps.join("\n")}>${one.sandbox}</span></td>
    <td class=${`number ${share < 0.1 ? "bad" : ""}`}>${bytes(one.disk_free_bytes)}</td>
    <td>${one.model}</td>
    <td><${Configuration} config=${one.config} /></td>
    <td class="number">${duration(at - one.started_at)}</td>
    <td>${
      one.drained_by
        ? html`<button type="button" onClick=${wake}>Undrain</button>`
        : html`<button type="button" disabled=${one.draining} onClick=${() => (asked.value = { kind: "drain", worker: one.worker })}>Drain</button>`
    }</td>
  </tr>`;
}

/** @param {{ config: any }} props */
export function Configuration({ config }) {
  const keys = config.need_restart;
  return html`<code>${config.hash}</code>
    ${keys.length > 0 && html` <${Chip} tone="bad" title=${keys.join("\n")}>needs a restart: ${keys.join(", ")}<//>`}
    ${config.problem && html` <${Chip} tone="bad" title=${config.problem}>config.toml does not hold<//>`}`;
}
