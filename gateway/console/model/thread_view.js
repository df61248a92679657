/**
 * A thread as a page shows it, folded from its stream: feed it items, read blocks and runs. Knows nothing of the page.
 *
 * The same log gives the same blocks, whatever previews came or were lost on the way.
 *
 * @typedef {import("./types.js").Block} Block
 * @typedef {import("./types.js").Chunk} Chunk
 * @typedef {import("./types.js").FileView} FileView
 * @typedef {import("./types.js").LogEvent} LogEvent
 * @typedef {import("./types.js").RunView} RunView
 * @typedef {import("./types.js").Section} Section
 * @typedef {import("./types.js").TimedTurn} TimedTurn
 */

import { Growing } from "./growing.js";

export const CHUNK_BLOCKS = 8;
export const SECTION_CHUNKS = 32;

/** @type {Record<string, string>} */
const RESUMED = {
  answered: "The agent goes on with the answer",
  worker_lost: "A worker was lost; another one took over after the last finished step",
  released: "A worker made room; another one took over after the last finished step",
  redis_lost: "The store was away; the run goes on after the last finished step",
};
const NOTES = {
  "run.resumed": (/** @type {LogEvent} */ e) => RESUMED[e.reason] ?? `The run goes on (${words(e.reason)})`,
  "context.compacted": (/** @type {LogEvent} */ e) =>
    `The context was shortened from ${e.tokens_before.toLocaleString("en")} to ${e.tokens_after.toLocaleString("en")} tokens`,
  notice: (/** @type {LogEvent} */ e) => e.text || e.code,
};

export class ThreadView {
  constructor() {
    /** @type {Chunk[]} */
    this.chunks = [];
    /** @type {Section[]} the chunks again, by their sections */
    this.sections = [];
    /** @type {Map<string, RunView>} oldest first */
    this.runs = new Map();
    /** @type {Map<string, FileView>} */
    this.files = new Map();
    /** @type {Map<string, Block>} open and answered questions by id */
    this.questions = new Map();
    /** @type {LogEvent[]} */
    this.previews = [];
    /** @type {string[]} */
    this.suggestions = [];
    /** @type {LogEvent | null} what the newest sandbox is and does not promise */
    this.sandbox = null;
    /** @type {LogEvent[]} moments whose files can be had again, oldest first */
    this.saves = [];
    this.lastId = "";
    this.eventCount = 0;
    this._blockCount = 0;
    /** @type {Map<string, Block>} messages and calls by item or call id */
    this._byItem = new Map();
    /** @type {Set<string>} messages and calls that are finished: late previews of them are dropped */
    this._finished = new Set();
    /** @type {LogEvent[]} changed files that the next tool result will explain */
    this._loose = [];
  }

  /** The run that the page is about: the newest one that works, else the newest. */
  get activeRun() {
    const runs = [...this.runs.values()];
    return (
      runs.findLast((run) => run.status === "running") ??
      runs.find((run) => run.status === "queued") ??
      runs.at(-1) ??
      null
    );
  }

  /** @returns {Generator<Block>} */
  *blocks() {
    for (const chunk of this.chunks) yield* chunk.blocks;
  }

  /** The block that shows the event `id`, or the last one before it. @param {string} id */
  blockOf(id) {
    const seq = sequence(id);
    let found = null;
    for (const block of this.blocks()) {
      if (block.isHidden || !block.id) continue;
      if (sequence(block.id) > seq) break;
      found = block;
    }
    return found;
  }

  /** @param {import("../dialtone.js").StreamItem} item */
  apply(item) {
    switch (item.kind) {
      case "event":
        return this._event(item.data);
      case "delta":
        return this._delta(item.data);
      case "waiting":
        return this._waiting(item.data);
      default:
        return this._snapshot(item);
    }
  }

  /** @param {LogEvent} event */
  _event(event) {
    this.lastId = event.id;
    this.eventCount += 1;
    const run = event.run_id ? this._run(event.run_id) : null;
    if (event.type !== "file.changed" && event.type !== "tool.result") this._flushLoose();
    this._dispatch(event, run);
    if (run) {
      run.turn = Math.max(run.turn, event.turn ?? 0);
      run.lastAt = event.at;
    }
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _dispatch(event, run) {
    switch (event.type) {
      case "run.queued":
        return this._queued(event, run);
      case "run.started":
        return this._started(event, run);
      case "run.resumed":
        if (run) {
          const { worker, attempt, config_hash: configHash = "" } = event;
          Object.assign(run, { worker, attempt, waitingFor: "", configHash: configHash || run.configHash });
        }
        return this._note(event);
      case "message":
        return this._message(event, run);
      case "tool.call":
        return this._called(event, run);
      case "tool.result":
        return this._resulted(event, run);
      case "file.changed":
        return this._changed(event);
      case "plan.updated":
        if (run) run.plan = event.steps;
        return;
      case "todo.updated":
        if (run) run.todos = event.items;
        return;
      case "approval.requested":
        return this._asked(event);
      case "approval.resolved":
        return this._answered(event);
      case "usage":
        return this._used(event, run);
      case "suggestions":
        this.suggestions = event.items;
        return;
      case "preview.exposed":
        this.previews = [...this.previews.filter((preview) => preview.port !== event.port), event];
        this._add("note", event, { text: `Preview of port ${event.port}`, url: event.url, tone: "link" });
        return;
      case "workspace.saved":
        this.saves.push(event);
        return;
      case "sandbox.ready":
        this.sandbox = event;
        return;
      case "run.finished":
      case "run.failed":
      case "run.cancelled":
        return this._ended(event, run);
      default:
        return this._note(event);
    }
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _queued(event, run) {
    if (run) Object.assign(run, { task: event.task, queuedAt: event.at, lastAt: event.at });
    this.suggestions = [];
    this._add("task", event, { text: event.task, files: event.files ?? [], model: event.model ?? "" });
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _started(event, run) {
    if (!run) return;
    const { model, sandbox, worker, attempt, config_hash: configHash } = event;
    Object.assign(run, {
      status: "running",
      startedAt: event.at,
      position: null,
      waitingFor: "",
      model,
      sandbox,
      worker,
      attempt,
      configHash,
    });
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _message(event, run) {
    if (event.role === "user") {
      if (event.origin === "agent") this._add("note", event, { text: event.text, tone: "reminder", type: "reminder" });
      else this._add("person", event, { text: event.text });
      return;
    }
    const shown = this._byItem.get(event.item);
    const block = shown ?? this._add("message", event, { item: event.item });
    this._finished.add(event.item);
    this._byItem.delete(event.item);
    Object.assign(block, {
      id: event.id,
      at: event.at,
      text: event.text,
      reasoning: event.reasoning,
      model: event.model,
      finishReason: event.finish_reason,
      isDone: true,
      isHidden: !event.text.trim() && !event.reasoning.trim(),
    });
    this._touch(block);
    this._dropUnfinished(event.run_id, "message");
    for (const call of event.tool_calls) {
      const preparing = this._byItem.get(call.id);
      if (preparing) this._touch(Object.assign(preparing, { tool: call.name }));
    }
    if (run) {
      run.lastText = event.text.trim() || run.lastText;
      const turn = this._turn(run, event.turn);
      turn.id ||= event.id;
      turn.model = event.model || turn.model;
      turn.modelMs += Math.max(0, event.at - run.lastAt);
      turn.startedAt ||= run.lastAt;
    }
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _called(event, run) {
    const preparing = this._byItem.get(event.call_id);
    const block = preparing ?? this._add("tool", event, { callId: event.call_id, output: new Growing(), changes: [] });
    Object.assign(block, {
      id: event.id,
      at: event.at,
      tool: event.tool,
      arguments: event.arguments,
      note: event.note,
      effect: event.effect,
      isPreparing: false,
      startedAt: event.at,
    });
    this._byItem.set(event.call_id, block);
    this._finished.delete(event.call_id);
    this._touch(block);
    if (run) {
      const call = { callId: event.call_id, tool: event.tool, startedAt: event.at, ms: 0, ok: true };
      this._turn(run, event.turn).calls.push(call);
    }
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _resulted(event, run) {
    const known = this._byItem.get(event.call_id);
    const block =
      known ??
      this._add("tool", event, {
        callId: event.call_id,
        output: new Growing(),
        changes: [],
        tool: event.tool,
        arguments: {},
      });
    block.result = event;
    block.changes = [...block.changes, ...this._loose];
    this._loose = [];
    this._byItem.delete(event.call_id);
    this._finished.add(event.call_id);
    this._touch(block);
    const call = run?.turns.at(-1)?.calls.find((one) => one.callId === event.call_id);
    if (call) Object.assign(call, { ms: event.duration_ms, ok: event.ok });
  }

  /** @param {LogEvent} event */
  _changed(event) {
    /** @type {FileView} */
    const file = this.files.get(event.path) ?? { path: event.path, size: 0, isDeleted: false, changes: [] };
    file.size = event.size;
    file.isDeleted = event.change === "deleted";
    file.changes.push(event);
    this.files.set(event.path, file);
    this._loose.push(event);
  }

  _flushLoose() {
    const loose = this._loose;
    if (!loose.length) return;
    this._loose = [];
    this._add("changes", loose[0], { changes: loose });
  }

  /** @param {LogEvent} event */
  _asked(event) {
    const block = this._add("question", event, { question: event, answer: null });
    this.questions.set(event.question_id, block);
    const preparing = event.call_id ? this._byItem.get(event.call_id) : null;
    if (preparing?.isPreparing) this._touch(Object.assign(preparing, { isHidden: true }));
  }

  /** @param {LogEvent} event */
  _answered(event) {
    const block = this.questions.get(event.question_id);
    if (block) this._touch(Object.assign(block, { answer: event }));
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _used(event, run) {
    if (!run) return;
    run.usage = event.run;
    run.left = event.left ?? {};
    this._turn(run, event.turn).usage = event.call;
  }

  /** @param {LogEvent} event @param {RunView | null} run */
  _ended(event, run) {
    this._dropUnfinished(event.run_id, null);
    for (const block of this.questions.values()) {
      if (block.runId === event.run_id && !block.answer && !block.isClosed)
        this._touch(Object.assign(block, { isClosed: true }));
    }
    const status = event.type.slice("run.".length);
    if (run) {
      if (event.usage) run.usage = event.usage;
      Object.assign(run, { status, endedAt: event.at, reason: event.reason ?? "", position: null });
    }
    const summary = (event.summary ?? "").trim();
    this._add("end", event, { status, event, summary: run?.lastText === summary ? "" : summary, run });
  }

  /** @param {LogEvent} event */
  _note(event) {
    const write = NOTES[/** @type {keyof typeof NOTES} */ (event.type)];
    const tone = event.type === "notice" ? "notice" : "quiet";
    this._add("note", event, { text: write ? write(event) : words(event.type), tone, type: event.type });
  }

  /** @param {{ run_id: string, turn: number, item: string, kind: string, offset: number, text: string }} delta */
  _delta(delta) {
    if (this._finished.has(delta.item)) return;
    let block = this._byItem.get(delta.item);
    if (delta.kind === "text" || delta.kind === "reasoning") {
      block ??= this._grow("message", delta, { item: delta.item, text: "", reasoning: "", isDone: false, growing: {} });
      const growing = (block.growing[delta.kind] ??= new Growing());
      growing.take(delta.offset, delta.text);
      block[delta.kind] = growing.text;
    } else if (delta.kind === "arguments") {
      block ??= this._grow("tool", delta, {
        callId: delta.item,
        tool: "",
        arguments: {},
        output: new Growing(),
        changes: [],
        isPreparing: true,
        draft: new Growing(),
      });
      block.draft?.take(delta.offset, delta.text);
    } else if (block?.kind === "tool") {
      const streams = (block.streams ??= {});
      const fresh = (streams[delta.kind] ??= new Growing()).take(delta.offset, delta.text);
      block.output.text += fresh;
      block.output.hasHole ||= streams[delta.kind].hasHole;
    }
    if (block) this._touch(block);
  }

  /** @param {{ run_id: string, position: number | null, waiting_for: string }} waiting */
  _waiting(waiting) {
    const run = this._run(waiting.run_id);
    Object.assign(run, { position: waiting.position, waitingFor: waiting.waiting_for });
  }

  /** A gap or a reset: what is left of the events that cannot be read any more. @param {import("../dialtone.js").StreamItem} item */
  _snapshot(item) {
    const isReset = item.kind === "reset";
    if (isReset) Object.assign(this, new ThreadView());
    const { state, from, to } = item.data;
    const id = item.id ?? to ?? "";
    this._add("gap", { id, at: 0, run_id: null }, { from, to, isReset });
    for (const event of state?.transcript ?? []) {
      if (sequence(event.id) > sequence(this.lastId) || isReset) this._event(event);
    }
    for (const run of Object.values(state?.runs ?? {})) {
      Object.assign(this._run(run.run_id), {
        task: run.task,
        status: run.status,
        turn: run.turn,
        usage: run.usage,
        reason: run.reason,
      });
    }
    const run = this.activeRun;
    if (run && state) Object.assign(run, { plan: state.plan ?? [], todos: state.todos ?? [] });
    for (const event of Object.values(state?.files ?? {})) this._changed(event);
    this._loose = [];
    for (const event of Object.values(state?.questions ?? {}))
      if (!this.questions.has(event.question_id)) this._asked(event);
    this.suggestions = state?.suggestions ?? this.suggestions;
    this.lastId = id || this.lastId;
  }

  /** Hides previews that will never be finished. @param {string | null} runId @param {string | null} kind */
  _dropUnfinished(runId, kind) {
    for (const [item, block] of this._byItem) {
      if (block.runId !== runId || (kind && block.kind !== kind)) continue;
      if (block.kind === "tool" && !block.isPreparing) block.isAbandoned = true;
      else block.isHidden = true;
      this._byItem.delete(item);
      this._finished.add(item);
      this._touch(block);
    }
  }

  /** @param {Block["kind"]} kind @param {{ run_id: string, item: string }} delta @param {Record<string, any>} fields */
  _grow(kind, delta, fields) {
    const block = this._add(kind, { id: "", at: 0, run_id: delta.run_id }, fields);
    this._byItem.set(delta.item, block);
    return block;
  }

  /**
   * @param {Block["kind"]} kind
   * @param {{ id: string, at: number, run_id: string | null }} event
   * @param {Record<string, any>} fields
   * @returns {Block}
   */
  _add(kind, event, fields) {
    const chunk = this._room();
    this._blockCount += 1;
    const block = {
      kind,
      key: `b${this._blockCount}`,
      id: event.id,
      at: event.at,
      runId: event.run_id ?? "",
      rev: 0,
      isHidden: false,
      isOpen: null,
      chunk,
      ...fields,
    };
    chunk.blocks.push(block);
    this._touch(block);
    return block;
  }

  /** The chunk that the next block belongs to. @returns {Chunk} */
  _room() {
    const last = this.chunks.at(-1);
    if (last && last.blocks.length < CHUNK_BLOCKS) return last;
    let section = this.sections.at(-1);
    if (!section || section.chunks.length >= SECTION_CHUNKS) {
      section = { index: this.sections.length, chunks: [], rev: 0, height: 0 };
      this.sections.push(section);
    }
    const chunk = { index: this.chunks.length, section, blocks: [], rev: 0, height: 0 };
    section.chunks.push(chunk);
    this.chunks.push(chunk);
    return chunk;
  }

  /** Marks a block as changed. @param {Block} block */
  _touch(block) {
    block.rev += 1;
    block.chunk.rev += 1;
    block.chunk.section.rev += 1;
  }

  /** @param {string} runId @returns {RunView} */
  _run(runId) {
    let run = this.runs.get(runId);
    if (!run) {
      run = {
        runId,
        task: "",
        status: "queued",
        position: null,
        waitingFor: "",
        queuedAt: 0,
        startedAt: 0,
        endedAt: 0,
        lastAt: 0,
        turn: 0,
        model: "",
        sandbox: "",
        worker: "",
        attempt: 0,
        configHash: "",
        reason: "",
        usage: null,
        left: {},
        turns: [],
        plan: [],
        todos: [],
        lastText: "",
      };
      this.runs.set(runId, run);
    }
    return run;
  }

  /** @param {RunView} run @param {number} number @returns {TimedTurn} */
  _turn(run, number) {
    let turn = run.turns.at(-1);
    if (!turn || turn.turn !== number) {
      turn = { turn: number, id: "", model: "", startedAt: run.lastAt, modelMs: 0, calls: [], usage: null };
      run.turns.push(turn);
    }
    return turn;
  }
}

/** The running number in an event id. @param {string} id */
export function sequence(id) {
  return Number(id.split("-")[1] ?? 0);
}

/** @param {string} code */
function words(code) {
  return code.replaceAll(/[._]/g, " ");
}
