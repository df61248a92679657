/** Code with colours, diffs as tables, terminal output. */

import { ansiLines } from "../model/ansi.js";
import { parseDiff } from "../model/diff.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact.js";

/** Longer texts are shown without colours. */
const MAX_HIGHLIGHT = 60_000;
/** Lines of a diff or terminal that are shown before one asks for all. */
const FEW_LINES = 60;
const FOLDED_LINES = 24;
const LIVE_CHARS = 40_000;

/** @type {Record<string, string>} */
const LANGUAGES = {
  bash: "bash",
  c: "c",
  cc: "cpp",
  cfg: "ini",
  cpp: "cpp",
  cs: "csharp",
  css: "css",
  diff: "diff",
  dockerfile: "dockerfile",
  go: "go",
  h: "c",
  hpp: "cpp",
  htm: "xml",
  html: "xml",
  ini: "ini",
  java: "java",
  js: "javascript",
  json: "json",
  jsonl: "json",
  jsx: "javascript",
  lua: "lua",
  makefile: "makefile",
  md: "markdown",
  mjs: "javascript",
  patch: "diff",
  php: "php",
  py: "python",
  pyi: "python",
  rb: "ruby",
  rs: "rust",
  sh: "bash",
  sql: "sql",
  svg: "xml",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  xml: "xml",
  yaml: "yaml",
  yml: "yaml",
  zsh: "bash",
};

/** The language of a file, by its name; "" if none is known. @param {string} path */
export function languageOf(path) {
  const name = (path.split("/").at(-1) ?? "").toLowerCase();
  return LANGUAGES[name] ?? LANGUAGES[name.split(".").at(-1) ?? ""] ?? "";
}

/** @type {Promise<typeof import("../vendor/highlight.js").default> | null} */
let loading = null;

/** The highlighter, loaded when first needed: it is as large as all the rest. */
export function highlighter() {
  loading ??= import("../vendor/highlight.js").then((module) => module.default);
  return loading;
}

/** @type {{ createHTML: (text: string) => any } | undefined} Trusted Types, where the browser has them */
const policy = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("dialtone-code", {
  createHTML: (/** @type {string} */ text) => text,
});

/**
 * Colours the code in `element`. The highlighter escapes what it is given, so its output holds its own tags only.
 * @param {HTMLElement} element
 * @param {string} text
 * @param {string} language a name or an alias, "" to leave the text plain
 */
export async function highlight(element, text, language) {
  if (!language || text.length > MAX_HIGHLIGHT) return;
  const hljs = await highlighter();
  if (!hljs.getLanguage(language)) return;
  const { value } = hljs.highlight(text, { language, ignoreIllegals: true });
  element.innerHTML = policy ? policy.createHTML(value) : value;
}

/**
 * @param {{ text: string, language: string, numbered?: boolean, folded?: boolean }} props
 *   folded: of a long text show the beginning only, until one asks for all
 */
export function Code({ text, language, numbered = false, folded = false }) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [isWhole, setWhole] = useState(!folded);
  const lines = useMemo(() => text.replace(/\n$/, "").split("\n"), [text]);
  const count = isWhole ? lines.length : Math.min(lines.length, FOLDED_LINES);
  const shown = lines.slice(0, count).join("\n");
  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (ref.current);
    element.textContent = shown;
    void highlight(element, shown, language);
  }, [shown, language]);
  return html`<div class="code" tabindex="0" role="group" aria-label="Code">
    ${numbered && html`<pre class="gutter" aria-hidden="true">${Array.from({ length: count }, (_, index) => index + 1).join("\n")}</pre>`}
    <pre><code ref=${ref}></code></pre>
  </div>
  <${More} hidden=${lines.length - count} onClick=${() => setWhole(true)} />`;
}

/** @param {{ diff: string }} props */
export function Diff({ diff }) {
  const { rows } = useMemo(() => parseDiff(diff), [diff]);
  const [isWhole, setWhole] = useState(false);
  const shown = isWhole ? rows : rows.slice(0, FEW_LINES);
  if (!rows.length) return html`<p class="quiet pad">No textual difference.</p>`;
  return html`<div class="diff" tabindex="0" role="group" aria-label="Difference">
    <table>
      <tbody>
        ${shown.map(
          (row, index) => html`<tr key=${index} class=${`diff-${row.kind}`}>
          <td class="line-number">${row.old}</td>
          <td class="line-number">${row.new}</td>
          <td class="sign">${row.kind === "add" ? "+" : row.kind === "remove" ? "−" : ""}</td>
          <td class="line"><${Marked} text=${row.text} mark=${row.mark} /></td>
        </tr>`,
        )}
      </tbody>
    </table>
    <${More} hidden=${rows.length - shown.length} onClick=${() => setWhole(true)} />
  </div>`;
}

/** @param {{ text: string, mark: [number, number] | null }} props */
function Marked({ text, mark }) {
  if (!mark || mark[0] >= mark[1]) return text || " ";
  return html`${text.slice(0, mark[0])}<mark>${text.slice(...mark)}</mark>${text.slice(mark[1])}`;
}

/** @param {{ hidden: number, onClick: () => void, above?: boolean }} props */
function More({ hidden, onClick, above = false }) {
  if (hidden <= 0) return null;
  const what = `Show ${hidden.toLocaleString("en")} ${above ? "earlier" : "more"} lines`;
  return html`<button type="button" class="more" onClick=${onClick}>${what}</button>`;
}

/**
 * The output of a command. While it runs the newest lines stay in view; a long one shows its end first.
 * @param {{ text: string, isLive: boolean }} props
 */
export function Terminal({ text, isLive }) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [isWhole, setWhole] = useState(false);
  const cut = isLive ? text.slice(-LIVE_CHARS) : text;
  const lines = useMemo(() => ansiLines(cut.replace(/\n$/, "")), [cut]);
  const shown = isWhole && !isLive ? lines : lines.slice(-FEW_LINES * 2);
  useEffect(() => {
    const element = /** @type {HTMLElement} */ (ref.current);
    if (isLive) element.scrollTop = element.scrollHeight;
  }, [text, isLive]);
  return html`<div class="terminal" ref=${ref} tabindex="0" role="group" aria-label="Output">
    ${!isLive && html`<${More} above hidden=${lines.length - shown.length} onClick=${() => setWhole(true)} />`}
    <pre>${shown.map((line, index) => html`<${Line} key=${index} pieces=${line} />`)}</pre>
  </div>`;
}

/** @param {{ pieces: import("../model/ansi.js").Piece[] }} props */
function Line({ pieces }) {
  return html`${pieces.map((piece) => {
    const isPlain = !piece.classes && !piece.color && !piece.background;
    if (isPlain) return piece.text;
    return html`<span class=${piece.classes} style=${{ color: piece.color, background: piece.background }}>${piece.text}</span>`;
  })}${"\n"}`;
}
