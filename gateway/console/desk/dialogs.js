/** What is asked before an action, and what a reload brought. */

import { plural } from "../model/format.js";
import { say } from "../store.js";
import { Modal, Question } from "../ui/dialogs.js";
import { Spinner } from "../ui/parts.js";
import { html, useState } from "../vendor/preact.js";
import { checkedTo, valueTo } from "./parts.js";
import { Configuration } from "./processes.js";
import { act, asked, cancelRuns, picked, refresh, send } from "./store.js";

export function Asked() {
  const open = asked.value;
  const close = () => (asked.value = null);
  if (open?.kind === "drain") return html`<${Drain} worker=${open.worker} close=${close} />`;
  if (open?.kind === "cancel") return html`<${Cancel} runIds=${open.runIds} close=${close} />`;
  if (open?.kind === "block") return html`<${Block} tenant=${open.tenant} close=${close} />`;
  if (open?.kind === "reload")
    return html`<${Modal} title="Configuration" close=${close} wide>
      ${
        open.items
          ? html`<ul class="reload">${open.items.map(
              (/** @type {any} */ one) => html`<li key=${one.process}>${one.kind} <code>${one.process}</code>:
              ${one.answered ? html`<${Configuration} config=${one.config} />` : html`<b class="bad">did not answer</b>`}</li>`,
            )}</ul>`
          : html`<p class="panel-empty"><${Spinner} /> Every process reads it again …</p>`
      }
    <//>`;
  return null;
}

/** @param {{ worker: string, close: () => void }} props */
function Drain({ worker, close }) {
  const [handOver, setHandOver] = useState(false);
  const path = `workers/${encodeURIComponent(worker)}/drain`;
  return html`<${Question} title="Drain this worker?" action="Drain" close=${close}
    text=${html`<code>${worker}</code> takes no more runs until you undrain it. Those it has end there.`}
    onSubmit=${() => act(path, { hand_over: handOver }, "The worker takes no more runs.")}>
    <label><input type="checkbox" checked=${handOver} onChange=${checkedTo(setHandOver)} />
      hand its runs over: they stop now and go on elsewhere</label>
  <//>`;
}

/** @param {{ runIds: string[], close: () => void }} props */
function Cancel({ runIds, close }) {
  const [why, setWhy] = useState("");
  const cancel = async () => {
    const isDone = await cancelRuns({ run_ids: runIds, reason: why });
    if (isDone) picked.value = new Set();
    return isDone;
  };
  return html`<${Question} title=${`Cancel ${plural(runIds.length, "run")}?`} action="Cancel them" close=${close} onSubmit=${cancel}>
    <label>Reason, for their callers <input value=${why} maxlength="500" onInput=${valueTo(setWhy)} /></label>
  <//>`;
}

/** @param {{ tenant: string, close: () => void }} props */
function Block({ tenant, close }) {
  const [name, setName] = useState(tenant);
  const [why, setWhy] = useState("");
  const [withRuns, setWithRuns] = useState(false);
  const isReady = Boolean(name.trim() && why.trim());
  const block = async () => {
    const given = { tenant: name.trim(), reason: why.trim(), cancel_runs: withRuns };
    const done = await send("tenants/block", given);
    if (!done) return false;
    say("The tenant starts no more runs.");
    // That may take its time; how far it is, is said in the page.
    void (withRuns ? cancelRuns({ tenant: given.tenant, reason: done.cancelled.reason }, done.cancelled) : refresh());
    return true;
  };
  return html`<${Question} title="Block a tenant?" action="Block" isReady=${isReady} close=${close} onSubmit=${block}>
    <label>Tenant <input value=${name} maxlength="200" onInput=${valueTo(setName)} /></label>
    <label>Reason, which its callers read <input value=${why} maxlength="500" onInput=${valueTo(setWhy)} /></label>
    <label><input type="checkbox" checked=${withRuns} onChange=${checkedTo(setWithRuns)} /> cancel the runs it has</label>
  <//>`;
}
