/** The workspace as a tree that opens folder by folder. */

import { bytes } from "../model/format.js";
import { api, attempt, dialog, filesChanged, reason, upload } from "../store.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { DownloadLink, FilePicker, IconButton, Spinner } from "./parts.js";
import { Versions } from "./versions.js";

/** @typedef {{ path: string, kind: string, size: number }} FileStat */
/** @typedef {{ id: string, view: import("../model/thread_view.js").ThreadView }} Open */

/** @param {{ open: Open }} props */
export function Files({ open }) {
  const [turn, setTurn] = useState(0);
  const changes = [...open.view.files.values()].reduce((sum, file) => sum + file.changes.length, 0);
  const rev = `${turn}.${changes}.${open.view.saves.length}.${filesChanged.value}`;
  const add = (/** @type {File[]} */ files) => attempt(() => upload(files));
  return html`<section class="files">
    <h2>Workspace
      <span class="panel-tools">
        <${IconButton} icon="refresh" label="Look again" size=${15} onClick=${() => setTurn(turn + 1)} />
        <${FilePicker} label="Upload files" size=${15} onFiles=${add} />
        <${DownloadLink} href=${api.archiveUrl(open.id, { format: "zip" })} label="Download everything as a zip" />
      </span>
    </h2>
    <${Folder} open=${open} path="." rev=${rev} />
  </section>
  <${Versions} open=${open} rev=${rev} />`;
}

/** @param {{ open: Open, path: string, rev: string }} props */
function Folder({ open, path, rev }) {
  const [entries, setEntries] = useState(/** @type {FileStat[] | null} */ (null));
  const [error, setError] = useState("");
  useEffect(() => {
    let isCurrent = true;
    api.files(open.id, { path, depth: 1 }).then(
      (found) => isCurrent && (setEntries(found.toSorted(byKind)), setError("")),
      (failure) => isCurrent && setError(reason(failure)),
    );
    return () => void (isCurrent = false);
  }, [open.id, path, rev]);
  if (error) return html`<p class="panel-empty">${error}</p>`;
  if (!entries) return html`<p class="panel-empty"><${Spinner} /></p>`;
  if (!entries.length)
    return html`<p class="panel-empty">${path === "." ? "The workspace is empty. Drop files anywhere to put them here." : "Empty."}</p>`;
  return html`<ul class="tree">${entries.map((entry) => html`<${Entry} key=${entry.path} open=${open} entry=${entry} rev=${rev} />`)}</ul>`;
}

/** Folders first, hidden names last, then by name. @param {FileStat} a @param {FileStat} b */
function byKind(a, b) {
  return rank(a) - rank(b) || a.path.localeCompare(b.path);
}

/** @param {FileStat} entry */
function rank(entry) {
  const isHidden = entry.path.split("/").at(-1)?.startsWith(".");
  return (isHidden ? 2 : 0) + (entry.kind === "dir" ? 0 : 1);
}

/** @param {{ open: Open, entry: FileStat, rev: string }} props */
function Entry({ open, entry, rev }) {
  const [isOpen, setOpen] = useState(false);
  const name = entry.path.split("/").at(-1);
  if (entry.kind === "dir") {
    return html`<li>
      <button type="button" class="entry" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        <${Icon} name="chevron" size=${12} class="turns" /><${Icon} name="folder" size=${14} /><span class="entry-name">${name}</span>
      </button>
      ${isOpen && html`<${Folder} open=${open} path=${entry.path} rev=${rev} />`}
    </li>`;
  }
  const changes = open.view.files.get(entry.path)?.changes.length ?? 0;
  return html`<li>
    <button type="button" class="entry" onClick=${() => (dialog.value = { kind: "file", path: entry.path })}>
      <${Icon} name="file" size=${14} /><span class="entry-name">${name}</span>
      ${changes > 0 && html`<span class="changed" title="changed in this thread"><span class="sr">changed</span></span>`}
      <span class="entry-size">${bytes(entry.size)}</span>
    </button>
  </li>`;
}
