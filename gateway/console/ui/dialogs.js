/** What opens over the page: a file, an event, help, questions before what is hard to undo, and the sign-in. */

import { bytes, clock, plural } from "../model/format.js";
import { api, attempt, dialog, reason, remove, restore, signIn, thread, tick } from "../store.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Code, Diff, languageOf } from "./code.js";
import { Logo } from "./icons.js";
import { Markdown } from "./markdown.js";
import { Chip, CopyButton, DownloadLink, IconButton, Spinner, Toast } from "./parts.js";

const MAX_SHOWN_BYTES = 2_000_000;
const UNDO = "The files as they are now stay in the thread's history, so this can be undone as well.";
const KEYS = [
  ["Enter", "send the task; Shift+Enter begins a new line"],
  ["/", "go to the composer"],
  ["n", "new thread"],
  ["p", "plan, files and run"],
  ["Ctrl K", "search threads"],
  ["Esc", "close, or leave the field"],
  ["?", "this help"],
];

export function Dialogs() {
  const open = dialog.value;
  const current = thread.value;
  if (!open) return null;
  const close = () => (dialog.value = null);
  if (open.kind === "help") return html`<${Modal} title="Keyboard and help" close=${close}><${Help} /><//>`;
  if (!current) return null;
  if (open.kind === "file")
    return html`<${Modal} title=${open.path} close=${close} wide>
      <${FileView} key=${open.path} threadId=${current.id} path=${open.path} at=${open.at} />
    <//>`;
  if (open.kind === "event")
    return html`<${Modal} title=${`Event ${open.event}`} close=${close} wide><${EventView} threadId=${current.id} id=${open.event} /><//>`;
  // How it went is said in the page: what is asked for takes effect there, and may take its time.
  const after = (/** @type {() => Promise<unknown>} */ act) => async () => (void attempt(act), true);
  if (open.kind === "restore")
    return html`<${Question} title="Restore the files?" action="Restore" leave="Leave them" close=${close}
      text=${`${plural(open.changes, "change")} since then: what was added goes, what was changed or removed comes back as it was. ${UNDO}`}
      onSubmit=${after(() => restore(current.id, open.event))} />`;
  return html`<${Question} title="Delete this thread?" action="Delete" leave="Keep it" close=${close}
    text="Its conversation, its log and its workspace are gone for good." onSubmit=${after(() => remove(current.id))} />`;
}

/**
 * Asks before something is done; it stays open while `onSubmit` says that it was not.
 * @param {{ title: string, text?: any, action: string, leave?: string, isReady?: boolean, onSubmit: () => Promise<boolean>,
 *   close: () => void, children?: any }} props
 */
export function Question({ title, text, action, leave = "Leave it", isReady = true, onSubmit, close, children }) {
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (await onSubmit()) close();
  };
  return html`<${Modal} title=${title} close=${close} describedBy=${text && "question"}><form class="question" onSubmit=${submit}>
    ${text && html`<p id="question">${text}</p>`}
    ${children}
    <div class="dialog-actions"><button type="button" onClick=${close}>${leave}</button>
      <button type="submit" class="danger" disabled=${!isReady}>${action}</button></div>
  </form><//>`;
}

/** @param {{ title: string, close: () => void, wide?: boolean, describedBy?: string, children?: any }} props */
export function Modal({ title, close, wide = false, describedBy, children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const element = /** @type {HTMLDialogElement} */ (ref.current);
    element.showModal();
    return () => element.close();
  }, []);
  const onClick = (/** @type {Event} */ event) => event.target === ref.current && close();
  // Not by the browser, which tells of it later: what is open then may be another dialog.
  const onCancel = (/** @type {Event} */ event) => (event.preventDefault(), ref.current?.close(), close());
  const onClose = () => ref.current && close();
  return html`<dialog ref=${ref} class=${wide ? "wide" : ""} aria-label=${title} aria-describedby=${describedBy}
    onCancel=${onCancel} onClose=${onClose} onClick=${onClick}>
    <div class="dialog-head"><h2>${title}</h2><${IconButton} icon="cross" label="Close" onClick=${close} /></div>
    <div class="dialog-body">${children}</div>
    <${Toast} />
  </dialog>`;
}

function Help() {
  return html`
    <dl class="keys">${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <p>Everything here is done through the public API: see <a href="/docs">its description</a>. The same threads open in
      the terminal with <code>dialtone attach</code>. Operators have <a href="/desk">a desk</a> of their own.</p>`;
}

/** @param {{ threadId: string, path: string, at?: string }} props */
function FileView({ threadId, path, at }) {
  void tick.value;
  const changes = thread.value?.view.files.get(path)?.changes ?? [];
  const [tab, setTab] = useState(at && changes.length ? at : "content");
  const change = changes.find((one) => one.id === tab);
  return html`
    <div class="file-bar">
      <label><span class="sr">What to show</span>
        <select value=${change ? tab : "content"} onChange=${(/** @type {any} */ event) => setTab(event.target.value)}>
        <option value="content">Content now</option>
        ${changes.toReversed().map((one) => html`<option key=${one.id} value=${one.id}>${one.change} at ${clock(one.at)}</option>`)}
      </select></label>
      <${CopyButton} text=${() => path} label="Copy the path" />
      <${DownloadLink} href=${api.fileUrl(threadId, path, { download: true })} label="Download" />
    </div>
    ${change ? html`<${Change} change=${change} />` : html`<${Content} threadId=${threadId} path=${path} />`}`;
}

/** @param {{ change: any }} props */
function Change({ change }) {
  return html`<p class="card-note"><${Chip}>${change.change}<//> ${bytes(change.size)}</p>
    ${change.diff ? html`<${Diff} diff=${change.diff} />` : html`<p class="panel-empty">There is no textual difference to show.</p>`}`;
}

/** @param {{ threadId: string, path: string }} props */
function Content({ threadId, path }) {
  const [file, setFile] = useState(/** @type {{ text?: string, error?: string, size?: number } | null} */ (null));
  const isImage = /\.(png|jpe?g|gif|webp|avif|svg)$/i.test(path);
  useEffect(() => {
    if (isImage) return;
    let isCurrent = true;
    read(threadId, path).then(
      (found) => isCurrent && setFile(found),
      (failure) => isCurrent && setFile({ error: reason(failure) }),
    );
    return () => void (isCurrent = false);
  }, [threadId, path]);
  if (isImage) return html`<img class="picture" src=${api.fileUrl(threadId, path)} alt=${path} />`;
  if (!file) return html`<p class="panel-empty"><${Spinner} /></p>`;
  if (file.error) return html`<p class="panel-empty">${file.error}</p>`;
  if (file.text === undefined)
    return html`<p class="panel-empty">${bytes(file.size ?? 0)} that cannot be shown as text. Download it instead.</p>`;
  if (/\.(md|markdown)$/i.test(path))
    return html`<div class="pad"><${Markdown} text=${file.text} isDone=${true} /></div>`;
  return html`<${Code} text=${file.text} language=${languageOf(path)} numbered />`;
}

/** A file's text; only its size when it is too large or not text. @param {string} threadId @param {string} path */
async function read(threadId, path) {
  const blob = await api.getFile(threadId, path);
  if (blob.size > MAX_SHOWN_BYTES) return { size: blob.size };
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (bytes.subarray(0, 8000).includes(0)) return { size: blob.size };
  return { text: new TextDecoder().decode(bytes), size: blob.size };
}

/** @param {{ threadId: string, id: string }} props */
function EventView({ threadId, id }) {
  const [text, setText] = useState("");
  useEffect(() => {
    const [epoch, seq] = id.split("-");
    api.events(threadId, { after: `${epoch}-${Number(seq) - 1}`, limit: 1 }).then(
      (page) => setText(JSON.stringify(page.items[0] ?? null, null, 2)),
      (failure) => setText(reason(failure)),
    );
  }, [threadId, id]);
  if (!text) return html`<p class="panel-empty"><${Spinner} /></p>`;
  return html`<div class="file-bar"><${CopyButton} text=${() => text} label="Copy the event" /></div><${Code} text=${text} language="json" />`;
}

export function SignIn() {
  const [key, setKey] = useState("");
  const [error, setError] = useState("");
  const [isSending, setSending] = useState(false);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setSending(true);
    try {
      await signIn(key.trim());
    } catch (failure) {
      setError(reason(failure));
    }
    setSending(false);
  };
  return html`<main class="sign-in"><form onSubmit=${submit}>
    <${Logo} />
    <h1>Sign in to Dialtone</h1>
    <label for="key">API key</label>
    <input id="key" type="password" autocomplete="current-password" value=${key} placeholder="dt_…" autofocus
      onInput=${(/** @type {any} */ event) => setKey(event.target.value)} aria-describedby="key-help" />
    <p id="key-help" class="quiet">
      An operator makes one with <code>./run.sh keys new</code>. It is exchanged for a cookie that scripts cannot read.
    </p>
    ${error && html`<p class="bad" role="alert">${error}</p>`}
    <button type="submit" class="primary" disabled=${!key.trim() || isSending}>Sign in</button>
  </form></main>`;
}
