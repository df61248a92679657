/**
 * What the page knows and does: the signals that the components read, and the actions that they call.
 */

import { ApiError, Dialtone, isAfter } from "./dialtone.js";
import { ThreadView } from "./model/thread_view.js";
import { batch, effect, signal } from "./vendor/preact.js";

/** @typedef {import("./dialtone.js").StreamNews} StreamNews */
/**
 * @typedef {{ kind: "file", path: string, at?: string } | { kind: "event", event: any } | { kind: "help" } | { kind: "delete" }
 *   | { kind: "restore", event: string, changes: number }} Dialog
 */

/** @typedef {{ text: string, files: string[] }} Draft */
/** @type {Draft} */
const EMPTY_DRAFT = { text: "", files: [] };

/** A hidden page lets go of its stream after this, and takes it up where it was when it is seen again. */
const HIDDEN_MS = 20_000;
const LIST_EVERY_MS = 10_000;
const PAGE = 50;
/** So many items at once are a history, of which more may come: after their rendering there is a rest, so many times as long. */
const MANY_ITEMS = 50;
const REST = 3;

export const api = new Dialtone();

/** Which thread is shown, and which of its events: `#/t/<thread>/<event>`. */
export const route = signal(readRoute());
/** @type {import("./vendor/preact.js").Signal<any[]>} */
export const threads = signal([]);
export const threadsState = signal({ isLoaded: false, cursor: "", error: "" });
export const search = signal("");
/** The open thread: its record, and its folded stream. */
export const thread = signal(/** @type {{ id: string, record: any, view: ThreadView } | null} */ (null));
/** Grows with every change of the open thread, at most once a frame. */
export const tick = signal(0);
/** Grows with the same frames, but not for mere previews: plan, files and times stay as they are while a text is written. */
export const factTick = signal(0);
export const connection = signal(
  /** @type {{ state: StreamNews["state"] | "paused" | "idle", error?: Error, until?: number }} */ ({ state: "idle" }),
);
/** Why the open thread cannot be shown. */
export const threadError = signal("");
/** What the gateway says of itself; null before it said anything. */
export const health = signal(/** @type {any} */ (null));
export const isSignedOut = signal(false);
/** A short word to the person. */
export const toast = signal(/** @type {{ text: string, tone: "plain" | "bad" } | null} */ (null));
/** What screen readers are told. */
export const announcement = signal("");
/** The dialog that is open. */
export const dialog = signal(/** @type {Dialog | null} */ (null));
/** What is open beside the conversation; where it would cover it, a page begins without. */
export const panel = signal(
  /** @type {"plan" | "files" | "run" | ""} */ (
    matchMedia("(min-width: 1181px)").matches ? saved("panel", "plan") : ""
  ),
);
export const isSidebarOpen = signal(false);
export const theme = signal(/** @type {"auto" | "light" | "dark"} */ (saved("theme", "auto")));
/** Text and attached files of each thread's composer; "" is the one of a new thread. */
export const drafts = signal(/** @type {Record<string, Draft>} */ ({}));
/** Moves the conversation to its end. */
export const jumpToEnd = signal(0);
/** Moves the keyboard to the composer. */
export const focusComposer = signal(0);
/** The event that the workspace is compared with; "" for none. */
export const comparing = signal("");
/** Grows when files changed on the server by other hands than the agent's. */
export const filesChanged = signal(0);

/** @type {AbortController | null} */
let following = null;
let isHiddenLong = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let hiddenTimer;
let isTickDue = false;
let isFactDue = false;
/** What was searched for when the list that is shown came. */
let shownSearch = "";
/** Items that came since the last rendering. */
let newItems = 0;
/** No rendering before this moment of `performance.now()`. */
let restUntil = 0;

export function start() {
  addEventListener("hashchange", () => (route.value = readRoute()));
  document.addEventListener("visibilitychange", onVisibility);
  keepTheme();
  effect(() => save("panel", panel.value));
  effect(() => void openThread(route.value.threadId));
  effect(() => {
    search.value;
    void loadThreads();
  });
  setInterval(() => {
    if (!document.hidden) void loadThreads();
  }, LIST_EVERY_MS);
  void loadHealth();
}

/** Shows the chosen colours, and remembers them. */
export function keepTheme() {
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
    save("theme", theme.value);
  });
}

/** @returns {{ threadId: string, eventId: string }} */
function readRoute() {
  const [, threadId = "", eventId = ""] = /^#\/t\/([\w-]+)(?:\/([\d-]+))?/.exec(location.hash) ?? [];
  return { threadId, eventId };
}

/** @param {string} threadId @param {string} [eventId] */
export function linkTo(threadId, eventId = "") {
  return threadId ? `#/t/${threadId}${eventId ? `/${eventId}` : ""}` : "#/";
}

/** @param {string} threadId */
export function go(threadId) {
  location.hash = linkTo(threadId);
  isSidebarOpen.value = false;
}

export async function loadHealth() {
  try {
    health.value = await api.health();
  } catch (error) {
    health.value = error instanceof ApiError ? error.problem : null;
  }
}

/** Loads the newest threads, or with `more` the page after those that are shown. */
export async function loadThreads({ more = false } = {}) {
  const q = search.peek();
  try {
    const page = await api.threads({ q, limit: PAGE, cursor: more ? threadsState.peek().cursor : "" });
    if (q !== search.peek()) return;
    const shown = q === shownSearch ? threads.peek() : [];
    const older = more ? [] : below(page.items, shown);
    const known = new Set(shown.map((one) => one.thread_id));
    const next = page.items.filter((/** @type {any} */ one) => !known.has(one.thread_id));
    const items = more ? [...shown, ...next] : [...page.items, ...older];
    const cursor = older.length ? threadsState.peek().cursor : (page.next_cursor ?? "");
    shownSearch = q;
    if (JSON.stringify(items) !== JSON.stringify(threads.peek())) threads.value = items;
    threadsState.value = { isLoaded: true, cursor, error: "" };
    isSignedOut.value = false;
    const open = thread.peek();
    const record = page.items.find((/** @type {any} */ one) => one.thread_id === open?.id);
    const isStale = record ? record.title !== open?.record?.title : !open?.record && !threadError.peek();
    if (open && isStale) void showRecord(open.id, record);
    followAgain(record);
  } catch (error) {
    if (isUnauthenticated(error)) isSignedOut.value = true;
    else threadsState.value = { ...threadsState.peek(), isLoaded: true, error: reason(error) };
  }
}

/** What of the list stands below its first page: the pages that a person asked for. @param {any[]} page @param {any[]} shown */
function below(page, shown) {
  const ids = new Set(page.map((one) => one.thread_id));
  const last = page.at(-1)?.created_at;
  return page.length < PAGE ? [] : shown.filter((one) => one.created_at <= last && !ids.has(one.thread_id));
}

/**
 * A stream that came back to a finished thread was told that nothing more comes. Something came after all.
 * @param {any} record
 */
function followAgain(record) {
  const open = thread.peek();
  if (!open || !record?.last_id || connection.peek().state !== "ended") return;
  if (isAfter(record.last_id, open.view.lastId)) void follow();
}

/** @param {string} threadId */
async function openThread(threadId) {
  if (thread.peek()?.id === threadId) return;
  following?.abort();
  following = null;
  threadError.value = "";
  comparing.value = "";
  // What it asks or shows is of the thread that was open.
  dialog.value = null;
  connection.value = { state: "idle" };
  if (!threadId) {
    thread.value = null;
    return;
  }
  thread.value = { id: threadId, record: null, view: new ThreadView() };
  follow();
  await showRecord(threadId);
}

/**
 * Shows the record of the open thread. It is asked for again with the list, so a failure that passes is not told.
 * @param {string} threadId @param {any} [found]
 */
async function showRecord(threadId, found) {
  try {
    const record = found ?? (await api.thread(threadId));
    const open = thread.peek();
    if (open?.id === threadId) thread.value = { ...open, record };
  } catch (error) {
    const isRefused = error instanceof ApiError && [401, 403, 404].includes(error.status);
    if (isRefused && thread.peek()?.id === threadId) onThreadError(error);
  }
}

/** @param {unknown} error */
function onThreadError(error) {
  if (isUnauthenticated(error)) isSignedOut.value = true;
  else
    threadError.value =
      error instanceof ApiError && error.status === 404 ? "There is no such thread here." : reason(error);
}

/** Follows the open thread from where its view stands. */
async function follow() {
  const open = thread.peek();
  if (!open) return;
  following?.abort();
  const mine = (following = new AbortController());
  const { view } = open;
  const onState = (/** @type {StreamNews} */ news) => {
    if (mine.signal.aborted) return;
    connection.value = {
      state: news.state,
      error: news.error,
      until: news.retryInMs ? Date.now() + news.retryInMs : undefined,
    };
  };
  try {
    for await (const item of api.stream(open.id, { lastId: view.lastId, socket: true, signal: mine.signal, onState })) {
      view.apply(item);
      due(item.kind !== "delta");
      if (item.kind === "event") onEvent(item.data);
    }
  } catch (error) {
    if (!mine.signal.aborted) onThreadError(error);
  }
}

/** Takes the stream up again, now. */
export function reconnect() {
  void follow();
}

/** @param {any} event */
function onEvent(event) {
  if (Date.now() - event.at > 10_000) return;
  if (event.type.startsWith("run.")) void loadThreads();
  const news = {
    "run.finished": "The run is finished.",
    "run.failed": "The run has failed.",
    "run.cancelled": "The run was cancelled.",
    "approval.requested": "The agent asks you something.",
  };
  const text = news[/** @type {keyof typeof news} */ (event.type)];
  if (text) announcement.value = text;
}

/**
 * Asks for one rendering in the next frame. A hidden page gets no frames, but its title should still be true.
 * @param {boolean} isFact
 */
function due(isFact) {
  isFactDue ||= isFact;
  newItems += 1;
  if (isTickDue) return;
  isTickDue = true;
  if (document.hidden) setTimeout(draw, 250);
  else requestAnimationFrame(draw);
}

/**
 * Renders what came. While a long history comes in, a quarter of the time goes into that: of a WebSocket a browser hands on
 * 64 kB at a time, and a rendering after each takes longer than all the rest.
 */
function draw() {
  const began = performance.now();
  if (began < restUntil) return void setTimeout(draw, restUntil - began);
  const isHistory = newItems > MANY_ITEMS;
  batch(() => {
    if (isFactDue) factTick.value += 1;
    tick.value += 1;
  });
  isTickDue = isFactDue = false;
  newItems = 0;
  // A timer's turn comes after the frame, so this knows what style, layout and painting took as well.
  if (isHistory) setTimeout(() => (restUntil = performance.now() + REST * (performance.now() - began)));
}

function onVisibility() {
  clearTimeout(hiddenTimer);
  if (document.hidden) {
    hiddenTimer = setTimeout(() => {
      isHiddenLong = true;
      following?.abort();
      connection.value = { state: "paused" };
    }, HIDDEN_MS);
    return;
  }
  if (isHiddenLong) {
    isHiddenLong = false;
    void follow();
  }
  void loadThreads();
  void loadHealth();
}

/**
 * Starts a task in the open thread, or in a new one. Throws what the gateway refuses.
 * @param {string} task
 * @param {{ model?: string, policy?: string, budgets?: Record<string, number>, files: string[] }} options
 */
export async function send(task, options) {
  const open = thread.peek();
  const threadId = open?.id ?? (await api.initiate({ title: titleOf(task) }));
  const budgets = Object.keys(options.budgets ?? {}).length ? options.budgets : undefined;
  await api.execute(threadId, task, {
    model: options.model || undefined,
    policy: options.policy,
    budgets,
    files: options.files.length ? options.files : undefined,
  });
  if (!open) go(threadId);
  else jumpToEnd.value += 1;
  void loadThreads();
}

/** The first words of a task. @param {string} task */
export function titleOf(task) {
  const line = task.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 79).trimEnd()}…` : line;
}

/**
 * Uploads files into the workspace of the open thread, or of a new one that is then opened.
 * @param {File[]} files
 */
export async function upload(files) {
  const before = route.peek().threadId;
  const threadId = before || (await api.initiate({ title: files[0]?.name ?? "" }));
  try {
    for (const file of files) {
      const name = freeName(file.name, draftOf(before).files);
      await api.putFile(threadId, name, file);
      // Only now, for a task may have been written in the meantime.
      editDraft(before, { files: [...draftOf(before).files, name] });
    }
  } finally {
    filesChanged.value += 1;
    if (!before) {
      const { "": draft, ...others } = drafts.peek();
      drafts.value = { ...others, [threadId]: draft ?? EMPTY_DRAFT };
      if (!route.peek().threadId) go(threadId);
    }
  }
}

/** The text and the files of a composer. @param {string} threadId */
export function draftOf(threadId) {
  return drafts.value[threadId] ?? EMPTY_DRAFT;
}

/** @param {string} threadId @param {Partial<Draft>} part */
export function editDraft(threadId, part) {
  drafts.value = { ...drafts.peek(), [threadId]: { ...draftOf(threadId), ...part } };
}

/**
 * `name`, or with a number if another file of the task has it: what is pasted is always called image.png.
 * @param {string} name @param {string[]} taken
 */
export function freeName(name, taken) {
  const dot = name.lastIndexOf(".");
  const [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let free = name;
  for (let count = 2; taken.includes(free); count += 1) free = `${stem} (${count})${ending}`;
  return free;
}

/** @param {string} threadId @param {{ title?: string }} changes */
export async function rename(threadId, changes) {
  const record = await api.updateThread(threadId, changes);
  const open = thread.peek();
  if (open?.id === threadId) thread.value = { ...open, record };
  void loadThreads();
}

/** @param {string} threadId */
export async function remove(threadId) {
  await api.deleteThread(threadId);
  threads.value = threads.peek().filter((one) => one.thread_id !== threadId);
  if (route.peek().threadId === threadId) go("");
}

/** Makes the files what they were at an event. @param {string} threadId @param {string} event */
export async function restore(threadId, event) {
  await api.restore(threadId, event);
  filesChanged.value += 1;
  say("The files are as they were then. Compare with the newest moment to see what that undid.");
}

/** @param {string} key */
export async function signIn(key) {
  await api.signIn(key);
  isSignedOut.value = false;
  threadError.value = "";
  void loadThreads();
  if (thread.peek()) void follow();
}

export async function signOut() {
  await api.signOut();
  location.hash = "#/";
  threads.value = [];
  isSignedOut.value = true;
}

/** Does something and says so if it fails. @param {() => Promise<unknown>} act */
export async function attempt(act) {
  try {
    await act();
    return true;
  } catch (error) {
    if (isUnauthenticated(error)) isSignedOut.value = true;
    say(reason(error), "bad");
    return false;
  }
}

/** @param {string} text @param {"plain" | "bad"} [tone] */
export function say(text, tone = "plain") {
  const mine = { text, tone };
  toast.value = mine;
  setTimeout(() => {
    if (toast.peek() === mine) toast.value = null;
  }, 6000);
}

/** @param {unknown} error */
export function reason(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {unknown} error */
function isUnauthenticated(error) {
  return error instanceof ApiError && error.status === 401;
}

/** @param {string} name @param {any} fallback @returns {any} */
function saved(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`dialtone.${name}`) ?? "null") ?? fallback;
  } catch {
    return fallback;
  }
}

/** @param {string} name @param {unknown} value */
function save(name, value) {
  try {
    localStorage.setItem(`dialtone.${name}`, JSON.stringify(value));
  } catch {
    // Private windows may refuse; the choice then lasts as long as the page.
  }
}
