/** What the operator's desk knows and does. It asks again every two seconds while somebody looks. */

import { ApiError } from "../dialtone.js";
import { plural } from "../model/format.js";
import { api, isSignedOut, keepTheme, reason, say } from "../store.js";
import { effect, signal } from "../vendor/preact.js";

const EVERY_MS = 2000;
/** History and costs change by the minute; asking every sixth time is enough. */
const SLOW = 6;

export const TABS = /** @type {const} */ (["runs", "processes", "charts", "costs", "webhooks", "tenants"]);
/** @typedef {(typeof TABS)[number]} Tab */

export const tab = signal(readTab());
/** Each answer as it came last; null before the first. */
export const overview = signal(/** @type {any} */ (null));
export const runs = signal(/** @type {{ items: any[], next_cursor: string | null } | null} */ (null));
export const history = signal(/** @type {{ items: any[], step_ms: number } | null} */ (null));
export const costs = signal(/** @type {any} */ (null));
export const dead = signal(/** @type {any} */ (null));
export const blocked = signal(/** @type {any} */ (null));
/** Which runs are shown. */
export const filter = signal({ tenant: "", status: "", in_trouble: false });
export const picked = signal(/** @type {ReadonlySet<string>} */ (new Set()));
export const hours = signal(3);
export const days = signal(1);
/** Why nothing can be shown; empty while all is well. */
export const problem = signal("");
/** @type {import("../vendor/preact.js").Signal<{ kind: string, [more: string]: any } | null>} */
export const asked = signal(null);

let round = 0;

export function start() {
  keepTheme();
  addEventListener("hashchange", () => (tab.value = readTab()));
  effect(() => {
    void [tab.value, filter.value, hours.value, days.value];
    round = 0;
    if (!isSignedOut.value) void refresh();
  });
  setInterval(() => {
    if (!document.hidden && !isSignedOut.peek()) void refresh();
  }, EVERY_MS);
  document.addEventListener("visibilitychange", () => void (document.hidden || refresh()));
}

/** @returns {Tab} */
function readTab() {
  const name = location.hash.replace("#/", "");
  return TABS.find((one) => one === name) ?? "runs";
}

/** Asks for everything that is shown. */
export async function refresh() {
  const isSlowTurn = round++ % SLOW === 0;
  try {
    overview.value = await get("overview");
    if (isSlowTurn || tab.peek() !== "charts") await LOADERS[tab.peek()](isSlowTurn);
    problem.value = "";
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) isSignedOut.value = true;
    else if (error instanceof ApiError && error.status === 403)
      problem.value = "This page is for operators: your key lacks the scope `operator`.";
    else problem.value = reason(error);
  }
}

/** @type {Record<Tab, (isSlowTurn: boolean) => Promise<unknown>>} */
const LOADERS = {
  runs: async () => {
    const { tenant, status, in_trouble: inTrouble } = filter.peek();
    runs.value = await get("runs", { limit: 100, tenant, status, in_trouble: inTrouble || "" });
    const known = new Set(runs.value?.items.map((one) => one.run.run_id));
    const kept = [...picked.peek()].filter((id) => known.has(id));
    if (kept.length !== picked.peek().size) picked.value = new Set(kept);
  },
  processes: async () => undefined,
  charts: async () => (history.value = await get("history", { hours: hours.peek() })),
  costs: async (isSlowTurn) => {
    if (isSlowTurn) costs.value = await get("costs", { days: days.peek(), limit: 200 });
  },
  webhooks: async () => (dead.value = await get("webhooks/dead", { limit: 100 })),
  tenants: async () => (blocked.value = await get("tenants/blocked")),
};

/** @param {string} path @param {Record<string, any>} [query] */
function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return api.request("GET", `/api/operator/${path}${text && `?${text}`}`, { retries: 0 });
}

/**
 * Does something and says how it went; true when it is done.
 * @param {string} path @param {object | undefined} body @param {string} done
 */
export async function act(path, body, done) {
  const answer = await send(path, body);
  if (answer !== undefined) say(done);
  void refresh();
  return answer !== undefined;
}

/** The answer to an action; undefined when it failed, which was said. @param {string} path @param {object} [body] */
export async function send(path, body) {
  try {
    return (await api.request("POST", `/api/operator/${path}`, { body, retries: 0 })) ?? null;
  } catch (error) {
    say(reason(error), "bad");
    return undefined;
  }
}

/**
 * Ends runs, request after request until there are no more, and says how far it is; true when it is done.
 * @param {object} wanted @param {any} [done] what came of the first request, when that was made before
 */
export async function cancelRuns(wanted, done) {
  let cancelled = 0;
  let before = 0;
  done ??= await send("runs/cancel", wanted);
  while (done) {
    cancelled += done.run_ids.length;
    before += done.ended.length + done.unknown.length;
    const others = before ? `, ${before} had ended before` : "";
    say(`${plural(cancelled, "run")} cancelled${others}${done.next_cursor ? " …" : "."}`);
    if (!done.next_cursor) break;
    done = await send("runs/cancel", { ...wanted, cursor: done.next_cursor });
  }
  void refresh();
  return Boolean(done);
}

/** Every process reads its configuration again; the answers are shown. */
export async function reload() {
  asked.value = { kind: "reload", items: null };
  const answer = await send("config/reload");
  asked.value = answer ? { kind: "reload", items: answer.items } : null;
}

/** @param {string} runId */
export function pick(runId) {
  const next = new Set(picked.peek());
  if (!next.delete(runId)) next.add(runId);
  picked.value = next;
}
