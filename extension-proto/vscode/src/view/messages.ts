/** What the extension and its web view say to each other. */

import type { Exchange } from "../conversation";
import type { StatusResult } from "../protocol";

/** Why there is nothing to ask yet, or null when there is. */
export type Missing = "folder" | "server" | "backend" | "engine" | null;

export type ToView =
  | { kind: "all"; exchanges: Exchange[] }
  | { kind: "exchange"; exchange: Exchange }
  | { kind: "status"; status: StatusResult | null; missing: Missing; reason: string }
  | { kind: "focus" };

export type FromView =
  | { kind: "ready" }
  | { kind: "ask"; question: string }
  | { kind: "stop" }
  | { kind: "open"; exchange: number; citation: number }
  | { kind: "copy"; text: string }
  | { kind: "command"; command: string };
