/** The conversation that the chat view shows: plain data, kept for the workspace. */

import type { AskResult, Turn } from "./protocol";

/** One question and its answer. `text` grows while it streams; `result` is there when it is whole. */
export interface Exchange {
  id: number;
  question: string;
  /** Where the question was asked, for the reader: "reader.py:3-9", or "" for none. */
  about: string;
  text: string;
  notices: string[];
  state: "answering" | "done" | "stopped" | "failed";
  error: string;
  result: AskResult | null;
}

export class Conversation {
  exchanges: Exchange[] = [];

  /** The conversation as it was kept; what was still being answered then was stopped. */
  static from(kept: Exchange[] | undefined): Conversation {
    const conversation = new Conversation();
    conversation.exchanges = (kept ?? []).map((e) => (e.state === "answering" ? { ...e, state: "stopped" } : e));
    return conversation;
  }

  get last(): Exchange | undefined {
    return this.exchanges.at(-1);
  }

  begin(question: string, about: string): Exchange {
    const id = (this.last?.id ?? 0) + 1;
    const exchange: Exchange = { id, question, about, text: "", notices: [], state: "answering", error: "", result: null };
    this.exchanges.push(exchange);
    return exchange;
  }

  /** What was said before `exchange`, for the model: answers that came whole, oldest first. */
  turnsBefore(exchange: Exchange): Turn[] {
    const earlier = this.exchanges.slice(0, this.exchanges.indexOf(exchange)).filter((e) => e.state === "done");
    return earlier.slice(-10).flatMap((e) => [
      { role: "user", content: e.question },
      { role: "assistant", content: e.result?.answer ?? e.text },
    ]);
  }

  /** What is worth keeping: the last exchanges, without the passages' text. */
  kept(): Exchange[] {
    return this.exchanges.slice(-30).map((e) => (e.result ? { ...e, result: { ...e.result, passages: [] } } : e));
  }
}
