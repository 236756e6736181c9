// The page: which view is shown, what the backend's state is, and what to do when there is no token.
import { Refused, dropToken, get, keepToken, takeToken } from "./api.js";
import { AskView } from "./ask.js";
import { el } from "./dom.js";
import { NightsView } from "./nights.js";

const EVERY_MS = 3000;
const main = document.getElementById("main");
const told = document.getElementById("told");
const nav = document.querySelector("nav"); // hidden until there is something to go to
let ready; // what /readyz said last
let views;
let answered = true;

/** Show what went wrong in one line; without the right token, what to do about it. */
function fail(error) {
  if (error instanceof Refused && error.status === 401) {
    dropToken();
    views = undefined;
    showDoor();
    return;
  }
  told.textContent = error.message;
  told.hidden = false;
}

function quiet() {
  told.hidden = true;
}

function showDoor() {
  const token = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const open = (event) => {
    event.preventDefault();
    keepToken(token.value);
    start();
  };
  main.replaceChildren(el("section", { class: "door" },
    el("h2", {}, "This page needs the workspace's token"),
    el("p", {}, "Run ", el("code", {}, "nightschool ui"), " in the repository: it opens this page with the token in its address. Or paste the token from ",
      el("code", {}, ".nightschool/token"), ", or your own."),
    el("form", { onsubmit: open }, el("label", { for: "token" }, "Token"), token, el("button", { class: "primary" }, "Open"))));
  document.getElementById("state").textContent = "";
  nav.hidden = true;
}

function show() {
  if (!views) return;
  const name = location.hash === "#nights" ? "nights" : "ask";
  for (const view of ["ask", "nights"]) {
    if (view === name) document.getElementById(`to-${view}`).setAttribute("aria-current", "page");
    else document.getElementById(`to-${view}`).removeAttribute("aria-current");
  }
  quiet();
  if (!main.contains(views[name].element)) main.replaceChildren(views[name].element);
  views[name].shown();
}

function describe(state) {
  const parts = [state.workspace.split("/").pop(), state.adapter ? `adapter ${state.adapter}` : `${state.base_model}, no adapter`];
  return [...parts, ...state.reasons].join(" · ");
}

async function look() {
  try {
    const seen = await get("/readyz");
    if (!answered) quiet();
    answered = true;
    ready = seen;
    const line = document.getElementById("state");
    // Written only when it changes: a screen reader reads it out each time.
    if (line.textContent !== describe(ready)) line.textContent = describe(ready);
    line.dataset.state = ready.ready ? "ready" : "waiting";
    document.title = `${ready.workspace.split("/").pop()} · nightschool`;
    return true;
  } catch (error) {
    answered = false;
    fail(error);
    return false;
  }
}

async function start() {
  quiet();
  takeToken(); // without one a proxy may have signed us on: the backend says
  if (!(await look())) return undefined;
  const context = { fail, quiet, ready: () => ready };
  views = { ask: new AskView(context), nights: new NightsView(context) };
  nav.hidden = false;
  return show();
}

// Not followed: the fragment says which view is shown.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", () => (location.hash.startsWith("#token=") ? start() : show()));
setInterval(async () => {
  if (document.hidden) return;
  if (views) {
    if (await look()) for (const view of Object.values(views ?? {})) view.stateChanged();
  } else if (!answered && takeToken()) await start();
}, EVERY_MS);
await start();
