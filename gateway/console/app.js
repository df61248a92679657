/** Where the page begins. */

import { start } from "./store.js";
import { App } from "./ui/app.js";
import { html, render } from "./vendor/preact.js";

start();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
