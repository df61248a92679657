/** What every entry of the conversation offers on hover: its time, a link to it, its event. */

import { comparing, dialog, linkTo, panel, say, thread } from "../store.js";
import { html } from "../vendor/preact.js";
import { copyText, IconButton, Time } from "./parts.js";

/** @param {{ block: import("../model/types.js").Block }} props */
export function BlockTools({ block }) {
  const open = thread.value;
  if (!open || !block.id) return null;
  const copy = async () => {
    const url = new URL(linkTo(open.id, block.id), location.href).href;
    if (await copyText(url)) say("The link to this event is in the clipboard.");
  };
  const compare = () => {
    comparing.value = block.id;
    panel.value = "files";
  };
  const show = () => (dialog.value = { kind: "event", event: block.id });
  return html`<span class="block-tools">
    <${Time} at=${block.at} />
    <${IconButton} icon="link" label="Copy a link to this event" size=${14} onClick=${copy} />
    <${IconButton} icon="clock" label="Compare the files with this event" size=${14} onClick=${compare} />
    <${IconButton} icon="code" label="Show the event" size=${14} onClick=${show} />
  </span>`;
}
