/**
 * A text that grows by previews until the finished event gives it whole. Offsets count Unicode code points.
 */

/** @param {string} text */
export function codePoints(text) {
  if (!/[\ud800-\udbff]/.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** `text` without its first `count` code points. @param {string} text @param {number} count */
export function dropCodePoints(text, count) {
  if (count <= 0) return text;
  if (!/[\ud800-\udbff]/.test(text)) return text.slice(count);
  return Array.from(text).slice(count).join("");
}

export class Growing {
  constructor() {
    this.text = "";
    this.length = 0;
    /** A piece was lost: nothing more is shown until the finished event. */
    this.hasHole = false;
  }

  /** The part of `piece` that is new. @param {number} offset @param {string} piece */
  take(offset, piece) {
    if (this.hasHole || offset > this.length) {
      this.hasHole = true;
      return "";
    }
    const fresh = dropCodePoints(piece, this.length - offset);
    this.text += fresh;
    this.length += codePoints(fresh);
    return fresh;
  }
}
