// The panel beside the conversation that shows a passage: its lines with numbers, and whether they still stand there.
import { post } from "./api.js";
import { el, setRendered } from "./dom.js";

const place = (passage) => `${passage.path}:${passage.start_line}-${passage.end_line}`;

export class PassagePanel {
  #opener = null;

  constructor(context) {
    this.context = context;
    this.title = el("h2", { id: "passage-title", tabindex: "-1" });
    this.about = el("p", { class: "faint" });
    this.code = el("pre", { class: "code lines", tabindex: "0", "aria-labelledby": "passage-title" });
    const copy = el("button", { type: "button", onclick: () => navigator.clipboard.writeText(this.title.textContent) }, "Copy place");
    const close = el("button", { type: "button", class: "close", onclick: () => this.close() }, "Close");
    this.element = el("aside", { class: "passage", "aria-label": "Passage", hidden: true },
      el("div", { class: "row" }, this.title, copy, close), this.about, this.code);
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  /** Show a passage; `citation` says how its check ended, without one it was read and not cited. */
  async open(passage, citation, opener) {
    this.#opener = opener;
    this.title.textContent = place(passage);
    const commit = citation?.commit ? `at commit ${citation.commit.slice(0, 12)}` : "";
    const checked = citation ? (citation.verified ? "checked: these lines stand there" : "changed since the answer was written") : "read, not cited";
    this.about.textContent = [passage.symbol, checked, commit].filter(Boolean).join(" · ");
    this.about.classList.toggle("stale", citation?.verified === false);
    this.code.textContent = passage.text;
    this.element.hidden = false;
    this.title.focus();
    try {
      const { lines } = await post("/ui/code", { text: passage.text, path: passage.path });
      if (this.title.textContent !== place(passage)) return;
      this.code.replaceChildren(...lines.map((html, at) => numbered(html, passage.start_line + at)));
    } catch (error) {
      this.context.fail(error);
    }
  }

  close() {
    this.element.hidden = true;
    if (this.#opener?.isConnected) this.#opener.focus();
    this.#opener = null;
  }
}

function numbered(html, number) {
  const line = el("code", { class: "line", "data-line": number });
  setRendered(line, html || "\n");
  return line;
}

/** The button that opens a passage of an answer. */
export function sourceButton(panel, passage, citation) {
  const mark = citation ? (citation.verified ? "checked" : "changed since") : "";
  return el("button", { type: "button", class: "source", onclick: (event) => panel.open(passage, citation, event.currentTarget) },
    el("span", { class: "number" }, String(passage.index)), ` ${place(passage)}`,
    mark && el("span", { class: citation.verified ? "good" : "bad" }, ` ${mark}`));
}
