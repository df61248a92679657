/** The page: how it stands on top, one table or chart sheet below, what is asked before an action over it. */

import { bytes, duration } from "../model/format.js";
import { isSignedOut } from "../store.js";
import { SignIn } from "../ui/dialogs.js";
import { ThemeButton } from "../ui/header.js";
import { Logo } from "../ui/icons.js";
import { IconButton, Spinner, Toast } from "../ui/parts.js";
import { html, useEffect } from "../vendor/preact.js";
import { Charts } from "./charts.js";
import { Asked } from "./dialogs.js";
import { Costs, Tenants, Webhooks } from "./lists.js";
import { Processes } from "./processes.js";
import { Runs } from "./runs.js";
import { asked, overview, problem, refresh, reload, TABS, tab } from "./store.js";

/** @type {Record<import("./store.js").Tab, { label: string, view: any }>} */
const VIEWS = {
  runs: { label: "Runs", view: Runs },
  processes: { label: "Processes", view: Processes },
  charts: { label: "Charts", view: Charts },
  costs: { label: "Costs", view: Costs },
  webhooks: { label: "Webhooks", view: Webhooks },
  tenants: { label: "Tenants", view: Tenants },
};

export function Desk() {
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  if (isSignedOut.value) return html`<${SignIn} />`;
  const { view, label } = VIEWS[tab.value];
  return html`<div class="desk">
    <header class="desk-head">
      <a class="brand-link" href="/" aria-label="Dialtone"><${Logo} /><span>Dialtone</span></a>
      <h1>Operator’s desk</h1>
      <span class="header-tools">
        <${IconButton} icon="settings" label="Reload the configuration" onClick=${reload} />
        <${IconButton} icon="refresh" label="Ask again (r)" onClick=${refresh} />
        <${ThemeButton} />
      </span>
    </header>
    ${problem.value && html`<p class="desk-problem" role="alert">${problem.value}</p>`}
    <${Glance} />
    <nav class="desk-tabs" aria-label="What to show">
      ${TABS.map(
        (name, index) => html`<a key=${name} href=${`#/${name}`} title=${`Key ${index + 1}`}
        aria-current=${name === tab.value ? "page" : undefined}>${VIEWS[name].label}</a>`,
      )}
    </nav>
    <main class="desk-main" aria-label=${label}>${overview.value ? html`<${view} />` : !problem.value && html`<${Spinner} />`}</main>
    <${Asked} />
    ${!asked.value && html`<${Toast} />`}
  </div>`;
}

/** The numbers that one looks at first. */
function Glance() {
  const seen = overview.value;
  if (!seen) return null;
  const { runs, redis, workers } = seen;
  const places = workers.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.concurrency, 0);
  const drained = workers.filter((/** @type {any} */ one) => one.draining).length;
  const full = redis.limit_bytes ? ` of ${bytes(redis.limit_bytes)}` : "";
  const tiles = [
    ["At work", runs.running, `of ${places} places`, false],
    [
      "Wait for a worker",
      runs.ready,
      runs.ready ? `longest ${duration(runs.oldest_ready_s * 1000)}` : "",
      runs.oldest_ready_s > 30,
    ],
    ["Wait for a person", runs.waiting, "", false],
    [
      "Workers",
      workers.length,
      drained ? `${drained} take no runs` : "",
      workers.length === 0 || drained === workers.length,
    ],
    ["Gateways", seen.gateways.length, "", false],
    ["Dead webhooks", seen.webhooks_dead, `${seen.webhooks_due} on their way`, seen.webhooks_dead > 0],
    ["Redis", bytes(redis.memory_bytes), redis.persists ? full : "does not persist", !redis.persists],
    ["Blocked tenants", seen.blocked_tenants, "", false],
  ];
  return html`<dl class="glance">${tiles.map(
    ([name, value, note, isBad]) => html`<div key=${name} class=${isBad ? "is-bad" : ""}>
    <dt>${name}</dt><dd><b>${value}</b> <span class="quiet">${note}</span></dd>
  </div>`,
  )}</dl>`;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isTyping = event.target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || asked.value) return;
  const chosen = TABS[Number(event.key) - 1];
  if (chosen) location.hash = `#/${chosen}`;
  else if (event.key === "r") void refresh();
}
