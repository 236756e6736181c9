/** The language server's process and the client that speaks to it. */

import * as vscode from "vscode";
import { LanguageClient, State, TransportKind, type ProgressType } from "vscode-languageclient/node";
import type { Options, StatusResult } from "./protocol";

type OnAnswer = (title: string, params: object) => Promise<void>;

export class Server implements vscode.Disposable {
  /** Why the server does not run, "" when it does. */
  problem = "";
  private client: LanguageClient | undefined;
  private last: StatusResult | null = null;
  private readonly statusChanged = new vscode.EventEmitter<StatusResult | null>();
  readonly onStatus = this.statusChanged.event;
  /** Shows the answer of a code action. */
  onAnswer: OnAnswer = async () => undefined;

  get status(): StatusResult | null {
    return this.last;
  }

  async start(): Promise<void> {
    this.problem = "";
    this.client = this.makeClient();
    this.client.onNotification("nightschool/status", (status: StatusResult) => this.setStatus(status));
    this.client.onDidChangeState(({ newState }) => {
      if (newState === State.Stopped && this.last) this.setStatus(null);
    });
    try {
      await this.client.start();
    } catch (error) {
      const command = vscode.workspace.getConfiguration("nightschool").get<string>("command");
      this.problem = `${command}: ${error instanceof Error ? error.message : String(error)}`;
      this.setStatus(null);
    }
  }

  async restart(): Promise<void> {
    await this.dispose();
    await this.start();
  }

  async dispose(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    await client?.dispose().catch(() => undefined);
  }

  /** Ask the server. Rejects with its message, which is fit to show. */
  async request<R>(method: string, params: object, cancel?: vscode.CancellationToken): Promise<R> {
    if (!this.client || this.problem) throw new Error(this.problem || "the language server does not run");
    return cancel ? this.client.sendRequest<R>(method, params, cancel) : this.client.sendRequest<R>(method, params);
  }

  command<R>(command: string, params: object = {}): Promise<R> {
    return this.request<R>("workspace/executeCommand", { command, arguments: [params] });
  }

  onProgress<P>(type: ProgressType<P>, token: string, handler: (value: P) => void): vscode.Disposable | undefined {
    return this.client?.onProgress(type, token, handler);
  }

  setStatus(status: StatusResult | null): void {
    this.last = status;
    this.statusChanged.fire(status);
  }

  private makeClient(): LanguageClient {
    const settings = vscode.workspace.getConfiguration("nightschool");
    const options: Options = {
      status: true,
      showDocuments: false,
      startBackend: settings.get("startBackend", "on-ask"),
      inlineCompletion: settings.get("inlineCompletion", true),
      inlineTimeoutS: settings.get("inlineTimeout", 1.5),
    };
    const folder = vscode.workspace.workspaceFolders?.[0]?.uri.fsPath;
    const run = { command: settings.get("command", "nightschool"), args: ["lsp"], transport: TransportKind.stdio, options: folder ? { cwd: folder } : {} };
    return new LanguageClient("nightschool", "nightschool", run, {
      documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
      initializationOptions: options,
      initializationFailedHandler: () => false,
      middleware: {
        executeCommand: (command, args, next) => {
          if (command !== "nightschool.answer") return next(command, args);
          const params = args[0] as { kind: string };
          return this.onAnswer(TITLES[params.kind] ?? params.kind, params);
        },
      },
    });
  }
}

const TITLES: Record<string, string> = {
  explain: "Explain the selection",
  ask: "About the selection",
  review: "Review the selection",
  test: "Write a test of the selection",
  fix: "Suggest a fix",
};
