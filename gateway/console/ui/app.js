/** The page: threads on the left, the conversation in the middle, plan, files and run on the right. */

import {
  announcement,
  connection,
  dialog,
  factTick,
  focusComposer,
  go,
  isSidebarOpen,
  isSignedOut,
  panel,
  route,
  thread,
} from "../store.js";
import { html, useEffect } from "../vendor/preact.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Dialogs, SignIn } from "./dialogs.js";
import { DropZone } from "./drop.js";
import { Header } from "./header.js";
import { Icon } from "./icons.js";
import { Inspector } from "./inspector.js";
import { Toast } from "./parts.js";
import { Sidebar } from "./sidebar.js";
import { StatusBar } from "./status.js";
import { Suggestions } from "./suggestions.js";
import { Welcome } from "./welcome.js";

export function App() {
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  useTitle();
  if (isSignedOut.value) return html`<${SignIn} />`;
  const open = thread.value;
  const isPanelOpen = Boolean(panel.value && open);
  return html`
    <a class="skip" href="#composer" onClick=${skip}>Skip to the composer</a>
    <div class=${`page ${isSidebarOpen.value ? "with-sidebar" : ""} ${isPanelOpen ? "with-panel" : ""}`}>
      <${Sidebar} />
      <main class="main" aria-label="Conversation">
        <${Header} />
        <${Offline} />
        ${open ? html`<${Conversation} key=${open.id} />` : html`<${Welcome} />`}
        <div class="dock">
          <${Suggestions} />
          <${StatusBar} />
          <${Composer} key=${route.value.threadId} />
        </div>
        <${DropZone} />
      </main>
      ${open && html`<${Inspector} />`}
      <button type="button" class="shade" aria-label="Close" onClick=${() => (isSidebarOpen.value = false)}></button>
    </div>
    <${Dialogs} />
    ${!dialog.value && html`<${Toast} />`}
    <div class="sr" role="status" aria-live="polite">${announcement.value}</div>
  `;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  focusComposer.value += 1;
}

/** A line across the page while the gateway is away for longer than a moment. */
function Offline() {
  const { state, error } = connection.value;
  if (state !== "waiting" || !error) return null;
  return html`<div class="offline" role="status"><${Icon} name="warning" size=${14} />
    The gateway is away. What you see is what was last known; the stream goes on by itself.</div>`;
}

/** The tab's title: what the open thread is about, and whether it works or asks. */
function useTitle() {
  const open = thread.value;
  void factTick.value;
  const run = open?.view.activeRun;
  const asks = open && [...open.view.questions.values()].some((block) => !block.answer && !block.isClosed);
  const mark = asks ? "? " : run?.status === "running" ? "● " : "";
  const title = open ? `${mark}${open.record?.title || "Thread"} · Dialtone` : "Dialtone";
  useEffect(() => void (document.title = title), [title]);
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isTyping = event.target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  const isCommand = event.ctrlKey || event.metaKey;
  if (dialog.value) return;
  if (isCommand && event.key === "k") act(event, focusSearch);
  else if (event.key === "Escape") act(event, escape, false);
  else if (isTyping || isCommand || event.altKey) return;
  else if (event.key === "/") act(event, () => (focusComposer.value += 1));
  else if (event.key === "n") act(event, () => (go(""), (focusComposer.value += 1)));
  else if (event.key === "p") act(event, () => (panel.value = panel.value ? "" : "plan"));
  else if (event.key === "?") act(event, () => (dialog.value = { kind: "help" }));
}

/** @param {Event} event @param {() => unknown} what @param {boolean} [prevent] */
function act(event, what, prevent = true) {
  if (prevent) event.preventDefault();
  what();
}

function focusSearch() {
  isSidebarOpen.value = !matchMedia("(min-width: 900px)").matches;
  document.getElementById("search")?.focus();
}

function escape() {
  if (isSidebarOpen.value) isSidebarOpen.value = false;
  else if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
}
