// One answer: streamed, then with what it stands on. `record` is what the history keeps of it.
import { ask, post } from "./api.js";
import { el } from "./dom.js";
import { sourceButton } from "./passage.js";
import { Streamed } from "./streamed.js";

/** The ways to answer that can stand side by side. `body` is what the request says beyond the question. */
export const ARMS = [
  { id: "service", label: "In service", hint: "the adapter in service, over your code", body: {} },
  { id: "base", label: "Base model", hint: "without the adapter, over your code", body: { adapter: "none" } },
  { id: "bare", label: "No retrieval", hint: "the adapter in service, without your code", body: { retrieval: false } },
];

const STATES = { waiting: "looking for passages", writing: "writing", stopped: "stopped", failed: "failed", done: "" };

export class Answer {
  #abort = new AbortController();

  constructor(context, panel, arm) {
    this.context = context;
    this.panel = panel;
    this.record = { arm: arm.id, state: "waiting", text: "", done: null, notices: [] };
    this.arm = arm;
    this.stateLine = el("span", { class: "faint" });
    this.text = el("div", { class: "text" });
    this.below = el("div", { class: "below" });
    this.element = el("article", { class: "answer", "data-arm": arm.id, "aria-label": `Answer: ${arm.label}` },
      el("p", { class: "arm" }, el("strong", {}, arm.label), " ", this.stateLine), this.text, this.below);
    this.streamed = new Streamed(this.text);
    this.text.addEventListener("click", (event) => this.#opened(event.target.closest(".citation")));
    this.#become("waiting");
  }

  get isOver() {
    return ["done", "stopped", "failed"].includes(this.record.state);
  }

  stop() {
    this.#abort.abort();
  }

  /** Ask, and show the answer as it is written. Never raises: what went wrong is shown in the answer's place. */
  async run(body) {
    try {
      for await (const event of ask({ ...body, ...this.arm.body }, this.#abort.signal)) this.#take(event);
      if (!this.isOver) this.#become("failed", "the backend broke off");
      await this.streamed.finish(this.record.text, this.record.done?.passages.length ?? 0);
    } catch (error) {
      if (error.name === "AbortError") this.#become("stopped");
      else if (this.record.done === null) this.#become("failed", error.message);
      if (error.status === 401) this.context.fail(error);
    }
    this.#showBelow();
  }

  /** Show an answer of the history again. */
  async restore(record) {
    this.record = record;
    this.text.textContent = record.text;
    this.#become(record.state);
    this.#showBelow();
    await this.streamed.finish(record.text, record.done?.passages.length ?? 0).catch(this.context.fail);
  }

  #take({ name, data }) {
    if (name === "text") {
      this.#become("writing");
      this.streamed.push(data.delta);
      this.record.text = this.streamed.text;
    } else if (name === "notice") {
      this.record.notices.push(data.text);
      this.#showBelow();
    } else if (name === "error") {
      this.#become("failed", data.message);
    } else if (name === "done") {
      this.record = { ...this.record, done: data, text: data.answer, notices: data.notices };
      this.#become("done");
    }
  }

  #become(state, why = "") {
    this.record.state = state;
    this.element.dataset.state = state;
    this.stateLine.textContent = [STATES[state], why].filter(Boolean).join(": ");
    this.element.setAttribute("aria-busy", String(!this.isOver));
  }

  #opened(marker) {
    if (!marker || !this.record.done) return;
    const number = Number(marker.dataset.passage);
    const passage = this.record.done.passages.find((one) => one.index === number);
    if (passage) this.panel.open(passage, this.#citation(number), marker);
  }

  #citation(number) {
    return this.record.done.citations.find((citation) => citation.index === number);
  }

  #showBelow() {
    const { done, notices } = this.record;
    const parts = notices.map((text) => el("p", { class: "notice" }, text));
    if (done) {
      const [cited, read] = [true, false].map((is) => done.passages.filter((one) => Boolean(this.#citation(one.index)) === is));
      parts.push(this.#list("Sources", cited, true), this.#list("Also read", read, !done.answer), groundedness(done), facts(done));
    }
    if (this.isOver) parts.push(this.#buttons());
    this.below.replaceChildren(...parts.filter(Boolean));
  }

  #list(title, passages, open) {
    if (passages.length === 0) return null;
    const items = passages.map((one) => el("li", {}, sourceButton(this.panel, one, this.#citation(one.index))));
    return el("details", { class: "sources", open }, el("summary", {}, `${title} (${passages.length})`), el("ul", {}, items));
  }

  #buttons() {
    const copy = el("button", { type: "button", class: "quiet", onclick: () => this.#copy(copy) }, "Copy");
    return el("p", { class: "row" }, this.record.text && copy, ...this.#thumbs());
  }

  async #copy(button) {
    await navigator.clipboard.writeText(this.record.text);
    button.textContent = "Copied";
  }

  #thumbs() {
    const { done } = this.record;
    if (!done?.id || !this.context.ready()?.feedback) return [];
    const thumb = (kept, label, sign) => el("button", {
      type: "button", class: "quiet thumb", "aria-label": label, title: label, "aria-pressed": String(this.record.kept === kept),
      onclick: () => this.#judge(kept),
    }, sign);
    return [thumb(true, "A good answer", "👍"), thumb(false, "A bad answer", "👎")];
  }

  async #judge(kept) {
    try {
      await post("/feedback", { id: this.record.done.id, kept });
      this.record.kept = kept;
      this.#showBelow();
      this.element.dispatchEvent(new CustomEvent("judged", { bubbles: true }));
    } catch (error) {
      this.context.fail(error);
    }
  }
}

/** How fresh, on what weights, how fast: one line. */
function facts(done) {
  const fresh = done.freshness;
  const changed = fresh.dirty_files === 1 ? "1 changed file" : `${fresh.dirty_files} changed files`;
  const line = [
    fresh.commit ? `commit ${fresh.commit.slice(0, 8)}` : "no commit",
    fresh.dirty_files ? changed : null,
    fresh.waiting_files ? `index ${fresh.seconds_behind.toFixed(1)} s behind` : "index up to date",
    done.base_model ? (done.adapter ? `adapter ${done.adapter} on ${done.base_model}` : `${done.base_model}, no adapter`) : "no model",
    done.timings_ms.total === undefined ? null : `${(done.timings_ms.total / 1000).toFixed(1)} s`,
  ];
  return el("p", { class: "freshness faint" }, line.filter(Boolean).join(" · "));
}

/** How much of the answer stands on code, where the backend measured it. */
function groundedness({ groundedness: share, answer }) {
  if (typeof share !== "number" || !answer) return null;
  return el("p", { class: "grounded faint" }, el("meter", { min: 0, max: 1, value: share, "aria-hidden": "true" }),
    `${Math.round(share * 100)}% of it stands on the code that was found`);
}
