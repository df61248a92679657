/** Where the operator's desk begins. */

import { Desk } from "./desk/page.js";
import { start } from "./desk/store.js";
import { html, render } from "./vendor/preact.js";

start();
render(html`<${Desk} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
