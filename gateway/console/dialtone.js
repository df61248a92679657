/**
 * Dialtone in JavaScript: the whole HTTP API, and a stream that survives lost connections. One file, no dependencies,
 * for browsers, Node 18+ and Deno.
 *
 *   import { Dialtone } from "./dialtone.js";
 *   const dialtone = new Dialtone({ url: "https://agents.example.org", key: "dt_…" });
 *   const threadId = await dialtone.initiate({ title: "Report" });
 *   const run = await dialtone.execute(threadId, "Write a report on …");
 *   for await (const item of dialtone.stream(threadId, { runId: run.run_id })) console.log(item.kind, item.data);
 *
 * @module
 */

/** Answers that say "later": whatever is safe to repeat may be sent again. */
const RETRY_STATUSES = new Set([408, 425, 429, 500, 502, 503, 504]);
/** Answers that promise that nothing was done. */
const REFUSED_STATUSES = new Set([429, 503]);
const TERMINAL_TYPES = new Set(["run.finished", "run.failed", "run.cancelled"]);
/** A gateway sends a heartbeat at least every 15 s; three missed ones mean that the connection is dead. */
const SILENCE_MS = 45_000;
const MAX_PAUSE_MS = 30_000;
/** A proxy may swallow what would become a WebSocket: after this the stream comes over SSE. */
const OPEN_MS = 5_000;
const RETRIES = 4;

/** The gateway refused: a problem body (RFC 9457). Match on `code`, never on the text. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} problem
   * @param {number | null} retryAfterMs
   */
  constructor(status, problem, retryAfterMs = null) {
    super(String(problem.detail || problem.title || `the gateway answered ${status}`));
    this.name = "ApiError";
    this.status = status;
    this.code = String(problem.code || `http_${status}`);
    this.requestId = String(problem.request_id || "");
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }
}

/** No usable answer: refused, no such host, cut off, timed out. */
export class Unreachable extends Error {
  /** @param {unknown} cause */
  constructor(cause) {
    super("the gateway does not answer", { cause });
    this.name = "Unreachable";
    this.code = "unreachable";
  }
}

/**
 * @typedef {{ event: string, data: any, id: string | null, retryMs?: number | null }} SseMessage
 *   data: text over SSE, what it says over a WebSocket
 * @typedef {"connecting" | "live" | "waiting" | "ended" | "failed"} StreamState
 * @typedef {{ state: StreamState, retryInMs?: number, error?: Error }} StreamNews
 * @typedef {{ kind: "event" | "delta" | "waiting" | "gap" | "reset", id: string | null, data: any }} StreamItem
 *   event: a fact of the log · delta: a preview of what still grows · waiting: why a run has not started ·
 *   gap: events that are gone, with the folded state · reset: the cursor was another log's
 * @typedef {{ body?: unknown, raw?: BodyInit, headers?: Record<string, string>, repeatable?: boolean, retries?: number }} Sending
 */

/** Turns pieces of `text/event-stream` into messages; every split of the same bytes gives the same messages. */
export class SseParser {
  constructor() {
    /** @type {number | null} the newest `retry:` */
    this.retryMs = null;
    this._decoder = new TextDecoder();
    this._rest = "";
    this._skipLf = false;
    this._clear();
  }

  /**
   * @param {Uint8Array} chunk
   * @returns {SseMessage[]}
   */
  feed(chunk) {
    let text = this._rest + this._decoder.decode(chunk, { stream: true });
    if (!text) return [];
    if (this._skipLf && text.startsWith("\n")) text = text.slice(1);
    const lines = text.split(/\r\n|\r|\n/);
    this._rest = /** @type {string} */ (lines.pop());
    this._skipLf = text.endsWith("\r");
    /** @type {SseMessage[]} */
    const messages = [];
    for (const line of lines) {
      if (line === "") {
        if (this._data.length)
          messages.push({ event: this._event || "message", data: this._data.join("\n"), id: this._id });
        this._clear();
      } else {
        this._field(line);
      }
    }
    return messages;
  }

  /** @param {string} line */
  _field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this._data.push(value);
    else if (name === "event") this._event = value;
    else if (name === "id" && !value.includes("\0")) this._id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }

  _clear() {
    this._event = "";
    /** @type {string[]} */
    this._data = [];
    /** @type {string | null} */
    this._id = null;
  }
}

/** A client of one gateway. */
export class Dialtone {
  /**
   * @param {{ url?: string, key?: string }} [options]
   *   url: the gateway, "" for the page's own origin · key: sent as `Authorization: Bearer`; without one the browser's
   *   session cookie counts
   */
  constructor({ url = "", key = "" } = {}) {
    this._url = url.replace(/\/$/, "");
    /** @type {Record<string, string>} */
    this._auth = key ? { Authorization: `Bearer ${key}` } : {};
  }

  /** Any other call of the API, answered with its JSON. @param {string} method @param {string} path @param {Sending} [sending] */
  request(method, path, sending) {
    return this._json(method, path, sending);
  }

  health() {
    return this._json("GET", "/health", { retries: 0 });
  }

  /** Who the caller is. Fails with 401 when nobody is signed in. */
  session() {
    return this._json("GET", "/api/session", { retries: 0 });
  }

  /** Exchanges an API key for the browser's session cookie. @param {string} key */
  signIn(key) {
    return this._json("POST", "/api/session", { body: { key }, retries: 0 });
  }

  signOut() {
    return this._json("DELETE", "/api/session");
  }

  /**
   * The new thread's id.
   * @param {{ title?: string, model?: string, metadata?: object }} [options]
   * @returns {Promise<string>}
   */
  async initiate(options = {}) {
    return (await this._json("POST", "/api/agent/initiate", { body: options, repeatable: false })).thread_id;
  }

  /**
   * Starts a run. A lost answer is safe: the request carries an Idempotency-Key and is repeated.
   * @param {string} threadId
   * @param {string} task
   * @param {{ model?: string, files?: string[], policy?: string, budgets?: object, webhook?: string,
   *   idempotencyKey?: string }} [options]
   */
  execute(threadId, task, { idempotencyKey = randomKey(), ...options } = {}) {
    const headers = { "Idempotency-Key": idempotencyKey };
    return this._json("POST", `${thread(threadId)}/execute`, { body: { task, ...options }, headers });
  }

  /** One page of threads, newest first. @param {{ q?: string, limit?: number, cursor?: string }} [query] */
  threads(query = {}) {
    return this._json("GET", `/api/agent${params(query)}`);
  }

  /** @param {string} threadId */
  thread(threadId) {
    return this._json("GET", thread(threadId));
  }

  /** @param {string} threadId @param {{ title?: string, metadata?: object }} changes */
  updateThread(threadId, changes) {
    return this._json("PATCH", thread(threadId), { body: changes });
  }

  /** @param {string} threadId */
  deleteThread(threadId) {
    return this._json("DELETE", thread(threadId));
  }

  /** @param {string} threadId @param {{ limit?: number, cursor?: string }} [query] */
  runs(threadId, query = {}) {
    return this._json("GET", `${thread(threadId)}/runs${params(query)}`);
  }

  /** @param {string} runId */
  run(runId) {
    return this._json("GET", runPath(runId));
  }

  /** One page of a thread's or a run's events. @param {string} threadId @param {{ after?: string, limit?: number, runId?: string }} [query] */
  events(threadId, { runId, ...query } = {}) {
    return this._json("GET", `${runId ? runPath(runId) : thread(threadId)}/events${params(query)}`);
  }

  /** @param {string} runId @param {string} [reason] */
  cancel(runId, reason = "") {
    return this._json("POST", `${runPath(runId)}/cancel`, { body: { reason } });
  }

  /** Hands `text` to the running agent. @param {string} runId @param {string} text */
  steer(runId, text) {
    return this._json("POST", `${runPath(runId)}/steer`, { body: { text }, repeatable: false });
  }

  /** @param {string} threadId @param {string} questionId @param {string} answer @param {string} [note] */
  answer(threadId, questionId, answer, note = "") {
    const path = `${thread(threadId)}/questions/${encodeURIComponent(questionId)}/answer`;
    return this._json("POST", path, { body: { answer, note }, repeatable: false });
  }

  /** What is in the workspace. @param {string} threadId @param {{ path?: string, depth?: number }} [query] */
  async files(threadId, query = {}) {
    return (await this._json("GET", `${thread(threadId)}/files${params(query)}`)).items;
  }

  /** Where a file is. @param {string} threadId @param {string} path @param {{ download?: boolean }} [options] */
  fileUrl(threadId, path, { download = false } = {}) {
    return `${this._url}${this._filePath(threadId, path)}${download ? "?download=1" : ""}`;
  }

  /** @param {string} threadId @param {string} path */
  _filePath(threadId, path) {
    const parts = path.split("/");
    if (parts.includes("..")) throw new RangeError(`leads out of its folder: ${path}`);
    return `${thread(threadId)}/files/${parts.map(encodeURIComponent).join("/")}`;
  }

  /** How the files differ between two events; between one and now without `until`. @param {string} threadId @param {string} since */
  diff(threadId, since, until = "", limit = 100) {
    return this._json("GET", `${thread(threadId)}/diff${params({ from: since, to: until, limit })}`);
  }

  /** Makes the files what they were at an event. @param {string} threadId @param {string} event */
  restore(threadId, event) {
    return this._json("POST", `${thread(threadId)}/restore`, { body: { event }, repeatable: false });
  }

  /** A new thread that goes on from an event. @param {string} threadId @param {string} event @param {string} [title] */
  fork(threadId, event, title = "") {
    return this._json("POST", `${thread(threadId)}/fork`, { body: { event, title }, repeatable: false });
  }

  /** Where the whole workspace is, as one file. @param {string} threadId @param {{ format?: "tar" | "zip" }} [query] */
  archiveUrl(threadId, query = {}) {
    return `${this._url}${thread(threadId)}/archive${params(query)}`;
  }

  /** @param {string} threadId @param {string} path @returns {Promise<Blob>} */
  async getFile(threadId, path) {
    return this._send("GET", this._filePath(threadId, path), { read: (response) => response.blob() });
  }

  /** @param {string} threadId @param {string} path @param {BodyInit} content */
  async putFile(threadId, path, content) {
    return this._json("PUT", this._filePath(threadId, path), { raw: content });
  }

  /** @param {string} threadId @param {string} path */
  async deleteFile(threadId, path) {
    await this._json("DELETE", this._filePath(threadId, path));
  }

  /** The links to servers in the sandbox that still hold, oldest first. @param {string} threadId */
  async previews(threadId) {
    return (await this._json("GET", `${thread(threadId)}/previews`)).items;
  }

  /** Ends a link. @param {string} threadId @param {string} previewId */
  async revokePreview(threadId, previewId) {
    await this._json("DELETE", `${thread(threadId)}/previews/${encodeURIComponent(previewId)}`);
  }

  /**
   * Everything that happens in a thread, without hole or repeat across lost connections.
   *
   * Ends after the terminal event of `runId`, when the gateway says that nothing more comes (204), or when `signal` is
   * aborted. Throws ApiError for a refusal that waiting cannot heal. Never gives up on a gateway that is away.
   *
   * With `socket` it comes over a WebSocket where one can be opened, else over SSE: to one host a browser opens at most
   * six HTTP/1.1 connections for all its tabs, but hundreds of WebSockets. Over a WebSocket a finished thread goes on.
   * @param {string} threadId
   * @param {{ runId?: string, lastId?: string, from?: string, deltas?: boolean, socket?: boolean, signal?: AbortSignal,
   *   onState?: (news: StreamNews) => void }} [options]
   * @returns {AsyncGenerator<StreamItem, void, void>}
   */
  async *stream(threadId, { runId = "", lastId = "", from = "start", deltas = true, socket, signal, onState } = {}) {
    const cursor = { lastId, from, done: false };
    let failures = 0;
    let retryMs = 1000;
    for (;;) {
      onState?.({ state: "connecting" });
      const connection = new Connection(signal);
      /** @type {Error | null} */
      let failure = null;
      try {
        const query = cursor.lastId ? { last_id: cursor.lastId } : { from: cursor.from };
        const wish = { run_id: runId, deltas, ...query };
        const opened =
          (socket && (await this._openSocket(connection, threadId, wish))) ||
          (await this._openSse(connection, threadId, wish));
        if (!connection.isOver) onState?.({ state: "live" });
        for await (const message of opened) {
          failures = 0;
          retryMs = message.retryMs ?? retryMs;
          const item = read(message);
          if (item && isNew(cursor, item, runId)) yield item;
          if (cursor.done) break;
        }
        cursor.done ||= connection.isOver;
      } catch (error) {
        if (signal?.aborted) return;
        failure = /** @type {Error} */ (error);
        if (failure instanceof ApiError && !RETRY_STATUSES.has(failure.status)) {
          onState?.({ state: "failed", error: failure });
          throw failure;
        }
      } finally {
        connection.close();
      }
      if (signal?.aborted) return;
      if (cursor.done) {
        onState?.({ state: "ended" });
        return;
      }
      const asked = failure instanceof ApiError ? failure.retryAfterMs : null;
      const pauseMs = backoffMs(failures, retryMs, asked);
      failures += 1;
      onState?.({ state: "waiting", retryInMs: pauseMs, error: failure ?? undefined });
      await pause(pauseMs, signal);
      if (signal?.aborted) return;
    }
  }

  /**
   * The messages of an SSE stream; none when the gateway says that nothing more comes.
   * @param {Connection} connection
   * @param {string} threadId
   * @param {Record<string, unknown>} wish
   */
  async _openSse(connection, threadId, wish) {
    const response = await connection.fetch(`${this._url}${thread(threadId)}/stream${params(wish)}`, this._auth);
    connection.isOver = response.status === 204;
    if (!response.ok) throw await apiError(response);
    return connection.messages(response);
  }

  /**
   * The messages of a WebSocket; null when none can be opened, for whatever reason: a browser does not tell.
   * @param {Connection} connection
   * @param {string} threadId
   * @param {Record<string, unknown>} wish
   */
  async _openSocket(connection, threadId, wish) {
    const path = `${thread(threadId)}/ws${params({ ...wish, batch: true })}`;
    const url = new URL(this._url + path, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    // A socket carries no header: a key is exchanged for a ticket that is good for one connection.
    if (this._auth.Authorization) {
      const { ticket } = await this._json("POST", `${thread(threadId)}/ticket`, { retries: 0 });
      url.searchParams.set("ticket", ticket);
    }
    return connection.socket(url);
  }

  /** @param {string} method @param {string} path @param {Sending} [options] @returns {Promise<any>} */
  async _json(method, path, options = {}) {
    const text = await this._send(method, path, { ...options, read: (response) => response.text() });
    return text ? JSON.parse(text) : null;
  }

  /**
   * What `read` makes of the answer. An answer that breaks off in the middle counts as lost.
   * @param {string} method
   * @param {string} path
   * @param {Sending & { read: (response: Response) => Promise<any> }} options
   */
  async _send(method, path, { body, raw, headers = {}, repeatable = true, retries = RETRIES, read }) {
    const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const kind = raw === undefined ? "application/json" : "application/octet-stream";
    /** @type {Record<string, string>} */
    const type = content === undefined ? {} : { "Content-Type": kind };
    /** @type {RequestInit} */
    const request = { method, headers: { ...this._auth, ...headers, ...type }, body: content, cache: "no-store" };
    for (let attempt = 0; ; attempt += 1) {
      let asked = null;
      try {
        const response = await fetch(this._url + path, request);
        if (response.ok) return await read(response);
        const error = await apiError(response);
        const again = repeatable ? RETRY_STATUSES : REFUSED_STATUSES;
        if (!again.has(error.status) || attempt >= retries) throw error;
        asked = error.retryAfterMs;
      } catch (error) {
        if (error instanceof ApiError) throw error;
        if (!repeatable || attempt >= retries) throw new Unreachable(error);
      }
      await pause(backoffMs(attempt, 250, asked));
    }
  }
}

/** One connection of a stream, ended by its owner, by `signal`, by silence, or by a browser that lost its network. */
class Connection {
  /** @param {AbortSignal} [signal] */
  constructor(signal) {
    /** The other side has said that nothing more comes. */
    this.isOver = false;
    this._controller = new AbortController();
    this._signal = signal;
    this._abort = () => this._controller.abort();
    signal?.addEventListener("abort", this._abort);
    if (signal?.aborted) this._abort();
    globalThis.addEventListener?.("offline", this._abort);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._watchdog = undefined;
    this._heard = () => {
      clearTimeout(this._watchdog);
      this._watchdog = setTimeout(this._abort, SILENCE_MS);
    };
    this._heard();
  }

  /** @param {string} url @param {Record<string, string>} headers */
  fetch(url, headers) {
    return fetch(url, { headers, cache: "no-store", signal: this._controller.signal });
  }

  /** What an SSE response says. @param {Response} response @returns {AsyncGenerator<SseMessage, void, void>} */
  async *messages(response) {
    const reader = response.body?.getReader();
    if (!reader) return;
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this._heard();
      for (const message of parser.feed(value)) yield { ...message, retryMs: parser.retryMs };
    }
  }

  /**
   * What a WebSocket says, once it is open; null when it cannot be.
   * @param {URL} url
   * @returns {Promise<AsyncGenerator<SseMessage, void, void> | null>}
   */
  async socket(url) {
    if (!globalThis.WebSocket) return null;
    const socket = new WebSocket(url);
    /** @type {string[]} */
    const waiting = [];
    let wake = () => {};
    // A dead network does not answer the close: nobody waits for that.
    this._controller.signal.addEventListener("abort", () => (socket.close(), wake()));
    const timer = setTimeout(() => socket.close(), OPEN_MS);
    socket.onmessage = ({ data }) => {
      this._heard();
      waiting.push(...data.split("\n"));
      wake();
    };
    const isOpen = await new Promise((resolve) => {
      socket.onopen = () => resolve(true);
      socket.onclose = () => resolve(false);
    });
    clearTimeout(timer);
    if (!isOpen) return null;
    socket.onclose = ({ code }) => {
      this.isOver = code === 1000;
      wake();
    };
    return (async function* () {
      for (;;) {
        const texts = waiting.splice(0);
        for (const text of texts) {
          const { event, id = null, data } = JSON.parse(text);
          yield { event, id, data };
        }
        if (waiting.length) continue;
        if (socket.readyState !== WebSocket.OPEN) return;
        await /** @type {Promise<void>} */ (new Promise((resolve) => (wake = resolve)));
      }
    })();
  }

  close() {
    clearTimeout(this._watchdog);
    this._signal?.removeEventListener("abort", this._abort);
    globalThis.removeEventListener?.("offline", this._abort);
    this._controller.abort();
  }
}

/** @param {SseMessage} message @returns {StreamItem | null} null for heartbeats and for names we do not know */
function read(message) {
  const { event, id } = message;
  if (event === "keep_alive") return null;
  const data = typeof message.data === "string" ? JSON.parse(message.data) : message.data;
  if (event === "task_agent_execute") return { kind: id ? "event" : "delta", id, data };
  if (event === "waiting" || event === "gap" || event === "reset") return { kind: event, id, data };
  if (event === "error") throw new ApiError(Number(data.status) || 500, data);
  return null;
}

/**
 * Moves the cursor; false for an event that was handed out before.
 * @param {{ lastId: string, from: string, done: boolean }} cursor
 * @param {StreamItem} item
 * @param {string} runId
 */
function isNew(cursor, item, runId) {
  if (item.kind === "gap" || item.kind === "reset") {
    cursor.lastId = item.id || (item.kind === "gap" ? item.data.to : "") || "";
    cursor.from = "start";
    const run = runId ? item.data.state?.runs?.[runId] : null;
    cursor.done = Boolean(run && TERMINAL_TYPES.has(`run.${run.status}`));
  } else if (item.kind === "event") {
    const id = /** @type {string} */ (item.id);
    if (!isAfter(id, cursor.lastId)) return false;
    cursor.lastId = id;
    cursor.done = Boolean(runId) && item.data.run_id === runId && TERMINAL_TYPES.has(item.data.type);
  }
  return true;
}

/** True if the event id comes later than `cursor` in the same log, or if the two cannot be compared. @param {string} id @param {string} cursor */
export function isAfter(id, cursor) {
  const [epoch, seq] = id.split("-");
  const [cursorEpoch, cursorSeq] = cursor.split("-");
  return epoch !== cursorEpoch || Number(seq) > Number(cursorSeq);
}

/** @param {number} attempt @param {number} baseMs @param {number | null} askedMs */
function backoffMs(attempt, baseMs, askedMs) {
  const pauseMs = Math.min(baseMs * 2 ** Math.min(attempt, 16), MAX_PAUSE_MS) * (0.5 + Math.random() / 2);
  return askedMs === null ? pauseMs : Math.min(askedMs + pauseMs / 10, 60_000);
}

/** Waits; a signal or a network that comes back ends it early. @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      globalThis.removeEventListener?.("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    globalThis.addEventListener?.("online", done);
  });
}

/** @param {Response} response */
async function apiError(response) {
  const problem = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new ApiError(response.status, problem ?? {}, Number.isFinite(seconds) ? seconds * 1000 : null);
}

/** @param {Record<string, unknown>} query */
function params(query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}

/** @param {string} threadId */
function thread(threadId) {
  // fetch() resolves these before it asks, and would ask for something else.
  if (["", ".", ".."].includes(threadId)) throw new RangeError(`not an id: ${threadId}`);
  return `/api/agent/${encodeURIComponent(threadId)}`;
}

/** A run id carries its thread's. @param {string} runId */
function runPath(runId) {
  return `${thread(runId.split(".")[0])}/runs/${encodeURIComponent(runId)}`;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
