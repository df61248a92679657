/** The workspace beside what it was at an event: what changed since, the way back, and a thread that goes on from there. */

import { clock, plural } from "../model/format.js";
import { api, attempt, comparing, dialog, go, loadThreads, reason } from "../store.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { Diff } from "./code.js";
import { Chip, IconButton, Spinner } from "./parts.js";
import { FileLink } from "./tools.js";

/** @typedef {{ id: string, view: import("../model/thread_view.js").ThreadView }} Open */

/** @param {{ open: Open, rev: string }} props */
export function Versions({ open, rev }) {
  const since = comparing.value;
  const { saves } = open.view;
  if (!saves.length && !since) return null;
  const isSave = saves.some((save) => save.id === since);
  const choose = (/** @type {any} */ event) => (comparing.value = event.target.value);
  const stop = () => (comparing.value = "");
  return html`<section class="versions">
    <h2>Changes
      ${
        since &&
        html`<span class="panel-tools">
          <${IconButton} icon="cross" label="Stop comparing" size=${15} onClick=${stop} /></span>`
      }
    </h2>
    <label><span class="sr">Compare the files with</span>
      <select value=${since} onChange=${choose}>
        <option value="">since … (choose a moment)</option>
        ${since && !isSave && html`<option value=${since}>since event ${since.split("-")[1]}</option>`}
        ${saves.toReversed().map((save) => html`<option key=${save.id} value=${save.id}>since ${clock(save.at)}, turn ${save.turn}</option>`)}
      </select></label>
    ${since && html`<${Changes} key=${since} threadId=${open.id} since=${since} rev=${rev} />`}
  </section>`;
}

/** @param {{ threadId: string, since: string, rev: string }} props */
function Changes({ threadId, since, rev }) {
  const [page, setPage] = useState(/** @type {{ items: any[], total: number } | null} */ (null));
  const [error, setError] = useState("");
  useEffect(() => {
    let isCurrent = true;
    api.diff(threadId, since).then(
      (found) => isCurrent && (setPage(found), setError("")),
      (failure) => isCurrent && setError(reason(failure)),
    );
    return () => void (isCurrent = false);
  }, [threadId, since, rev]);
  const fork = () =>
    attempt(async () => {
      go((await api.fork(threadId, since)).thread_id);
      comparing.value = "";
      void loadThreads();
    });
  const restore = () => (dialog.value = { kind: "restore", event: since, changes: page?.total ?? 0 });
  if (error) return html`<p class="panel-empty">${error}</p>`;
  if (!page) return html`<p class="panel-empty"><${Spinner} /></p>`;
  return html`
    <p class="versions-actions">
      <span class="quiet">${page.total ? `${plural(page.total, "change")} since then` : "Nothing changed since then."}</span>
      ${page.total > 0 && html`<button type="button" onClick=${restore}>Restore the files</button>`}
      <button type="button" onClick=${fork}>Fork the thread there</button>
    </p>
    ${page.items.map((item) => html`<${Change} key=${item.path} item=${item} />`)}
    ${page.total > page.items.length && html`<p class="panel-empty">and ${plural(page.total - page.items.length, "more change")}</p>`}`;
}

/** @param {{ item: any }} props */
function Change({ item }) {
  const why = item.binary ? "Not text." : item.too_large ? "Too large to compare." : "";
  return html`<details class="version-change" open=${item.diff.length < 2000}>
    <summary><${Chip} tone=${item.change === "removed" ? "bad" : "plain"}>${item.change}<//> ${item.path}</summary>
    ${item.new?.kind === "file" && html`<p class="card-note"><${FileLink} path=${item.path} /></p>`}
    ${item.diff ? html`<${Diff} diff=${item.diff} />` : html`<p class="card-note">${why || "No textual difference."}</p>`}
  </details>`;
}
