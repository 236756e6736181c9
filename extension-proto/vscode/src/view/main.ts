/** The chat in the side bar: shows what the extension says, and says what the user does. */

import type { Exchange } from "../conversation";
import type { Citation, StatusResult } from "../protocol";
import { escape, renderMarkdown } from "./markdown";
import type { FromView, Missing, ToView } from "./messages";

declare function acquireVsCodeApi(): { postMessage(message: FromView): void };

const vscode = acquireVsCodeApi();
const log = document.getElementById("log") as HTMLElement;
const welcome = document.getElementById("welcome") as HTMLElement;
const state = document.getElementById("state") as HTMLElement;
const said = document.getElementById("said") as HTMLElement;
const input = document.getElementById("question") as HTMLTextAreaElement;
const send = document.getElementById("send") as HTMLButtonElement;
let answering = false;

window.addEventListener("message", ({ data }: MessageEvent<ToView>) => {
  if (data.kind === "all") {
    log.replaceChildren(...data.exchanges.map(elementOf));
    setAnswering(data.exchanges.at(-1)?.state === "answering");
  } else if (data.kind === "exchange") {
    show(data.exchange);
  } else if (data.kind === "status") {
    showStatus(data.status, data.missing, data.reason);
  } else {
    input.focus();
  }
});

function show(exchange: Exchange): void {
  const atEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
  const old = document.getElementById(`exchange-${exchange.id}`);
  const element = elementOf(exchange);
  if (old) old.replaceWith(element);
  else log.append(element);
  setAnswering(exchange.state === "answering");
  if (exchange.state === "done") said.textContent = `Answered: ${exchange.result?.answer ?? ""}`;
  if (exchange.state === "failed") said.textContent = exchange.error;
  if (atEnd || !old) element.scrollIntoView({ block: "end" });
}

function elementOf(exchange: Exchange): HTMLElement {
  const element = document.createElement("article");
  element.id = `exchange-${exchange.id}`;
  element.dataset["state"] = exchange.state;
  const citations = exchange.result?.citations ?? [];
  const about = exchange.about ? `<div class="about">${escape(exchange.about)}</div>` : "";
  element.innerHTML =
    `<h2 class="question">${escape(exchange.question)}</h2>${about}` +
    exchange.notices.map((notice) => `<p class="notice" role="note">${escape(notice)}</p>`).join("") +
    `<div class="answer">${renderMarkdown(exchange.result?.markdown ?? exchange.text, citations)}</div>` +
    (exchange.state === "answering" ? '<div class="waiting" aria-label="Answering"></div>' : "") +
    (exchange.state === "stopped" ? '<p class="notice">Stopped.</p>' : "") +
    (exchange.state === "failed" ? `<p class="error" role="alert">${escape(exchange.error)}</p>` : "") +
    sources(citations) +
    footer(exchange);
  element.addEventListener("click", (event) => onClick(event, exchange));
  addCopyButtons(element);
  return element;
}

function sources(citations: Citation[]): string {
  if (citations.length === 0) return "";
  const items = citations.map((c) => {
    const place = escape(`${c.path}:${c.startLine}-${c.endLine}`);
    const stale = c.verified ? "" : ' <span class="stale">changed since</span>';
    return `<li><a href="#" class="citation" data-citation="${c.index}">[${c.index}] ${place}</a>${stale}</li>`;
  });
  return `<ul class="sources" aria-label="Sources">${items.join("")}</ul>`;
}

function footer(exchange: Exchange): string {
  const result = exchange.result;
  if (!result) return "";
  const f = result.freshness;
  const parts = [f.commit ? `commit ${f.commit.slice(0, 8)}` : "no commit"];
  if (f.dirtyFiles) parts.push(`${f.dirtyFiles} changed file${f.dirtyFiles === 1 ? "" : "s"}`);
  parts.push((f.secondsBehind ?? 0) >= 1 ? `${Math.round(f.secondsBehind ?? 0)} s behind` : "up to date");
  parts.push(result.adapter ?? (result.baseModel || "no model"));
  if (typeof result.groundedness === "number" && result.answer) parts.push(`${Math.round(result.groundedness * 100)}% stands on the code`);
  return `<p class="freshness">${escape(parts.join(" · "))}</p>`;
}

function onClick(event: Event, exchange: Exchange): void {
  const link = (event.target as HTMLElement).closest("a");
  if (!link) return;
  event.preventDefault();
  const citation = link.dataset["citation"];
  if (citation) vscode.postMessage({ kind: "open", exchange: exchange.id, citation: Number(citation) });
}

function addCopyButtons(element: HTMLElement): void {
  for (const block of element.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.textContent = "Copy";
    const text = block.textContent ?? "";
    button.addEventListener("click", () => vscode.postMessage({ kind: "copy", text }));
    block.append(button);
  }
}

function showStatus(status: StatusResult | null, missing: Missing, reason: string): void {
  const f = status?.freshness;
  const lag = f ? (f.waitingFiles ? `${f.waitingFiles} files wait` : `${f.files} files`) : "";
  state.textContent = status ? [status.adapter ?? (status.baseModel || status.backend), lag].filter(Boolean).join(" · ") : "";
  welcome.hidden = missing === null;
  if (missing === null) return;
  const [text, actions] = WELCOME[missing];
  welcome.replaceChildren(paragraph(text), ...(reason ? [paragraph(reason, "reason")] : []), ...actions.map(button));
}

const WELCOME: Record<Exclude<Missing, null>, [string, [string, string][]]> = {
  folder: ["Open the folder of a repository to ask about its code.", [["Open Folder", "vscode.openFolder"]]],
  server: [
    "The program nightschool was not found or did not start.",
    [["Set Its Path", "nightschool.setCommand"], ["Try Again", "nightschool.restartServer"]],
  ],
  backend: [
    "No backend runs for this folder yet. It starts with your first question, or now.",
    [["Start", "nightschool.startBackend"], ["Choose the Model", "nightschool.chooseModel"]],
  ],
  engine: [
    "The model is not ready. Questions are answered with passages of your code alone.",
    [["Choose Another Model", "nightschool.chooseModel"], ["Show Status", "nightschool.showStatus"]],
  ],
};

function paragraph(text: string, kind = ""): HTMLElement {
  const element = document.createElement("p");
  element.textContent = text;
  element.className = kind;
  return element;
}

function button([title, command]: [string, string]): HTMLElement {
  const element = document.createElement("button");
  element.textContent = title;
  element.addEventListener("click", () => vscode.postMessage({ kind: "command", command }));
  return element;
}

function setAnswering(now: boolean): void {
  answering = now;
  send.textContent = now ? "Stop" : "Ask";
  send.setAttribute("aria-label", now ? "Stop the answer" : "Ask the question");
}

function submit(): void {
  if (answering) return vscode.postMessage({ kind: "stop" });
  const question = input.value.trim();
  if (!question) return;
  vscode.postMessage({ kind: "ask", question });
  input.value = "";
}

send.addEventListener("click", submit);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!answering) submit();
  } else if (event.key === "Escape" && answering) {
    vscode.postMessage({ kind: "stop" });
  }
});
vscode.postMessage({ kind: "ready" });
