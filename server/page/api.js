// The backend, as the page sees it. The token comes in the address once and lives as long as the tab.
const TOKEN = "nightschool.token";

/** A call that was refused or did not come back; `status` 0: nobody answered. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Keep the token of `/ui#token=...` and take it out of the address, where others would read it over a shoulder. */
export function takeToken() {
  const given = /^#token=([^&]+)$/.exec(location.hash);
  if (given) {
    keepToken(decodeURIComponent(given[1]));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN) !== null;
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token.trim());
export const dropToken = () => sessionStorage.removeItem(TOKEN);

async function send(method, path, body, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN) ?? ""}`, ...options.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request = { method, headers, signal: options.signal, body: body === undefined ? undefined : JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The backend does not answer. `nightschool serve` starts it.", 0);
  }
  if (!response.ok && !(path === "/readyz" && response.status === 503)) {
    const said = await response.json().catch(() => ({}));
    throw new Refused(said.error?.message ?? `The backend answered ${response.status}.`, response.status);
  }
  return response;
}

export const get = async (path) => (await send("GET", path)).json();
export const post = async (path, body = {}) => {
  const response = await send("POST", path, body);
  return response.status === 204 ? null : response.json();
};

/** The events of an answer, `{name, data}` as they come. Aborting `signal` stops the model's work. */
export async function* ask(body, signal) {
  const response = await send("POST", "/ask", body, { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (held + value).split("\n\n");
    held = blocks.pop();
    yield* blocks.map(readEvent).filter((event) => event.data !== undefined);
  }
}

function readEvent(block) {
  const event = { name: "message", data: undefined };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event;
}
