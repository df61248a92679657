/** What is open, whether the page hears from the gateway, and how it looks. */

import {
  attempt,
  connection,
  dialog,
  health,
  isSidebarOpen,
  panel,
  reconnect,
  rename,
  signOut,
  theme,
  thread,
} from "../store.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { IconButton } from "./parts.js";

export function Header() {
  const open = thread.value;
  return html`<header class="header">
    <${IconButton} icon="menu" label="Show threads" class="only-small" onClick=${() => (isSidebarOpen.value = true)} />
    ${open ? html`<${Title} key=${open.id} id=${open.id} title=${open.record?.title ?? ""} />` : html`<h1 class="title">New thread</h1>`}
    <span class="header-tools">
      ${open && html`<${Connection} />`}
      <${ThemeButton} />
      <${IconButton} icon="keyboard" label="Keyboard and help" class="only-wide" onClick=${() => (dialog.value = { kind: "help" })} />
      ${health.value?.auth === "on" && html`<${IconButton} icon="out" label="Sign out" onClick=${() => attempt(signOut)} />`}
      ${open && html`<${IconButton} icon="trash" label="Delete this thread" onClick=${() => (dialog.value = { kind: "delete" })} />`}
      ${
        open &&
        html`<${IconButton} icon="panel" label="Plan, files and run" pressed=${Boolean(panel.value)}
        onClick=${() => (panel.value = panel.value ? "" : "plan")} />`
      }
    </span>
  </header>`;
}

/** The thread's title; a click changes it. @param {{ id: string, title: string }} props */
function Title({ id, title }) {
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const finish = () => {
    if (text !== null && text.trim() && text.trim() !== title) void attempt(() => rename(id, { title: text.trim() }));
    setText(null);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") finish();
    if (event.key === "Escape") setText(null);
  };
  if (text !== null) {
    return html`<input class="title-input" dir="auto" aria-label="Title of the thread" value=${text} maxlength="200" autofocus
      ref=${(/** @type {any} */ element) => element && document.activeElement !== element && element.focus()}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} onBlur=${finish} onKeyDown=${onKey} />`;
  }
  return html`<h1 class="title"><button type="button" dir="auto" title="Change the title"
    onClick=${() => setText(title)}>${title || "Untitled"}</button></h1>`;
}

/** Whether what is shown is live. */
function Connection() {
  const { state, until } = connection.value;
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (state !== "waiting") return;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [state]);
  const seconds = until ? Math.max(0, Math.ceil((until - now) / 1000)) : 0;
  const words = {
    idle: "Idle",
    connecting: "Connecting",
    live: "Live",
    ended: "Up to date",
    failed: "Disconnected",
    paused: "Paused",
    waiting: seconds ? `Back in ${seconds} s` : "Reconnecting",
  };
  const canAct = state === "waiting" || state === "failed" || state === "paused";
  return html`<button type="button" class=${`connection connection-${state}`} disabled=${!canAct} onClick=${reconnect}
    title=${canAct ? "Connect now" : "The state of the connection"} data-state=${state}>
    <span class="dot" aria-hidden="true"></span><span role="status">${words[state]}</span>
  </button>`;
}

export function ThemeButton() {
  const next = { auto: "light", light: "dark", dark: "auto" };
  const icons = { auto: "auto", light: "sun", dark: "moon" };
  const names = { auto: "as the system", light: "light", dark: "dark" };
  return html`<${IconButton} icon=${icons[theme.value]} label=${`Colours: ${names[theme.value]}`}
    onClick=${() => (theme.value = /** @type {any} */ (next[theme.value]))} />`;
}
