/** Threads with search and state. */

import { ago } from "../model/format.js";
import {
  go,
  health,
  isSidebarOpen,
  linkTo,
  loadThreads,
  route,
  search,
  thread,
  threads,
  threadsState,
  tick,
} from "../store.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Icon, Logo } from "./icons.js";
import { IconButton, Spinner } from "./parts.js";

const SEARCH_MS = 200;

export function Sidebar() {
  return html`<nav class="sidebar" aria-label="Threads">
    <div class="brand">
      <a href="#/" class="brand-link"><${Logo} /><span>Dialtone</span></a>
      <${IconButton} icon="cross" label="Close the list" class="only-small" onClick=${() => (isSidebarOpen.value = false)} />
    </div>
    <button type="button" class="new-thread" onClick=${() => go("")}><${Icon} name="plus" size=${15} />New thread</button>
    <${Search} />
    <${List} />
    <${Foot} />
  </nav>`;
}

function Search() {
  const [text, setText] = useState(search.peek());
  useEffect(() => {
    const timer = setTimeout(() => (search.value = text.trim()), SEARCH_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<div class="search">
    <${Icon} name="search" size=${14} />
    <input id="search" type="search" placeholder="Search threads" aria-label="Search threads" value=${text}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
  </div>`;
}

function List() {
  const now = useNow();
  const { isLoaded, cursor, error } = threadsState.value;
  const current = route.value.threadId;
  if (error && !threads.value.length) return html`<p class="sidebar-note">${error}</p>`;
  if (!isLoaded) return html`<p class="sidebar-note"><${Spinner} /></p>`;
  if (!threads.value.length)
    return html`<p class="sidebar-note">${search.value ? "Nothing found." : "No threads yet."}</p>`;
  return html`<ul class="threads">
    ${threads.value.map(
      (one) => html`<li key=${one.thread_id}>
      <a href=${linkTo(one.thread_id)} aria-current=${one.thread_id === current ? "page" : undefined}
        onClick=${() => (isSidebarOpen.value = false)}>
        <${State} record=${one} isCurrent=${one.thread_id === current} />
        <span class="thread-title" dir="auto">${one.title || "Untitled"}</span>
        <span class="thread-time">${ago(one.updated_at, now)}</span>
      </a>
    </li>`,
    )}
    ${cursor && html`<li><button type="button" class="more" onClick=${() => loadThreads({ more: true })}>Show more</button></li>`}
  </ul>`;
}

/** What the newest run of a thread does. @param {{ record: any, isCurrent: boolean }} props */
function State({ record, isCurrent }) {
  void (isCurrent && tick.value);
  const live = isCurrent ? thread.value?.view.activeRun?.status : undefined;
  const status = live ?? (record.active_run ? "running" : record.last_status || "new");
  const words = {
    running: "running",
    queued: "waiting",
    waiting: "waiting",
    finished: "finished",
    failed: "failed",
    cancelled: "cancelled",
  };
  const word = words[/** @type {keyof typeof words} */ (status)] ?? "new";
  return html`<span class=${`dot dot-${word}`} title=${word}><span class="sr">${word}:</span></span>`;
}

function Foot() {
  const now = health.value;
  if (!now) return html`<p class="sidebar-foot">The gateway does not answer.</p>`;
  const gaps = now.sandbox_gaps?.length ? `\nThe sandbox does not guarantee: ${now.sandbox_gaps.join("; ")}` : "";
  const what = [now.sandbox, now.model].filter(Boolean).join(" · ") || "no worker";
  return html`<p class="sidebar-foot" title=${what + gaps}>
    <span>${what}</span><span class=${`health-${now.status}`}>${now.status}</span>
  </p>`;
}

/** The time, once a minute. */
function useNow() {
  const [now, setNow] = useState(Date.now());
  const timer = useRef(/** @type {any} */ (0));
  useEffect(() => {
    timer.current = setInterval(() => setNow(Date.now()), 60_000);
    return () => clearInterval(timer.current);
  }, []);
  return now;
}
