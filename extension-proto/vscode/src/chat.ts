/** The chat view of the side bar: a conversation, asked through the language server. */

import * as vscode from "vscode";
import { CancellationTokenSource, ProgressType } from "vscode-languageclient/node";
import { Conversation, type Exchange } from "./conversation";
import type { AskResult, Delta, StatusResult } from "./protocol";
import type { Server } from "./server";
import type { FromView, Missing, ToView } from "./view/messages";

const KEPT = "nightschool.conversation";
const DELTA = new ProgressType<Delta>();

/** What is asked of the server: a method or command, and params to which the token of the stream is added. */
interface Call {
  question: string;
  about: string;
  run(token: string, exchange: Exchange, cancel: vscode.CancellationToken): Promise<AskResult>;
}

export class Chat implements vscode.WebviewViewProvider {
  private view: vscode.WebviewView | undefined;
  private conversation: Conversation;
  private running: CancellationTokenSource | undefined;
  private lastCall: Call | undefined;
  private status: StatusResult | null = null;
  private wantsFocus = false;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly server: Server,
  ) {
    this.conversation = Conversation.from(context.workspaceState.get<Exchange[]>(KEPT));
    server.onStatus((status) => this.showStatus(status));
  }

  resolveWebviewView(view: vscode.WebviewView): void {
    this.view = view;
    const root = this.context.extensionUri;
    view.webview.options = { enableScripts: true, localResourceRoots: [vscode.Uri.joinPath(root, "out"), vscode.Uri.joinPath(root, "media")] };
    view.webview.onDidReceiveMessage((message: FromView) => this.receive(message));
    view.onDidDispose(() => (this.view = undefined));
    view.webview.html = page(view.webview, root);
  }

  async open(): Promise<void> {
    this.wantsFocus = true;
    await vscode.commands.executeCommand("nightschool.chat.focus");
    this.post({ kind: "focus" });
  }

  /** Ask about what the active editor shows. */
  async ask(question: string): Promise<void> {
    const place = activePlace();
    await this.begin({
      question,
      about: place?.about ?? "",
      run: (partialResultToken, exchange, cancel) =>
        this.server.request("nightschool/ask", { question, ...place?.params, conversation: this.conversation.turnsBefore(exchange), partialResultToken }, cancel),
    });
  }

  /** Run a code action of the server and show its answer here. */
  async answer(title: string, params: object): Promise<void> {
    const about = activePlace()?.about ?? "";
    await this.open();
    await this.begin({
      question: title,
      about,
      run: (partialResultToken, _, cancel) =>
        this.server.request("workspace/executeCommand", { command: "nightschool.answer", arguments: [{ ...params, partialResultToken }] }, cancel),
    });
  }

  stop(): void {
    this.running?.cancel();
  }

  async retry(): Promise<void> {
    const last = this.conversation.last;
    if (!last || last.state === "answering") return;
    const call = this.lastCall;
    this.conversation.exchanges.pop();
    this.post({ kind: "all", exchanges: this.conversation.exchanges });
    await (call ? this.begin(call) : this.ask(last.question));
  }

  clear(): void {
    this.stop();
    this.conversation = new Conversation();
    this.keep();
    this.post({ kind: "all", exchanges: [] });
  }

  private async begin(call: Call): Promise<void> {
    this.stop();
    this.lastCall = call;
    const exchange = this.conversation.begin(call.question, call.about);
    const cancel = (this.running = new CancellationTokenSource());
    const token = `answer-${exchange.id}-${Date.now()}`;
    const progress = this.server.onProgress(DELTA, token, (delta) => {
      if (delta.kind === "notice") exchange.notices.push(delta.text);
      else exchange.text += delta.text;
      this.post({ kind: "exchange", exchange });
    });
    this.post({ kind: "exchange", exchange });
    await vscode.commands.executeCommand("setContext", "nightschool.answering", true);
    try {
      exchange.result = await call.run(token, exchange, cancel.token);
      exchange.notices = [...exchange.result.notices];
      exchange.state = "done";
    } catch (error) {
      exchange.state = cancel.token.isCancellationRequested ? "stopped" : "failed";
      exchange.error = error instanceof Error ? error.message : String(error);
    } finally {
      progress?.dispose();
      if (this.running === cancel) {
        this.running = undefined;
        await vscode.commands.executeCommand("setContext", "nightschool.answering", false);
      }
    }
    this.post({ kind: "exchange", exchange });
    this.keep();
  }

  private async receive(message: FromView): Promise<void> {
    if (message.kind === "ready") {
      this.post({ kind: "all", exchanges: this.conversation.exchanges });
      this.showStatus(this.status);
      if (this.wantsFocus) this.post({ kind: "focus" });
    } else if (message.kind === "ask") {
      await this.ask(message.question);
    } else if (message.kind === "stop") {
      this.stop();
    } else if (message.kind === "open") {
      await this.openCitation(message.exchange, message.citation);
    } else if (message.kind === "copy") {
      await vscode.env.clipboard.writeText(message.text);
    } else {
      await vscode.commands.executeCommand(message.command);
    }
  }

  private async openCitation(exchange: number, index: number): Promise<void> {
    const found = this.conversation.exchanges.find((e) => e.id === exchange)?.result?.citations.find((c) => c.index === index);
    if (!found) return;
    const selection = new vscode.Range(found.startLine - 1, 0, found.endLine - 1, Number.MAX_SAFE_INTEGER);
    await vscode.window.showTextDocument(vscode.Uri.parse(found.uri), { selection, preview: true });
  }

  private showStatus(status: StatusResult | null): void {
    this.status = status;
    const [missing, reason] = missingOf(status, this.server.problem);
    this.post({ kind: "status", status, missing, reason });
  }

  private keep(): void {
    void this.context.workspaceState.update(KEPT, this.conversation.kept());
  }

  private post(message: ToView): void {
    void this.view?.webview.postMessage(message);
  }
}

function missingOf(status: StatusResult | null, problem: string): [Missing, string] {
  if (!vscode.workspace.workspaceFolders?.length) return ["folder", ""];
  if (problem) return ["server", problem];
  if (!status) return [null, ""];
  if (status.backend === "stopped" || status.backend === "failed") return ["backend", status.backend === "failed" ? (status.reasons[0] ?? "") : ""];
  if (["failed", "backoff"].includes(status.engine)) return ["engine", status.reasons.join("\n")];
  return [null, ""];
}

function activePlace(): { about: string; params: object } | undefined {
  const editor = vscode.window.activeTextEditor;
  if (!editor) return undefined;
  const { document, selection } = editor;
  const name = vscode.workspace.asRelativePath(document.uri);
  const textDocument = { uri: document.uri.toString() };
  if (selection.isEmpty) return { about: name, params: { textDocument } };
  const range = { start: position(selection.start), end: position(selection.end) };
  return { about: `${name}:${selection.start.line + 1}-${selection.end.line + 1}`, params: { textDocument, range } };
}

function position({ line, character }: vscode.Position): { line: number; character: number } {
  return { line, character };
}

function page(webview: vscode.Webview, root: vscode.Uri): string {
  const script = webview.asWebviewUri(vscode.Uri.joinPath(root, "out", "view.js"));
  const style = webview.asWebviewUri(vscode.Uri.joinPath(root, "media", "chat.css"));
  const nonce = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16)).join("");
  const policy = `default-src 'none'; style-src ${webview.cspSource}; script-src 'nonce-${nonce}'`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta http-equiv="Content-Security-Policy" content="${policy}">
  <link rel="stylesheet" href="${style}">
  <title>nightschool</title>
</head>
<body>
  <main>
    <section id="welcome" aria-label="What is missing" hidden></section>
    <section id="log" aria-label="Conversation"></section>
  </main>
  <div id="said" class="hidden" role="status" aria-live="polite"></div>
  <footer>
    <div class="ask">
      <textarea id="question" rows="2" aria-label="Question about this repository" placeholder="Ask about this repository"></textarea>
      <button id="send" aria-label="Ask the question">Ask</button>
    </div>
    <div id="state" aria-label="State"></div>
  </footer>
  <script nonce="${nonce}" src="${script}"></script>
</body>
</html>`;
}
