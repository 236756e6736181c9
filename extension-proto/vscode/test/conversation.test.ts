import assert from "node:assert/strict";
import { test } from "node:test";
import { Conversation } from "../src/conversation";

test("only whole answers go along with the next question", () => {
  const conversation = new Conversation();
  Object.assign(conversation.begin("one?", ""), { state: "done", text: "1 é😀" });
  Object.assign(conversation.begin("two?", ""), { state: "failed" });
  Object.assign(conversation.begin("three?", ""), { state: "stopped", text: "half" });
  const now = conversation.begin("four?", "");
  assert.deepEqual(conversation.turnsBefore(now), [
    { role: "user", content: "one?" },
    { role: "assistant", content: "1 é😀" },
  ]);
});

test("what was being answered when the window closed was stopped", () => {
  const conversation = new Conversation();
  conversation.begin("one?", "a.py:1-2");
  const again = Conversation.from(JSON.parse(JSON.stringify(conversation.kept())));
  assert.equal(again.last?.state, "stopped");
  assert.equal(again.begin("two?", "").id, 2);
});
