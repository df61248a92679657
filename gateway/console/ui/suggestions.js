/** What the agent would do next: a click puts it into the composer. */

import { editDraft, focusComposer, thread, tick } from "../store.js";
import { html } from "../vendor/preact.js";

export function Suggestions() {
  void tick.value;
  const open = thread.value;
  const run = open?.view.activeRun;
  if (!open || !open.view.suggestions.length || !run || run.status === "running" || run.status === "queued")
    return null;
  const choose = (/** @type {string} */ text) => {
    editDraft(open.id, { text });
    focusComposer.value += 1;
  };
  return html`<ul class="suggestions" aria-label="Suggestions">
    ${open.view.suggestions.map(
      (text) => html`<li key=${text}>
        <button type="button" title=${text} onClick=${() => choose(text)}>${text.replaceAll("`", "")}</button>
      </li>`,
    )}
  </ul>`;
}
