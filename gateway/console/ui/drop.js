/** Files dropped anywhere on the conversation are uploaded into its workspace. */

import { attempt, say, upload } from "../store.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";

export function DropZone() {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    let depth = 0;
    const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (/** @type {DragEvent} */ event) => {
      if (!hasFiles(event)) return;
      depth += 1;
      setOver(true);
    };
    const leave = () => {
      depth = Math.max(0, depth - 1);
      if (!depth) setOver(false);
    };
    const over = (/** @type {DragEvent} */ event) => hasFiles(event) && event.preventDefault();
    const drop = (/** @type {DragEvent} */ event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      setOver(false);
      const files = [...(event.dataTransfer?.files ?? [])];
      void attempt(async () => {
        await upload(files);
        say(
          files.length === 1 ? `${files[0].name} is in the workspace.` : `${files.length} files are in the workspace.`,
        );
      });
    };
    const listeners = /** @type {[string, any][]} */ ([
      ["dragenter", enter],
      ["dragleave", leave],
      ["dragover", over],
      ["drop", drop],
    ]);
    for (const [name, listener] of listeners) addEventListener(name, listener);
    return () => listeners.forEach(([name, listener]) => removeEventListener(name, listener));
  }, []);
  if (!isOver) return null;
  return html`<div class="drop" aria-hidden="true"><p><${Icon} name="clip" size=${20} />Drop files to put them into the workspace</p></div>`;
}
