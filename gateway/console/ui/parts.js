/** Small pieces that many components are made of. */

import { clock, duration } from "../model/format.js";
import { say, toast } from "../store.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";

/**
 * A button that shows an icon and says what it does.
 * @param {{ icon: string, label: string, onClick?: (event: Event) => void, class?: string, disabled?: boolean,
 *   pressed?: boolean, size?: number }} props
 */
export function IconButton({ icon, label, onClick, class: extra = "", disabled = false, pressed, size = 17 }) {
  return html`<button type="button" class=${`icon-button ${extra}`} aria-label=${label} title=${label} disabled=${disabled}
    aria-pressed=${pressed} onClick=${onClick}><${Icon} name=${icon} size=${size} /></button>`;
}

/** A short word to the person. Beneath a dialog nobody sees or hears it, so an open dialog shows it in itself. */
export function Toast() {
  return toast.value && html`<div class=${`toast toast-${toast.value.tone}`} role="alert">${toast.value.text}</div>`;
}

export function Spinner() {
  return html`<span class="spinner" aria-hidden="true"></span>`;
}

/** Seconds that count up while something goes on. @param {{ from: number }} props milliseconds since 1970 */
export function Elapsed({ from }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return html`<span class="elapsed">${duration(Math.max(0, now - from))}</span>`;
}

/** When something happened, on hover with its date. @param {{ at: number }} props */
export function Time({ at }) {
  if (!at) return null;
  return html`<time dateTime=${new Date(at).toISOString()} title=${new Date(at).toLocaleString()}>${clock(at)}</time>`;
}

/** Copies a text. @param {{ text: () => string, label?: string }} props */
export function CopyButton({ text, label = "Copy" }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    if (!(await copyText(text()))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<${IconButton} icon=${isDone ? "check" : "copy"} label=${isDone ? "Copied" : label} size=${14} onClick=${copy} />`;
}

/** True once `text` is in the clipboard. @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    say("The browser does not allow copying here.", "bad");
    return false;
  }
}

/** A link that saves what it points to. @param {{ href: string, label: string }} props */
export function DownloadLink({ href, label }) {
  return html`<a class="icon-button" href=${href} download aria-label=${label} title=${label}>
    <${Icon} name="download" size=${15} />
  </a>`;
}

/**
 * An icon that lets one choose files.
 * @param {{ label: string, size?: number, onFiles: (files: File[]) => void }} props
 */
export function FilePicker({ label, size, onFiles }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const choose = (/** @type {any} */ event) => {
    onFiles([...event.target.files]);
    event.target.value = "";
  };
  return html`<input ref=${input} type="file" multiple hidden onChange=${choose} />
    <${IconButton} icon="clip" label=${label} size=${size} onClick=${() => input.current?.click()} />`;
}

/** A word in a rounded box. @param {{ tone?: string, children?: any, title?: string }} props */
export function Chip({ tone = "plain", children, title }) {
  return html`<span class=${`chip chip-${tone}`} title=${title}>${children}</span>`;
}
