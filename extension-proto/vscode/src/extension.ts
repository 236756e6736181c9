/** nightschool in VS Code: the language server's client, a chat view, a status bar item and commands. No logic of its own. */

import * as vscode from "vscode";
import { Chat } from "./chat";
import type { StatusResult } from "./protocol";
import { Server } from "./server";
import { StatusBar, linesOf } from "./statusBar";

let server: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const started = (server = new Server());
  const chat = new Chat(context, started);
  const bar = new StatusBar();
  started.onAnswer = (title, params) => chat.answer(title, params);
  started.onStatus((status) => bar.show(status, started.problem));
  context.subscriptions.push(bar, started);
  context.subscriptions.push(vscode.window.registerWebviewViewProvider("nightschool.chat", chat, { webviewOptions: { retainContextWhenHidden: true } }));
  for (const [name, run] of Object.entries(commands(chat, started))) {
    context.subscriptions.push(vscode.commands.registerCommand(`nightschool.${name}`, run));
  }
  context.subscriptions.push(vscode.workspace.onDidChangeConfiguration((change) => {
    if (change.affectsConfiguration("nightschool") && !change.affectsConfiguration("nightschool.trace")) void started.restart();
  }));
  await started.start();
}

export async function deactivate(): Promise<void> {
  await server?.dispose();
}

function commands(chat: Chat, server: Server): Record<string, (...args: never[]) => unknown> {
  return {
    openChat: () => chat.open(),
    explainSelection: () => aboutSelection("Explain the selection", "explain", chat),
    reviewSelection: () => aboutSelection("Review the selection", "review", chat),
    stopAnswer: () => chat.stop(),
    retryAnswer: () => chat.retry(),
    newConversation: () => chat.clear(),
    showStatus: () => showStatus(server),
    startBackend: () => withProgress("Starting the backend", () => server.command<StatusResult>("nightschool.start")),
    chooseModel: () => openSettingsFile(),
    runNight: () => runNight(),
    rollBackAdapter: () => rollBack(server),
    restartServer: () => server.restart(),
    setCommand: () => vscode.commands.executeCommand("workbench.action.openSettings", "nightschool.command"),
  };
}

async function aboutSelection(title: string, kind: string, chat: Chat): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (!editor) return void vscode.window.showInformationMessage("nightschool: open a file and select some code first.");
  const { start, end } = editor.selection;
  const range = { start: { line: start.line, character: start.character }, end: { line: end.line, character: end.character } };
  await chat.answer(title, { kind, textDocument: { uri: editor.document.uri.toString() }, range });
}

async function showStatus(server: Server): Promise<void> {
  const status = await server.request<StatusResult>("nightschool/status", {}).catch((error: Error) => error);
  const lines = status instanceof Error ? [status.message] : linesOf(status);
  const chosen = await vscode.window.showQuickPick(lines, { title: "nightschool", placeHolder: "Choose a line to read all of it" });
  if (chosen) void vscode.window.showInformationMessage(`nightschool: ${chosen}`); // the list cuts what is long
}

async function rollBack(server: Server): Promise<void> {
  const sure = await vscode.window.showWarningMessage("Go back to the adapter before the one in service?", { modal: true }, "Roll Back");
  if (sure !== "Roll Back") return;
  await withProgress("Rolling back", async () => {
    const { version } = await server.command<{ version: string | null }>("nightschool.rollback");
    void vscode.window.showInformationMessage(`nightschool: ${version ?? "the base model"} is in service.`);
  });
}

/** Training takes a night; a terminal shows how it goes, and closing it stops it. */
function runNight(): void {
  const folder = vscode.workspace.workspaceFolders?.[0];
  if (!folder) return void vscode.window.showInformationMessage("nightschool: open a folder first.");
  const shellPath = vscode.workspace.getConfiguration("nightschool").get("command", "nightschool");
  const shellArgs = ["night", "--workspace", folder.uri.fsPath];
  vscode.window.createTerminal({ name: "nightschool night", shellPath, shellArgs, cwd: folder.uri }).show();
}

/** The base model is a line in nightschool.toml: open it there, written for the first time if need be. */
async function openSettingsFile(): Promise<void> {
  const folder = vscode.workspace.workspaceFolders?.[0];
  if (!folder) return;
  const file = vscode.Uri.joinPath(folder.uri, "nightschool.toml");
  try {
    await vscode.workspace.fs.stat(file);
  } catch {
    await vscode.workspace.fs.writeFile(file, new TextEncoder().encode('[server]\nmodel = "auto"\n'));
  }
  await vscode.window.showTextDocument(file);
}

async function withProgress<T>(title: string, work: () => Promise<T>): Promise<void> {
  const location = vscode.ProgressLocation.Notification;
  try {
    await vscode.window.withProgress({ location, title: `nightschool: ${title}` }, work);
  } catch (error) {
    void vscode.window.showErrorMessage(`nightschool: ${error instanceof Error ? error.message : String(error)}`);
  }
}
