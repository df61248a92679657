/** Where tasks are written: text, files, model, budgets, and what happens when a run is under way. */

import { attempt, draftOf, editDraft, focusComposer, health, route, send, thread, tick, upload } from "../store.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { FilePicker, IconButton, Spinner } from "./parts.js";

const POLICIES = [
  { value: "enqueue", label: "Queue", hint: "Starts when the present run has ended" },
  { value: "steer", label: "Steer", hint: "Told to the agent at its next turn" },
  { value: "interrupt", label: "Interrupt", hint: "Ends the present run first" },
];
const BUDGETS = [
  { name: "usd", label: "US dollars", step: "0.1" },
  { name: "turns", label: "Turns", step: "1" },
  { name: "tokens", label: "Tokens", step: "1000" },
  { name: "seconds", label: "Seconds", step: "10" },
];

export function Composer() {
  void tick.value;
  const threadId = route.value.threadId;
  const draft = draftOf(threadId);
  const [isSending, setSending] = useState(false);
  const [isUploading, setUploading] = useState(false);
  const [areOptionsOpen, setOptionsOpen] = useState(false);
  const [policy, setPolicy] = useState("enqueue");
  const [model, setModel] = useState("");
  const [budgets, setBudgets] = useState(/** @type {Record<string, string>} */ ({}));
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const run = thread.value?.view.activeRun;
  const isBusy = run?.status === "running" || run?.status === "queued";

  const change = (/** @type {Partial<typeof draft>} */ part) => editDraft(threadId, part);
  useEffect(() => {
    if (focusComposer.value) area.current?.focus();
  }, [focusComposer.value]);
  useEffect(() => grow(area.current), [draft.text]);

  const submit = async (/** @type {Event | undefined} */ event) => {
    event?.preventDefault();
    if (!draft.text.trim() || isSending) return;
    setSending(true);
    const limits = Object.fromEntries(
      Object.entries(budgets)
        .filter(([, value]) => Number(value) > 0)
        .map(([name, value]) => [name, Number(value)]),
    );
    const options = { model, budgets: limits, policy: isBusy ? policy : undefined, files: draft.files };
    if (await attempt(() => send(draft.text, options))) change({ text: "", files: [] });
    setSending(false);
    area.current?.focus();
  };
  const leaveOut = (/** @type {string} */ path) => change({ files: draft.files.filter((one) => one !== path) });
  const add = async (/** @type {File[]} */ files) => {
    if (!files.length) return;
    setUploading(true);
    await attempt(() => upload(files));
    setUploading(false);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void submit(event);
  };
  const onPaste = (/** @type {ClipboardEvent} */ event) => {
    const files = [...(event.clipboardData?.files ?? [])].map(named);
    if (files.length) {
      event.preventDefault();
      void add(files);
    }
  };
  return html`<form class="composer" id="composer" onSubmit=${submit} aria-label="New task">
    ${isBusy && html`<${Policies} value=${policy} onChange=${setPolicy} />`}
    ${
      (draft.files.length > 0 || isUploading) &&
      html`<ul class="attachments" aria-label="Files for the task">
      ${draft.files.map(
        (path) => html`<li key=${path}><${Icon} name="file" size=${13} />${path}
        <${IconButton} icon="cross" size=${12} label=${`Leave ${path} out`} onClick=${() => leaveOut(path)} /></li>`,
      )}
      ${isUploading && html`<li><${Spinner} />uploading</li>`}
    </ul>`
    }
    <textarea ref=${area} rows="1" dir="auto" aria-label="Task" placeholder=${placeholder(isBusy, policy)}
      value=${draft.text} readOnly=${isSending} autofocus
      onInput=${(/** @type {any} */ event) => change({ text: event.target.value })} onKeyDown=${onKey} onPaste=${onPaste}></textarea>
    <div class="composer-bar">
      <${FilePicker} label="Attach files" onFiles=${add} />
      <${IconButton} icon="settings" label="Model and budgets" pressed=${areOptionsOpen} onClick=${() => setOptionsOpen(!areOptionsOpen)} />
      <span class="composer-hint">${summary(model, budgets)}</span>
      <button type="submit" class="send" disabled=${isSending || !draft.text.trim()} aria-label="Send the task" title="Send (Enter)">
        ${isSending ? html`<${Spinner} />` : html`<${Icon} name="send" size=${17} />`}
      </button>
    </div>
    ${areOptionsOpen && html`<${Options} model=${model} setModel=${setModel} budgets=${budgets} setBudgets=${setBudgets} />`}
  </form>`;
}

/** @param {boolean} isBusy @param {string} policy */
function placeholder(isBusy, policy) {
  if (!isBusy) return "What should be done?";
  return (
    {
      enqueue: "What should be done next?",
      steer: "What should the agent know?",
      interrupt: "What should be done instead?",
    }[policy] ?? ""
  );
}

/** @param {string} model @param {Record<string, string>} budgets */
function summary(model, budgets) {
  const limits = BUDGETS.filter(({ name }) => Number(budgets[name]) > 0).map(({ name }) =>
    name === "usd" ? `$${budgets[name]}` : `${budgets[name]} ${name}`,
  );
  return [model, limits.length ? `at most ${limits.join(", ")}` : ""].filter(Boolean).join(" · ");
}

/** @param {{ value: string, onChange: (value: string) => void }} props */
function Policies({ value, onChange }) {
  return html`<fieldset class="policies"><legend class="sr">A run is under way: what to do with this task</legend>
    ${POLICIES.map(
      (
        policy,
      ) => html`<label key=${policy.value} title=${policy.hint} class=${value === policy.value ? "is-chosen" : ""}>
      <input type="radio" name="policy" value=${policy.value} checked=${value === policy.value}
        onChange=${() => onChange(policy.value)} />${policy.label}
    </label>`,
    )}
    <span class="quiet">${POLICIES.find((policy) => policy.value === value)?.hint}</span>
  </fieldset>`;
}

/** @param {{ model: string, setModel: (model: string) => void, budgets: Record<string, string>, setBudgets: (budgets: any) => void }} props */
function Options({ model, setModel, budgets, setBudgets }) {
  return html`<div class="options">
    <label>Model<input type="text" value=${model} placeholder=${health.value?.model || "the default"} spellcheck="false"
      onInput=${(/** @type {any} */ event) => setModel(event.target.value.trim())} /></label>
    ${BUDGETS.map(
      ({ name, label, step }) => html`<label key=${name}>${label}
      <input type="number" min="0" step=${step} value=${budgets[name] ?? ""} placeholder="no own limit" inputmode="decimal"
        onInput=${(/** @type {any} */ event) => setBudgets({ ...budgets, [name]: event.target.value })} /></label>`,
    )}
  </div>`;
}

/** A pasted picture under a name of its own: browsers call all of them image.png. @param {File} file */
function named(file) {
  const [, ending] = /^image\.(\w+)$/.exec(file.name) ?? [];
  if (!ending) return file;
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
  return new File([file], `pasted-${stamp}.${ending}`, { type: file.type });
}

/** Makes the text field as high as its text. @param {HTMLTextAreaElement | null} area */
function grow(area) {
  if (!area) return;
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, 260)}px`;
}
