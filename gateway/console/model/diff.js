/**
 * Unified diffs as rows of a table, with the changed middle of paired lines marked.
 *
 * @typedef {{ kind: "hunk" | "add" | "remove" | "same" | "note", old: number | null, new: number | null, text: string,
 *   mark: [number, number] | null }} Row
 */

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/;

/** @param {string} diff @returns {{ rows: Row[], added: number, removed: number }} */
export function parseDiff(diff) {
  /** @type {Row[]} */
  const rows = [];
  let [oldLine, newLine, added, removed] = [0, 0, 0, 0];
  for (const line of diff.replace(/\n$/, "").split("\n")) {
    const hunk = HUNK.exec(line);
    if (hunk) {
      [oldLine, newLine] = [Number(hunk[1]), Number(hunk[2])];
      rows.push(row("hunk", null, null, line));
    } else if (!rows.length || line.startsWith("\\")) {
      if (line.startsWith("\\")) rows.push(row("note", null, null, line.slice(2)));
    } else if (line.startsWith("+")) {
      added += 1;
      rows.push(row("add", null, newLine++, line.slice(1)));
    } else if (line.startsWith("-")) {
      removed += 1;
      rows.push(row("remove", oldLine++, null, line.slice(1)));
    } else {
      rows.push(row("same", oldLine++, newLine++, line.slice(1)));
    }
  }
  markPairs(rows);
  return { rows, added, removed };
}

/** @param {Row["kind"]} kind @param {number | null} old @param {number | null} fresh @param {string} text @returns {Row} */
function row(kind, old, fresh, text) {
  return { kind, old, new: fresh, text, mark: null };
}

/** Marks what differs where as many lines were added as removed. @param {Row[]} rows */
function markPairs(rows) {
  let start = 0;
  while (start < rows.length) {
    const removed = count(rows, start, "remove");
    const added = count(rows, start + removed, "add");
    if (removed && removed === added) {
      for (let index = start; index < start + removed; index += 1) mark(rows[index], rows[index + removed]);
    }
    start += removed + added || 1;
  }
}

/** @param {Row[]} rows @param {number} start @param {Row["kind"]} kind */
function count(rows, start, kind) {
  let end = start;
  while (rows[end]?.kind === kind) end += 1;
  return end - start;
}

/** @param {Row} before @param {Row} after */
function mark(before, after) {
  const [a, b] = [before.text, after.text];
  const most = Math.min(a.length, b.length);
  let head = 0;
  while (head < most && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < most - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  if (head + tail < Math.max(a.length, b.length) * 0.3) return;
  before.mark = [head, a.length - tail];
  after.mark = [head, b.length - tail];
}
