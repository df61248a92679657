/** Beside the conversation: the plan, the workspace, and the run with its times and costs. */

import { factTick, panel, thread } from "../store.js";
import { html } from "../vendor/preact.js";
import { Files } from "./files.js";
import { IconButton } from "./parts.js";
import { Plan } from "./plan.js";
import { Run } from "./run.js";

const TABS = /** @type {const} */ ([
  { name: "plan", label: "Plan", view: Plan },
  { name: "files", label: "Files", view: Files },
  { name: "run", label: "Run", view: Run },
]);

export function Inspector() {
  const open = thread.value;
  const chosen = TABS.find((tab) => tab.name === panel.value);
  if (!open || !chosen) return null;
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(TABS.indexOf(chosen) + step + TABS.length) % TABS.length];
    panel.value = next.name;
    document.getElementById(`tab-${next.name}`)?.focus();
  };
  // A component with state of its own is drawn again only when a property differs, and `open` stays the same.
  return html`<aside class="inspector" aria-label="Plan, files and run">
    <div class="tabs">
      <div role="tablist" aria-label="What to show" onKeyDown=${onKey}>${TABS.map(
        (tab) => html`<button key=${tab.name} type="button" role="tab" id=${`tab-${tab.name}`} aria-controls="panel"
        aria-selected=${tab === chosen} tabindex=${tab === chosen ? 0 : -1} onClick=${() => (panel.value = tab.name)}>${tab.label}</button>`,
      )}</div>
      <${IconButton} icon="cross" label="Close" onClick=${() => (panel.value = "")} />
    </div>
    <div class="panel" id="panel" role="tabpanel" aria-labelledby=${`tab-${chosen.name}`} tabindex="0">
      <${chosen.view} open=${open} rev=${factTick.value} />
    </div>
  </aside>`;
}
