export { default as DOMPurify } from "dompurify";
export { Marked, type Token, type Tokens } from "marked";
