/** Small pieces that the desk's sheets are made of. */

import { html } from "../vendor/preact.js";

/** The head of a column that needs none for those who see it. @param {string} text */
export function unseen(text) {
  return html`<span class="sr">${text}</span>`;
}

/** @param {{ label: string, heads: any[], children?: any }} props */
export function Table({ label, heads, children }) {
  return html`<div class="table-frame" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr>${heads.map((head, index) => html`<th key=${index}>${head}</th>`)}</tr></thead>
    <tbody>${children}</tbody>
  </table></div>`;
}

/** Hands on what a field holds. @param {(value: string) => void} set */
export function valueTo(set) {
  return (/** @type {any} */ event) => set(event.target.value);
}

/** Hands on whether a box is ticked. @param {(isChecked: boolean) => void} set */
export function checkedTo(set) {
  return (/** @type {any} */ event) => set(event.target.checked);
}
