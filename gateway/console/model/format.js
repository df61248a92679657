/** Numbers and times as people read them. */

/** E.g. `0.3 s`, `42 s`, `3 min 05 s`, `2 h 03 min`. @param {number} ms */
export function duration(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** E.g. `312`, `12.3k`, `1.2M`. @param {number} count */
export function count(count) {
  if (count < 1000) return String(count);
  if (count < 1_000_000) return `${trim(count / 1000)}k`;
  return `${trim(count / 1_000_000)}M`;
}

/** @param {number} value */
function trim(value) {
  return value < 100 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value));
}

/** Dollars, with more places for small sums. @param {number} usd */
export function money(usd) {
  if (usd === 0) return "$0";
  return usd >= 1 ? `$${usd.toFixed(2)}` : `$${usd.toFixed(4)}`;
}

/** What is left of a budget, e.g. `$4.98`, `12 turns`, `$0.50 of the thread`. @param {string} name @param {number} value */
export function budget(name, value) {
  const [, scope, unit] = /^(?:(thread|tenant)_)?([a-z]+)/.exec(name) ?? [name, "", name];
  const plain = `${count(value)} ${unit}`;
  const amount = unit === "usd" ? money(value) : unit === "seconds" ? duration(value * 1000) : plain;
  return amount + (scope === "thread" ? " of the thread" : scope === "tenant" ? " of the tenant’s day" : "");
}

/** @param {number} size */
export function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size < 1_000_000) return `${trim(size / 1000)} kB`;
  if (size < 1_000_000_000) return `${trim(size / 1_000_000)} MB`;
  return `${trim(size / 1_000_000_000)} GB`;
}

/** All tokens, whatever their class. @param {import("./types.js").Usage | null} usage */
export function tokens(usage) {
  return usage ? usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens + usage.output_tokens : 0;
}

/** The time of day. @param {number} at milliseconds since 1970 */
export function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** How long ago, in words that stay true for a while. @param {number} at @param {number} now */
export function ago(at, now) {
  const minutes = Math.floor((now - at) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h`;
  const days = Math.floor(hours / 24);
  if (days < 7) return `${days} d`;
  return new Date(at).toLocaleDateString([], { day: "numeric", month: "short" });
}

/** The word with the number, in its plural where needed. @param {number} number @param {string} word */
export function plural(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}
