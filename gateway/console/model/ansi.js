/**
 * Terminal output as lines of coloured pieces. Understands colours and overwritten lines (CR, backspace); drops every
 * other escape code. What comes out is plain text: nothing in it can act.
 *
 * @typedef {{ text: string, classes: string, color: string, background: string }} Piece
 */

const TOKEN =
  /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|\r|\x08/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]/g;
const MAX_LINE = 4000;

/** Switches by code: what it adds, or what it takes away. @type {Record<number, string>} */
const ADDS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
/** @type {Record<number, string[]>} */
const DROPS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

class Style {
  constructor() {
    /** @type {Set<string>} */
    this.flags = new Set();
    this.color = "";
    this.background = "";
  }

  /** @param {string} codes */
  apply(codes) {
    const numbers = codes === "" ? [0] : codes.split(/[;:]/).map(Number);
    for (let index = 0; index < numbers.length; index += 1) {
      const code = numbers[index];
      if (code === 0) Object.assign(this, new Style());
      else if (ADDS[code]) this.flags.add(ADDS[code]);
      else if (DROPS[code]) DROPS[code].forEach((flag) => this.flags.delete(flag));
      else if (code === 38 || code === 48) {
        const [color, used] = extended(numbers.slice(index + 1));
        this[code === 38 ? "color" : "background"] = color;
        index += used;
      } else if ((code >= 30 && code <= 39) || (code >= 90 && code <= 97)) this.color = named(code - 30);
      else if ((code >= 40 && code <= 49) || (code >= 100 && code <= 107)) this.background = named(code - 40);
    }
  }

  /** @param {string} text @returns {Piece} */
  piece(text) {
    const isNamed = (/** @type {string} */ color) => /^c\d+$/.test(color);
    const classes = [...this.flags].map((flag) => `ansi-${flag}`);
    if (isNamed(this.color)) classes.push(`ansi-f${this.color.slice(1)}`);
    if (isNamed(this.background)) classes.push(`ansi-b${this.background.slice(1)}`);
    return {
      text,
      classes: classes.join(" "),
      color: isNamed(this.color) ? "" : this.color,
      background: isNamed(this.background) ? "" : this.background,
    };
  }
}

/** @param {number} offset 0..7 normal, 9 the default, 60..67 bright */
function named(offset) {
  if (offset === 9) return "";
  return `c${offset >= 60 ? offset - 52 : offset}`;
}

/** A colour of the 256, or of all. @param {number[]} numbers @returns {[string, number]} the colour, and how many numbers it took */
function extended(numbers) {
  if (numbers[0] === 2 && numbers.length >= 4) return [`rgb(${numbers.slice(1, 4).map(channel).join(",")})`, 4];
  if (numbers[0] !== 5 || numbers.length < 2) return ["", numbers.length];
  const index = channel(numbers[1]);
  if (index < 16) return [`c${index}`, 2];
  if (index >= 232) {
    const gray = 8 + (index - 232) * 10;
    return [`rgb(${gray},${gray},${gray})`, 2];
  }
  const cube = [Math.floor((index - 16) / 36), Math.floor((index - 16) / 6) % 6, (index - 16) % 6];
  return [`rgb(${cube.map((level) => (level ? 55 + level * 40 : 0)).join(",")})`, 2];
}

/** @param {number} value */
function channel(value) {
  return Math.min(255, Math.max(0, Math.trunc(value) || 0));
}

/** @param {string} text @returns {Piece[][]} one list of pieces per line */
export function ansiLines(text) {
  const style = new Style();
  return text
    .replace(/\r+\n/g, "\n")
    .split("\n")
    .map((line) => readLine(line, style));
}

/** @param {string} line @param {Style} style */
function readLine(line, style) {
  /** @type {Piece[]} */
  let pieces = [];
  let from = 0;
  let length = 0;
  const add = (/** @type {string} */ text) => {
    const shown = text.replace(CONTROL, "").slice(0, Math.max(0, MAX_LINE - length));
    length += shown.length;
    if (shown) pieces.push(style.piece(shown));
    if (shown.length < text.length && length >= MAX_LINE && pieces.at(-1)?.text !== " …")
      pieces.push(style.piece(" …"));
  };
  for (const match of line.matchAll(TOKEN)) {
    add(line.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[1] !== undefined) style.apply(match[1]);
    else if (match[0] === "\r" && line.slice(from).trim()) [pieces, length] = [[], 0];
    else if (match[0] === "\b" && pieces.length)
      pieces[pieces.length - 1].text = pieces[pieces.length - 1].text.slice(0, -1);
  }
  add(line.slice(from));
  return pieces;
}
