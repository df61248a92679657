/** Tool calls as cards: what was asked for, what came of it. */

import { parseDiff } from "../model/diff.js";
import { bytes, duration } from "../model/format.js";
import { api, dialog, thread } from "../store.js";
import { html } from "../vendor/preact.js";
import { Code, Diff, languageOf, Terminal } from "./code.js";
import { Icon } from "./icons.js";
import { BlockTools } from "./links.js";
import { Chip, Elapsed, Spinner } from "./parts.js";
import { Preview } from "./preview.js";
import { SafeLink } from "./safe_link.js";

/** @typedef {import("../model/types.js").Block} Block */

const TITLE_FIELDS = ["command", "pattern", "path", "query", "url", "question", "name", "template", "job", "port"];

/** @type {Record<string, { icon: string, label: string }>} */
const TOOLS = {
  bash: { icon: "terminal", label: "Run" },
  bash_output: { icon: "terminal", label: "Read output of" },
  bash_kill: { icon: "terminal", label: "End job" },
  file_read: { icon: "file", label: "Read" },
  file_edit: { icon: "edit", label: "Edit" },
  multi_edit: { icon: "edit", label: "Edit" },
  files_creation: { icon: "plus", label: "Create" },
  use_template: { icon: "plus", label: "Use template" },
  ls: { icon: "folder", label: "List" },
  glob: { icon: "search", label: "Find files" },
  grep: { icon: "search", label: "Search" },
  web_search: { icon: "globe", label: "Search the web" },
  web_fetch: { icon: "globe", label: "Read page" },
  job_plan: { icon: "list", label: "Plan" },
  todo_write: { icon: "list", label: "Todos" },
  todo_read: { icon: "list", label: "Read todos" },
  suggest_next_steps: { icon: "spark", label: "Suggest next steps" },
  ask_person: { icon: "question", label: "Ask" },
  url_expose: { icon: "link", label: "Expose port" },
};

/** Tools whose effect is shown elsewhere: one quiet line says that they were used. */
const MINOR = new Set(["job_plan", "todo_write", "todo_read", "suggest_next_steps", "ask_person"]);

const IMAGE = /\.(png|jpe?g|gif|webp|avif)$/i;

/** @param {{ block: Block, toggle: () => void }} props */
export function ToolCard({ block, toggle }) {
  // The question itself is an entry of its own.
  if (block.tool === "ask_person" && block.result?.ok !== false) return null;
  const { icon, label } = TOOLS[block.tool] ?? { icon: "spark", label: block.tool || "Preparing a tool call" };
  const isRunning = !block.result && !block.isAbandoned;
  const isOpen = block.isOpen ?? isOpenAtFirst(block);
  const state = isRunning ? "running" : block.result?.ok === false ? "failed" : "done";
  const weight = MINOR.has(block.tool) && state !== "failed" && !isOpen ? "minor" : "card";
  return html`<article class=${`${weight} tool tool-${state}`} data-tool=${block.tool}>
    <div class="card-head">
      <button type="button" class="card-toggle" aria-expanded=${isOpen} onClick=${toggle}>
        <span class="tool-icon">${isRunning ? html`<${Spinner} />` : html`<${Icon} name=${icon} size=${15} />`}</span>
        <span class="tool-name">${label}</span>
        <span class="tool-title">${titleOf(block)}</span>
        <${Verdict} block=${block} isRunning=${isRunning} />
        <${Icon} name="chevron" size=${14} class="turns" />
      </button>
      <${BlockTools} block=${block} />
    </div>
    ${isOpen && html`<div class="card-body"><${Body} block=${block} isRunning=${isRunning} /></div>`}
  </article>`;
}

/** Commands and changes are what a person came to see; lists and file texts open on demand. @param {Block} block */
function isOpenAtFirst(block) {
  if (block.isPreparing) return false;
  if (block.result?.ok === false) return true;
  if (block.changes.length) return block.changes.length <= 3;
  if (block.tool === "url_expose") return Boolean(block.result);
  if (block.tool === "file_read") return IMAGE.test(block.result?.data?.path ?? "");
  return (
    block.tool === "bash" && (!block.result || Boolean(block.output.text || parted(block.result.output).text.trim()))
  );
}

/** @param {Block} block */
function titleOf(block) {
  if (block.isPreparing) return `${block.draft.length.toLocaleString("en")} characters so far`;
  const given = block.arguments ?? {};
  if (Array.isArray(given.files)) return given.files.map((/** @type {any} */ file) => file?.path ?? file).join(", ");
  if (Array.isArray(given.steps)) return progressOf(given.steps, "done");
  if (Array.isArray(given.items)) return progressOf(given.items, "completed");
  const name = TITLE_FIELDS.find((field) => given[field] !== undefined && given[field] !== "");
  const first = name ? given[name] : Object.values(given)[0];
  const text = first === undefined ? "" : typeof first === "string" ? first : JSON.stringify(first);
  const where = block.tool === "grep" && given.path ? ` in ${given.path}` : "";
  return text.split("\n", 1)[0].slice(0, 300) + where;
}

/** @param {any[]} steps @param {string} done */
function progressOf(steps, done) {
  const finished = steps.filter((step) => step?.status === done).length;
  return steps.every((step) => step?.status) ? `${finished} of ${steps.length} done` : `${steps.length} entries`;
}

/** @param {{ block: Block, isRunning: boolean }} props */
function Verdict({ block, isRunning }) {
  const { result } = block;
  if (isRunning) return block.startedAt ? html`<${Elapsed} from=${block.startedAt} />` : null;
  if (!result) return html`<${Chip} tone="bad">ended with the run<//>`;
  const status = result.data?.exit_code;
  const took = html`<span class="elapsed">${result.duration_ms >= 100 ? duration(result.duration_ms) : ""}</span>`;
  if (typeof status === "number" && status !== 0)
    return html`${took}<${Chip} tone=${result.ok ? "plain" : "bad"}>exit ${status}<//>`;
  if (!result.ok) return html`${took}<${Chip} tone="bad">${result.error || "failed"}<//>`;
  return html`${took}<span class="ok" title="done"><${Icon} name="check" size=${14} /><span class="sr">done</span></span>`;
}

/** @param {{ block: Block, isRunning: boolean }} props */
function Body({ block, isRunning }) {
  if (block.isPreparing) return html`<pre class="draft">${block.draft.text.slice(-4000)}</pre>`;
  const note = block.note ? html`<p class="card-note">${block.note}</p>` : null;
  return html`${note}<${Outcome} block=${block} isRunning=${isRunning} />`;
}

/** @param {{ block: Block, isRunning: boolean }} props */
function Outcome({ block, isRunning }) {
  const { tool, result } = block;
  if (tool === "bash") return html`<${Command} block=${block} isRunning=${isRunning} />`;
  if (block.changes.length && result?.ok !== false) return html`<${Changes} changes=${block.changes} />`;
  if (!result) return html`<${Arguments} given=${block.arguments} />`;
  if (!result.ok) return html`<${Arguments} given=${block.arguments} /><${Output} text=${result.output} />`;
  if (tool === "file_read") return html`<${ReadFile} result=${result} />`;
  if (tool === "web_search") return html`<${Hits} result=${result} />`;
  if (tool === "glob" || tool === "grep") return html`<${Paths} result=${result} />`;
  if (tool === "url_expose" && result.data?.url) return html`<${Preview} link=${result.data} />`;
  if (tool === "bash_output") return html`<${Terminal} text=${result.output} isLive=${false} />`;
  if (tool in TOOLS) return html`<${Output} text=${result.output} />`;
  return html`<${Arguments} given=${block.arguments} /><${Output} text=${result.output} />`;
}

/** @param {{ block: Block, isRunning: boolean }} props */
function Command({ block, isRunning }) {
  const { command = "" } = block.arguments;
  const isLong = command.includes("\n") || command.length > 90;
  const { text, notes } = parted(block.result?.output ?? "");
  const shown = block.result ? block.result.data?.screen || text : block.output.text;
  const remarks = notes.filter((note) => !/^exit status \d+, [\d.]+ s$/.test(note));
  return html`
    ${isLong && html`<${Code} text=${command} language="bash" />`}
    ${
      shown.trim()
        ? html`<${Terminal} text=${shown} isLive=${isRunning} />`
        : html`<p class="quiet pad">${isRunning ? "No output yet." : "No output."}</p>`
    }
    ${remarks.map((note) => html`<p class="card-note">${note}</p>`)}
    ${block.changes.length > 0 && html`<${Changes} changes=${block.changes} />`}
  `;
}

/** An output, and the remarks that the tool put below it in brackets. @param {string} output */
function parted(output) {
  const at = output.lastIndexOf("\n\n");
  const lines = output
    .slice(at + 2)
    .trimEnd()
    .split("\n");
  if (at < 0 || !lines.every((line) => line.startsWith("[") && line.endsWith("]"))) return { text: output, notes: [] };
  return { text: output.slice(0, at), notes: lines.map((line) => line.slice(1, -1)) };
}

/** @param {{ changes: import("../model/types.js").LogEvent[] }} props */
export function Changes({ changes }) {
  return html`<div class="changes">
    ${changes.map(
      (change) => html`<section key=${change.id}>
      <p class="change-head"><${FileLink} path=${change.path} at=${change.id} />
        <${Chip} tone=${change.change === "deleted" ? "bad" : "plain"}>${change.change}<//>
        <span class="quiet">${change.change === "deleted" ? "" : bytes(change.size)}</span></p>
      <${Change} change=${change} />
    </section>`,
    )}
  </div>`;
}

/** What changed in a file; of a new one its text. @param {{ change: import("../model/types.js").LogEvent }} props */
export function Change({ change }) {
  if (!change.diff) return null;
  if (change.change !== "created") return html`<${Diff} diff=${change.diff} />`;
  const { rows } = parseDiff(change.diff);
  const text = rows
    .filter((row) => row.kind === "add")
    .map((row) => row.text)
    .join("\n");
  return html`<${Code} text=${text} language=${languageOf(change.path)} numbered folded />`;
}

/** A workspace file that opens when clicked. @param {{ path: string, at?: string }} props */
export function FileLink({ path, at }) {
  const open = () => (dialog.value = { kind: "file", path, at });
  return html`<button type="button" class="file-link" onClick=${open} title=${`Open ${path}`}>${path}</button>`;
}

/** @param {{ result: any }} props */
function ReadFile({ result }) {
  const path = result.data?.path ?? "";
  const open = thread.value;
  if (IMAGE.test(path) && open)
    return html`<img class="picture" src=${api.fileUrl(open.id, path)} alt=${path} loading="lazy" />`;
  return html`<p class="card-note"><${FileLink} path=${path} /></p><${Code} text=${result.output} language=${languageOf(path)} />`;
}

/** @param {{ result: any }} props */
function Hits({ result }) {
  const hits = result.data?.results;
  if (!Array.isArray(hits)) return html`<${Output} text=${result.output} />`;
  return html`<ol class="hits">${hits.map(
    (hit, index) => html`<li key=${index}>
    <${SafeLink} url=${hit.url} text=${hit.title || hit.url} />
    <p>${hit.snippet ?? hit.content ?? ""}</p>
  </li>`,
  )}</ol>`;
}

/** @param {{ result: any }} props */
function Paths({ result }) {
  const paths = result.data?.paths;
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string"))
    return html`<${Output} text=${result.output} />`;
  return html`<ul class="paths">${paths.map((path) => html`<li key=${path}><${FileLink} path=${path} /></li>`)}</ul>`;
}

/** @param {{ given: Record<string, any> }} props */
function Arguments({ given }) {
  if (!given || !Object.keys(given).length) return null;
  return html`<${Code} text=${JSON.stringify(given, null, 2)} language="json" />`;
}

/** @param {{ text: string }} props */
function Output({ text }) {
  return html`<div class="output" tabindex="0" role="group" aria-label="Result"><pre>${text.slice(0, 100_000)}</pre></div>`;
}
