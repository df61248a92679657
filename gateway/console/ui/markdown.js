/**
 * Markdown as safe HTML, block by block. While a text grows only its last block is rendered again: what stands above
 * can no longer change.
 */

import { html, useLayoutEffect, useRef } from "../vendor/preact.js";
import { DOMPurify, Marked } from "../vendor/markdown.js";
import { highlight } from "./code.js";
import { copyText } from "./parts.js";

/** Raw HTML is shown as it was written, but for these tags, and for them only without attributes. */
const HARMLESS =
  /^<\/?(b|br|code|del|details|em|hr|i|ins|kbd|li|mark|ol|p|pre|s|small|strong|sub|summary|sup|u|ul)\s*\/?>$/i;
const TAG = /<[^<>]*>?|>/g;

/** @param {string} text */
function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

const marked = new Marked({ gfm: true, breaks: false });
marked.use({
  renderer: {
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    html: ({ text }) => text.replace(TAG, (tag) => (HARMLESS.test(tag) ? tag : escape(tag))),
  },
});

const SAFE = {
  RETURN_TRUSTED_TYPE: true,
  USE_PROFILES: { html: true },
  FORBID_TAGS: [
    "style",
    "form",
    "input",
    "button",
    "textarea",
    "select",
    "option",
    "iframe",
    "video",
    "audio",
    "picture",
    "source",
  ],
  FORBID_ATTR: ["style", "id", "name", "srcset", "background"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  // A picture from elsewhere would tell its server that the page was read: it stays a link.
  if (node.nodeName === "IMG") {
    const link = document.createElement("a");
    const source = node.getAttribute("src") ?? "";
    link.textContent = node.getAttribute("alt") || source || "picture";
    if (/^https?:/i.test(source))
      Object.assign(link, { href: source, target: "_blank", rel: "noopener noreferrer nofollow" });
    node.replaceWith(link);
  }
});

/** One rendered text that may grow. */
class Document {
  /** @param {HTMLElement} root */
  constructor(root) {
    this._root = root;
    this._text = "";
    this._settled = 0;
    /** @type {HTMLElement | null} the block that may still change */
    this._open = null;
  }

  /** @param {string} text @param {boolean} isDone */
  show(text, isDone) {
    // References are defined at the end and used above: such a text is rendered once more when it is complete.
    const isStale = !text.startsWith(this._text) || (isDone && /^ {0,3}\[[^\]]+\]:/m.test(text));
    if (isStale) this._restart();
    this._text = text;
    const tokens = marked.lexer(text.slice(this._settled));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    tokens.forEach((token, index) => {
      if (token.type === "space") {
        if (index < last) this._settled += token.raw.length;
        return;
      }
      const isSettled = isDone || index < last;
      this._render(Object.assign([token], { links: tokens.links }), isSettled);
      if (isSettled) {
        this._settled += token.raw.length;
        this._open = null;
      }
    });
  }

  _restart() {
    this._root.replaceChildren();
    this._settled = 0;
    this._open = null;
  }

  /** @param {any} tokens @param {boolean} isSettled */
  _render(tokens, isSettled) {
    if (!this._open) {
      this._open = Object.assign(document.createElement("div"), { dir: "auto" });
      this._root.append(this._open);
    }
    this._open.innerHTML = /** @type {any} */ (DOMPurify.sanitize(marked.parser(tokens), SAFE));
    if (isSettled) finish(this._open);
  }
}

/** Colours and copy buttons for code, scrolling for tables. @param {HTMLElement} block */
function finish(block) {
  for (const code of /** @type {NodeListOf<HTMLElement>} */ (block.querySelectorAll("pre > code"))) {
    const text = code.textContent ?? "";
    const language = /language-([\w+#-]+)/.exec(code.className)?.[1] ?? "";
    void highlight(code, text, language);
    const pre = /** @type {HTMLElement} */ (code.parentElement);
    pre.tabIndex = 0;
    const button = Object.assign(document.createElement("button"), {
      type: "button",
      className: "copy",
      textContent: "Copy",
    });
    button.setAttribute("aria-label", language ? `Copy the ${language} code` : "Copy the code");
    button.addEventListener("click", async () => {
      if (await copyText(text)) button.textContent = "Copied";
    });
    const frame = Object.assign(document.createElement("div"), { className: "code-frame" });
    pre.replaceWith(frame);
    frame.append(pre, button);
  }
  for (const table of block.querySelectorAll("table")) {
    const frame = Object.assign(document.createElement("div"), { className: "table-frame", tabIndex: 0 });
    table.replaceWith(frame);
    frame.append(table);
  }
}

/** @param {{ text: string, isDone: boolean }} props */
export function Markdown({ text, isDone }) {
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const shown = useRef(/** @type {Document | null} */ (null));
  useLayoutEffect(() => {
    shown.current ??= new Document(/** @type {HTMLElement} */ (root.current));
    shown.current.show(text, isDone);
  }, [text, isDone]);
  return html`<div class="markdown" ref=${root}></div>`;
}
