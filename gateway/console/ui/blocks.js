/** The entries of a conversation. */

import { duration, money, plural, tokens } from "../model/format.js";
import { api, attempt, focusComposer, thread } from "../store.js";
import { html, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { BlockTools } from "./links.js";
import { Markdown } from "./markdown.js";
import { Chip, CopyButton } from "./parts.js";
import { SafeLink } from "./safe_link.js";
import { Changes, FileLink, ToolCard } from "./tools.js";

/** @typedef {import("../model/types.js").Block} Block */

/** @type {Record<string, (props: { block: Block, toggle: () => void }) => any>} */
const KINDS = {
  task: Task,
  note: Note,
  message: Message,
  person: Person,
  tool: ToolCard,
  question: Question,
  changes: LooseChanges,
  end: End,
  gap: Gap,
};

/** @param {{ block: Block, toggle: () => void }} props */
export function BlockView({ block, toggle }) {
  if (block.isHidden) return null;
  return html`<div class=${`block block-${block.kind}`} id=${block.id ? `e-${block.id}` : undefined} data-key=${block.key}>
    <${KINDS[block.kind]} block=${block} toggle=${toggle} />
  </div>`;
}

/** @param {{ block: Block }} props */
function Task({ block }) {
  const isLong = block.text.length > 1200;
  const [isWhole, setWhole] = useState(!isLong);
  return html`<div class="bubble-row">
    <${BlockTools} block=${block} />
    <div class="bubble">
      <p class="said" dir="auto">${isWhole ? block.text : `${block.text.slice(0, 1000)}…`}</p>
      ${isLong && html`<button type="button" class="more" onClick=${() => setWhole(!isWhole)}>${isWhole ? "Show less" : "Show all"}</button>`}
      ${
        block.files.length > 0 &&
        html`<p class="attached">
          ${block.files.map((/** @type {string} */ path) => html`<${FileLink} path=${path} />`)}
        </p>`
      }
    </div>
  </div>`;
}

/** @param {{ block: Block }} props */
function Person({ block }) {
  return html`<div class="bubble-row"><${BlockTools} block=${block} /><div class="bubble bubble-steer">
    <p class="said" dir="auto">${block.text}</p>
  </div></div>`;
}

/** @param {{ block: Block, toggle: () => void }} props */
function Message({ block, toggle }) {
  return html`
    ${block.reasoning && html`<${Reasoning} block=${block} toggle=${toggle} />`}
    ${
      block.text &&
      html`<div class="message">
      <${Markdown} text=${block.text} isDone=${block.isDone} />
      ${
        block.isDone &&
        html`<div class="message-tools">
          <${BlockTools} block=${block} /><${CopyButton} text=${() => block.text} label="Copy the message" />
        </div>`
      }
    </div>`
    }
  `;
}

/** @param {{ block: Block, toggle: () => void }} props */
function Reasoning({ block, toggle }) {
  const isThinking = !block.isDone && !block.text;
  return html`<div class="reasoning">
    <button type="button" class=${`reasoning-toggle ${isThinking ? "is-live" : ""}`} aria-expanded=${Boolean(block.isOpen)} onClick=${toggle}>
      <${Icon} name="chevron" size=${13} class="turns" />${isThinking ? "Thinking…" : "Thought"}
    </button>
    ${block.isOpen && html`<div class="reasoning-text"><${Markdown} text=${block.reasoning} isDone=${block.isDone} /></div>`}
  </div>`;
}

/** @param {{ block: Block }} props */
function Note({ block }) {
  const icon = { notice: "warning", reminder: "info", link: "link" }[/** @type {string} */ (block.tone)] ?? "info";
  return html`<div class=${`note note-${block.tone}`}>
    <${Icon} name=${icon} size=${14} />
    <span title=${block.tone === "reminder" ? block.text : undefined}>
      ${block.text} ${block.url && html`<${SafeLink} url=${block.url} text=${block.url} />`}
    </span>
    <${BlockTools} block=${block} />
  </div>`;
}

/** @param {{ block: Block }} props */
function LooseChanges({ block }) {
  return html`<article class="card"><div class="card-body"><${Changes} changes=${block.changes} /></div></article>`;
}

/** @param {{ block: Block }} props */
function Gap({ block }) {
  const text = block.isReset
    ? "This thread's log was replaced. What follows is the new one."
    : `Older events are no longer kept (${block.from} to ${block.to}). What they said is summed up below.`;
  return html`<div class="note note-notice"><${Icon} name="warning" size=${14} /><span>${text}</span></div>`;
}

/** @param {{ block: Block }} props */
function End({ block }) {
  const { event, run, status } = block;
  const [icon, word] = {
    finished: ["check", "Finished"],
    failed: ["cross", "Failed"],
    cancelled: ["stop", "Cancelled"],
  }[/** @type {"finished" | "failed" | "cancelled"} */ (status)];
  const facts = [
    run?.startedAt ? `in ${duration(block.at - run.startedAt)}` : "",
    run?.turn ? plural(run.turn, "turn") : "",
    tokens(event.usage) ? `${tokens(event.usage).toLocaleString("en")} tokens` : "",
    event.usage?.cost_usd ? money(event.usage.cost_usd) : "",
  ].filter(Boolean);
  const why = status === "finished" ? "" : [event.reason, event.detail].filter(Boolean).join(": ");
  return html`
    ${block.summary && html`<div class="message"><${Markdown} text=${block.summary} isDone=${true} /></div>`}
    <div class=${`end end-${status}`}>
      <span class="end-line"><${Icon} name=${icon} size=${15} /><strong>${word}</strong> <span>${facts.join(" · ")}</span></span>
      <${BlockTools} block=${block} />
      ${why && html`<p class="end-why">${why}</p>`}
    </div>`;
}

/** @param {{ block: Block }} props */
function Question({ block }) {
  const { question, answer } = block;
  const isOpen = !answer && !block.isClosed;
  const heading = { approval: "May the agent do this?", review: "Please check this", question: "The agent asks" }[
    /** @type {"approval" | "review" | "question"} */ (question.kind)
  ];
  return html`<section class=${`card question ${isOpen ? "is-open" : ""}`} aria-label=${heading}>
    <h2><${Icon} name="question" size=${16} />${heading}<${BlockTools} block=${block} /></h2>
    <${Markdown} text=${question.prompt} isDone=${true} />
    ${
      question.tool &&
      question.kind !== "question" &&
      html`<pre class="asked" tabindex="0"><strong>${question.tool}</strong> ${argumentsText(question.arguments)}</pre>`
    }
    ${isOpen && html`<${AnswerForm} question=${question} />`}
    ${
      answer &&
      html`<p class="answered"><${Icon} name="check" size=${14} />Answered: <strong>${answer.answer}</strong>
      ${answer.by && html` by ${answer.by}`}${answer.note && html` — ${answer.note}`}</p>`
    }
    ${block.isClosed && html`<p class="answered">The run ended before this was answered.</p>`}
  </section>`;
}

/** `text` with what would hide or reorder parts of it made visible: who approves it has to read what is done. @param {string} text */
function plain(text) {
  const code = (/** @type {string} */ mark) => `\\u{${mark.codePointAt(0)?.toString(16)}}`;
  return text.replaceAll(/(?![\n\t])[\p{Cc}\p{Cf}]/gu, code);
}

/** @param {Record<string, any>} given */
function argumentsText(given) {
  const values = Object.entries(given ?? {});
  if (values.length === 1 && typeof values[0][1] === "string") return plain(values[0][1]);
  return values.length ? plain(JSON.stringify(given, null, 2)) : "";
}

/** @param {{ question: any }} props */
function AnswerForm({ question }) {
  const [text, setText] = useState("");
  const [isSending, setSending] = useState(false);
  const open = thread.value;
  const isFree = question.choices.length === 0;
  const send = async (/** @type {string} */ answer) => {
    if (!open || !answer.trim()) return;
    setSending(true);
    await attempt(() => api.answer(open.id, question.question_id, answer, isFree ? "" : text));
    setSending(false);
    focusComposer.value += 1;
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (isFree) void send(text);
  };
  return html`<form class="answer" onSubmit=${submit}>
    ${
      !isFree &&
      html`<div class="choices">${question.choices.map(
        (/** @type {string} */ choice, /** @type {number} */ index) => html`<button
      key=${choice} type="button" class=${index === 0 ? "primary" : ""} disabled=${isSending} onClick=${() => send(choice)}>${choice}</button>`,
      )}</div>`
    }
    <label class="sr" for=${`a-${question.question_id}`}>${isFree ? "Your answer" : "A remark for the agent"}</label>
    <input id=${`a-${question.question_id}`} type="text" value=${text} placeholder=${isFree ? "Your answer" : "A remark for the agent (optional)"}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} maxlength=${isFree ? 20000 : 2000} />
    ${isFree && html`<button type="submit" class="primary" disabled=${isSending || !text.trim()}>Answer</button>`}
    ${question.expires_at > 0 && html`<${Chip}>open until ${new Date(question.expires_at).toLocaleString()}<//>`}
  </form>`;
}
