/** Links to other pages. */

import { html } from "../vendor/preact.js";

/** A link out of the page, or plain text when it is no web address. @param {{ url: string, text: string }} props */
export function SafeLink({ url, text }) {
  if (!/^https?:\/\//i.test(url ?? "")) return html`<span>${text}</span>`;
  return html`<a href=${url} target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
}
