// The conversation: questions, their answers side by side, the passages beside them, and the conversations before.
import { ARMS, Answer } from "./answer.js";
import { confirmed, el } from "./dom.js";
import { History } from "./history.js";
import { PassagePanel } from "./passage.js";

const EARLIER_TURNS = 10;
const EXAMPLES = ["What does this repository do, and where does it start?", "Which settings are there, and where are they read?", "How are the tests run?"];

export class AskView {
  #conversation = fresh();
  #answers = []; // of the question asked last

  constructor(context) {
    this.context = context;
    this.history = new History(context.ready().workspace);
    this.panel = new PassagePanel(context);
    this.turns = el("ol", { class: "turns", "aria-label": "Conversation" });
    this.said = el("p", { class: "hidden", role: "status" });
    this.list = el("ul", {});
    this.element = el("div", { class: "ask" }, this.#makeHistory(), el("section", { class: "talk" }, this.turns, this.said, this.#makeComposer()), this.panel.element);
    this.element.addEventListener("judged", () => this.#keep());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#showHistory();
    this.#showEmpty();
  }

  shown() {
    this.stateChanged();
    this.question.focus({ preventScroll: true });
  }

  /** The base model beside itself says nothing, so without an adapter it cannot be chosen. */
  stateChanged() {
    const box = this.arms.querySelector("input[value=base]");
    const hasAdapter = Boolean(this.context.ready().adapter);
    box.disabled = !hasAdapter;
    if (!hasAdapter) box.checked = false;
    box.parentElement.title = hasAdapter ? ARMS[1].hint : "No adapter is in service: what answers is the base model already.";
    if (!this.arms.querySelector(":checked")) this.arms.querySelector("input").checked = true;
  }

  #makeComposer() {
    this.question = el("textarea", { id: "question", rows: 2, maxlength: 8000, placeholder: "Ask about the code", "aria-label": "Question", "aria-keyshortcuts": "/" });
    this.question.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.#send(); }
    });
    this.button = el("button", { class: "primary", id: "send" }, "Ask");
    this.arms = el("fieldset", { class: "arms" }, el("legend", {}, "Answer with"),
      ARMS.map((arm) => el("label", { title: arm.hint }, el("input", { type: "checkbox", value: arm.id, checked: arm.id === "service" }), ` ${arm.label}`)));
    this.arms.addEventListener("change", () => this.stateChanged());
    const submit = (event) => { event.preventDefault(); if (this.#isBusy()) this.#stop(); else this.#send(); };
    return el("form", { class: "composer", onsubmit: submit }, this.question, el("div", { class: "row" }, this.arms, this.button));
  }

  #makeHistory() {
    const wide = matchMedia("(min-width: 64rem)").matches;
    const clear = el("button", { type: "button", class: "quiet", onclick: () => this.#clear() }, "Delete all");
    const more = el("button", { type: "button", id: "new", onclick: () => this.#begin() }, "New conversation");
    return el("aside", { class: "history", "aria-label": "Conversations" }, more,
      el("details", { open: wide }, el("summary", {}, "Earlier, in this browser only"), this.list, clear));
  }

  #key(event) {
    if (!this.element.isConnected || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && this.#isBusy()) this.#stop();
    const typing = event.target.matches?.("textarea, input:not([type=checkbox])");
    if (event.key === "/" && !typing) { event.preventDefault(); this.question.focus(); }
  }

  #isBusy() {
    return this.#answers.some((answer) => !answer.isOver);
  }

  #stop() {
    for (const answer of this.#answers) answer.stop();
  }

  async #send(text = this.question.value.trim()) {
    if (!text || this.#isBusy()) return;
    this.context.quiet();
    const chosen = ARMS.filter((arm) => this.arms.querySelector(`input[value=${arm.id}]`).checked);
    const body = { question: text, conversation: this.#earlier() };
    this.question.value = "";
    this.#answers = this.#addTurn(text, chosen);
    const conversation = this.#conversation;
    const turn = { question: text, answers: [] };
    conversation.turns.push(turn);
    this.#busy("Asked. The answer is being written.");
    this.turns.lastElementChild.scrollIntoView({ block: "start" });
    const answers = this.#answers;
    await Promise.all(answers.map((answer) => answer.run(body)));
    turn.answers = answers.map((answer) => answer.record);
    this.#keep(conversation);
    this.#busy(answers.every((answer) => answer.record.state === "done") ? "The answer is complete." : "The answer ended early.");
  }

  #busy(said) {
    this.said.textContent = said;
    this.button.textContent = this.#isBusy() ? "Stop" : "Ask";
  }

  #addTurn(question, arms) {
    if (this.#conversation.turns.length === 0) this.turns.replaceChildren();
    const answers = arms.map((arm) => new Answer(this.context, this.panel, arm));
    this.turns.append(el("li", {}, el("h2", { class: "question" }, question),
      el("div", { class: "answers", "data-count": answers.length }, answers.map((answer) => answer.element))));
    return answers;
  }

  /** The turns before, as the backend takes them: each with the first of its answers that was finished. */
  #earlier() {
    return this.#conversation.turns.slice(-EARLIER_TURNS).flatMap((turn) => {
      const answer = turn.answers.find((one) => one.state === "done" && one.text);
      return answer ? [{ role: "user", content: turn.question }, { role: "assistant", content: answer.text }] : [];
    });
  }

  #keep(conversation = this.#conversation) {
    if (conversation.turns.length === 0) return;
    this.history.put({ ...conversation, title: conversation.turns[0].question, at: Date.now() });
    this.#showHistory();
  }

  #begin(conversation = fresh()) {
    this.#stop();
    this.#answers = [];
    this.panel.close();
    this.#conversation = { id: conversation.id, turns: [] };
    this.turns.replaceChildren();
    for (const turn of conversation.turns) {
      const arms = turn.answers.map((record) => ARMS.find((arm) => arm.id === record.arm) ?? ARMS[0]);
      this.#addTurn(turn.question, arms).forEach((answer, at) => answer.restore(turn.answers[at]));
      this.#conversation.turns.push(turn);
    }
    this.#showEmpty();
    this.#showHistory();
    this.#busy("");
    this.question.focus();
  }

  #showEmpty() {
    if (this.#conversation.turns.length > 0) return;
    const name = this.context.ready().workspace.split("/").pop();
    this.turns.replaceChildren(el("li", { class: "empty" }, el("h2", {}, `Ask about ${name}`),
      el("p", { class: "faint" }, "Answers come from the code as it is now, with the lines they stand on. Nothing leaves this machine."),
      EXAMPLES.map((text) => el("button", { type: "button", class: "example", onclick: () => this.#send(text) }, text))));
  }

  #showHistory() {
    const kept = this.history.list();
    const item = (one) => el("li", {},
      el("button", { type: "button", class: "kept", "aria-current": one.id === this.#conversation.id ? "true" : null, onclick: () => this.#begin(one) }, one.title),
      el("button", { type: "button", class: "quiet", "aria-label": `Delete: ${one.title}`, title: "Delete", onclick: () => this.#remove(one) }, "×"));
    this.list.replaceChildren(...(kept.length > 0 ? kept.map(item) : [el("li", { class: "faint" }, "none yet")]));
    this.list.nextElementSibling.hidden = kept.length === 0;
  }

  #remove(conversation) {
    this.history.remove(conversation.id);
    if (conversation.id === this.#conversation.id) this.#begin();
    else this.#showHistory();
  }

  async #clear() {
    if (!(await confirmed("Delete all conversations kept in this browser?", "Delete all"))) return;
    this.history.clear();
    this.#begin();
  }
}

function fresh() {
  return { id: crypto.randomUUID(), turns: [] };
}
