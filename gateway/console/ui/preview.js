/** A server in the sandbox, shown in a frame of its own origin: its page reaches neither this one nor its cookies. */

import { api, say, thread } from "../store.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { IconButton } from "./parts.js";
import { SafeLink } from "./safe_link.js";

/**
 * What the page may do. Its origin is another one than ours, so that `allow-same-origin` gives it only its own storage;
 * it may not lead this page elsewhere.
 */
const MAY = "allow-scripts allow-same-origin allow-forms allow-modals allow-popups allow-downloads";

/** @param {{ link: { url: string, port: number, expires_at: number, preview_id?: string } }} props */
export function Preview({ link }) {
  const [isShown, setShown] = useState(false);
  const [round, setRound] = useState(0);
  const [isOver, setOver] = useState(Date.now() > link.expires_at);
  const id = link.preview_id ?? "";
  const threadId = thread.value?.id ?? "";
  useEffect(() => {
    if (isOver || !id) return;
    const timer = setTimeout(() => setOver(true), Math.min(link.expires_at - Date.now(), 2 ** 31 - 1));
    api.previews(threadId).then(
      (/** @type {{ id: string }[]} */ links) => links.some((held) => held.id === id) || setOver(true),
      () => {}, // it may still hold; the frame will tell
    );
    return () => clearTimeout(timer);
  }, [id, isOver]);
  const revoke = async () => {
    try {
      await api.revokePreview(threadId, id);
    } catch (/** @type {any} */ error) {
      if (error.status !== 404) return say(error.message, "bad");
    }
    setOver(true);
  };
  if (isOver) return html`<p class="card-note">The link to port ${link.port} has ended.</p>`;
  return html`<div class="preview">
    <div class="preview-bar">
      <button type="button" class="preview-show" aria-expanded=${isShown} onClick=${() => setShown(!isShown)}>
        ${isShown ? "Hide" : "Show here"}
      </button>
      <${SafeLink} url=${link.url} text="Open in a new tab" />
      <span class="preview-rest">
        ${isShown && html`<${IconButton} icon="refresh" label="Load again" size=${14} onClick=${() => setRound(round + 1)} />`}
        ${id && html`<${IconButton} icon="trash" label="End this link" size=${14} onClick=${revoke} />`}
      </span>
    </div>
    ${
      isShown &&
      /^https?:\/\//i.test(link.url) &&
      html`<iframe key=${round} class="preview-frame" src=${link.url} title=${`Preview of port ${link.port}`}
        sandbox=${MAY} referrerpolicy="no-referrer" allow=""></iframe>`
    }
  </div>`;
}
