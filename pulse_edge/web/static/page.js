// Makes the pages livelier; each works without it. Words come from the server's catalogue, in data attributes.
import { follow } from "./live.js";
import { prepareUploads } from "./upload.js";
import { prepareViewer } from "./viewer.js";
import { prepareForms } from "./forms.js";

document.documentElement.classList.add("scripted");

export function prepare(root) {
  for (const element of root.querySelectorAll("[data-without-script]")) element.hidden = true;
  for (const element of root.querySelectorAll("[data-script]")) element.hidden = false;
  prepareUploads(root);
  prepareForms(root);
  for (const viewer of root.querySelectorAll("[data-viewer]")) prepareViewer(viewer);
  root.querySelector("[data-focus]")?.focus();
}

prepare(document);
const live = document.querySelector("[data-events]");
if (live) follow(live, prepare);

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.languages[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.languages[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
