/** The plan and the todos of the run, as checklists that move. */

import { html } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { Bar } from "./status.js";

/** @param {{ open: { view: import("../model/thread_view.js").ThreadView } }} props */
export function Plan({ open }) {
  const run = open.view.activeRun;
  const plan = run?.plan ?? [];
  const todos = run?.todos ?? [];
  if (!plan.length && !todos.length) {
    return html`<p class="panel-empty">The agent's plan and its todos appear here as soon as it has made them.</p>`;
  }
  const isLive = run?.status === "running";
  const done = plan.filter((step) => step.status === "done" || step.status === "dropped").length;
  return html`
    ${
      plan.length > 0 &&
      html`<section>
      <h2>Plan <span class="quiet">${done} of ${plan.length}</span></h2>
      <${Bar} done=${done} total=${plan.length} />
      <ol class=${isLive ? "steps" : "steps is-idle"}>
        ${plan.map((step) => html`<${Step} key=${step.id} title=${step.title} status=${step.status} note=${step.note} />`)}
      </ol>
    </section>`
    }
    ${
      todos.length > 0 &&
      html`<section>
      <h2>Todos <span class="quiet">${todos.filter((todo) => todo.status === "completed").length} of ${todos.length}</span></h2>
      <ul class=${isLive ? "steps" : "steps is-idle"}>
        ${todos.map((todo, index) => html`<${Step} key=${index} title=${todo.content} status=${todo.status} note="" />`)}
      </ul>
    </section>`
    }
  `;
}

const WORDS = {
  pending: "open",
  in_progress: "in progress",
  done: "done",
  completed: "done",
  dropped: "dropped",
  cancelled: "dropped",
};

/** @param {{ title: string, status: keyof typeof WORDS, note: string }} props */
function Step({ title, status, note }) {
  const word = WORDS[status] ?? "open";
  return html`<li class=${`step step-${word.replace(" ", "-")}`}>
    <span class="step-mark" aria-hidden="true">
      ${word === "done" && html`<${Icon} name="check" size=${11} />`}
      ${word === "dropped" && html`<${Icon} name="cross" size=${10} />`}
    </span>
    <span class="step-text"><span class="sr">${word}: </span>${plain(title)}${note && html`<small>${plain(note)}</small>`}</span>
  </li>`;
}

/** Titles are plain text; models like to put code marks into them. @param {string} text */
function plain(text) {
  return text.replaceAll("`", "");
}
