/** The page before a thread is open. */

import { editDraft, focusComposer, health } from "../store.js";
import { html } from "../vendor/preact.js";
import { Logo } from "./icons.js";

const EXAMPLES = [
  "Write a small program that prints the first ten prime numbers, run it, and test it.",
  "Look at the files in the workspace and write a README that explains them.",
  "Read numbers.csv and draw the three most telling facts from it.",
];

export function Welcome() {
  const choose = (/** @type {string} */ text) => {
    editDraft("", { text });
    focusComposer.value += 1;
  };
  const isScripted = /scripted/.test(health.value?.model ?? "");
  return html`<div class="welcome"><div class="welcome-inner">
    <${Logo} />
    <h2>What should be done?</h2>
    <p>Describe a task. An agent plans it, works on it in a sandbox of its own, and shows every step here.</p>
    <ul>${EXAMPLES.map((text) => html`<li key=${text}><button type="button" onClick=${() => choose(text)}>${text}</button></li>`)}</ul>
    ${isScripted && html`<p class="quiet">No model is configured: the scripted demo model plays a fixed little job with real tools.</p>`}
  </div></div>`;
}
