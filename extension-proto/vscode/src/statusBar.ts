/** The status bar item: what answers, how far behind the index is, and how the last night went. */

import * as vscode from "vscode";
import type { StatusResult, Training } from "./protocol";

export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("nightschool.status", vscode.StatusBarAlignment.Right, 90);

  constructor() {
    this.item.name = "nightschool";
    this.item.command = "nightschool.showStatus";
    this.show(null, "");
    this.item.show();
  }

  show(status: StatusResult | null, problem: string): void {
    this.item.text = textOf(status, problem);
    this.item.tooltip = status ? linesOf(status).join("\n") : problem || "nightschool: not connected";
    const failed = problem || status?.backend === "failed" || status?.engine === "failed";
    this.item.backgroundColor = failed ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
    this.item.accessibilityInformation = { label: `nightschool, ${this.item.tooltip}` };
  }

  dispose(): void {
    this.item.dispose();
  }
}

export function textOf(status: StatusResult | null, problem: string): string {
  if (problem) return "$(warning) nightschool";
  if (!status || status.backend === "stopped") return "$(circle-outline) nightschool";
  if (status.backend === "starting" || status.engine === "starting") return "$(loading~spin) nightschool";
  if (status.backend === "failed" || status.engine === "failed") return "$(warning) nightschool";
  const lag = status.freshness?.waitingFiles ? ` $(sync~spin) ${status.freshness.waitingFiles}` : "";
  if (status.training) return `$(mortar-board) ${trainingOf(status.training)}`;
  return `$(mortar-board) ${status.adapter ?? (status.baseModel || "nightschool")}${lag}`;
}

function trainingOf({ step, steps }: Training): string {
  return steps ? `a night is running, step ${step} of ${steps}` : "a night is running";
}

export function linesOf(status: StatusResult): string[] {
  const lines = [`Backend: ${status.backend}`, `Engine: ${status.engine || "none"}`];
  lines.push(`Adapter: ${status.adapter ?? "none, the base model answers"}`, `Base model: ${status.baseModel || "none"}`);
  const f = status.freshness;
  if (f) lines.push(`Index: ${f.files} files, ${f.chunks} chunks, ${Math.round(f.secondsBehind ?? 0)} s behind`);
  if (status.night) lines.push(`Last night: ${[status.night.version, status.night.verdict].filter(Boolean).join(" ")}`);
  if (status.training) lines.push(`Training: ${trainingOf(status.training)}`);
  lines.push(`Ghost text: ${status.inlineCompletion.enabled ? "on" : `off, ${status.inlineCompletion.reason}`}`);
  return [...lines, ...status.reasons];
}
