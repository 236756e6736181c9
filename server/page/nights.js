// The nights: what each decided and on what numbers, how the training went, and the way forth and back.
import { get, post } from "./api.js";
import { curve } from "./charts.js";
import { confirmed, el } from "./dom.js";

const EVERY_MS = 3000;
const progress = ({ step, steps, left_s: left }) => (steps ? `: step ${step} of ${steps}, about ${Math.max(1, Math.round(left / 60))} min of training left` : "");
const bits = (value) => (value === null ? "not measured" : value.toFixed(4));
const percent = (value) => `${value > 0 ? "+" : ""}${(value * 100).toFixed(1)}%`;

export class NightsView {
  constructor(context) {
    this.context = context;
    this.element = el("div", { class: "nights" });
    this.now = el("p", { class: "notice", role: "status", hidden: true });
  }

  /** An adapter that was promoted comes in a minute or two later: then what is in service is another. */
  stateChanged() {
    if (this.element.isConnected && this.adapter !== this.context.ready().adapter) this.shown();
  }

  async shown() {
    this.adapter = this.context.ready().adapter;
    try {
      const [told, adapters] = await Promise.all([get("/nights"), get("/adapters")]);
      this.#show(told.nights, adapters);
      this.#now(told);
    } catch (error) {
      this.context.fail(error);
    }
  }

  #show(nights, adapters) {
    const kept = adapters.adapters.map((adapter) => adapter.version);
    const made = new Set(nights.map((night) => night.version));
    const others = adapters.adapters.filter((adapter) => !made.has(adapter.version));
    this.element.replaceChildren(...[
      this.now,
      this.#service(adapters.in_service),
      nights.length === 0 && el("p", { class: "faint" }, "No night yet. ", el("code", {}, "nightschool night"), " trains an adapter, proves it on newer code, and promotes or refuses it."),
      gains(nights),
      ...nights.map((night, at) => this.#night(night, kept, adapters.in_service, at === 0)),
      others.length > 0 && this.#others(others, adapters.in_service),
    ].filter(Boolean));
  }

  /** What runs now, or how the last one ended when it left nothing of its own to show. */
  #now({ last, running, nights }) {
    const line = running ? `A night is running${progress(running)}.`
      : last && last.night !== nights[0]?.night ? `The last night ${last.outcome === "failed" ? "failed" : "was skipped"}: ${last.reason}.` : "";
    this.now.textContent = line;
    this.now.hidden = !line;
    clearTimeout(this.again);
    if (running) this.again = setTimeout(() => this.#look(running), EVERY_MS);
  }

  async #look(before) {
    if (!this.element.isConnected) return;
    const told = await get("/nights/last").catch(() => ({ running: before }));
    if (told.running) this.#now({ ...told, nights: [] });
    else await this.shown();
  }

  #service(version) {
    const back = el("button", { type: "button", disabled: version === null, onclick: () => this.#rollBack(version) }, "Roll back");
    return el("section", { class: "card row" }, el("h2", {}, "In service: ", el("span", { id: "in-service" }, version ?? "the base model")), back);
  }

  #night(night, kept, inService, open) {
    const title = el("summary", {}, el("h3", {}, when(night.night)), " ", el("span", { class: `badge ${night.outcome}` }, night.outcome),
      el("span", { class: "faint" }, ` ${night.reason || night.version}`));
    return el("details", { class: "card night", open, "data-night": night.night }, title,
      el("p", { class: "row" }, this.#promoteButton(night.version, kept, inService),
        night.report && el("a", { href: night.report, target: "_blank", rel: "noopener" }, "Report")),
      el("p", { class: "faint" }, about(night)), verdict(night), arms(night), training(night));
  }

  #promoteButton(version, kept, inService) {
    if (version === inService) return el("span", { class: "good" }, "in service");
    if (!kept.includes(version)) return null;
    return el("button", { type: "button", onclick: () => this.#promote(version, inService) }, "Promote");
  }

  #others(adapters, inService) {
    const row = (one) => el("tr", {}, el("th", { scope: "row" }, one.version), el("td", {}, loss(one.losses.held_out_before)), el("td", {}, loss(one.losses.held_out_after)),
      el("td", {}, this.#promoteButton(one.version, [one.version], inService)));
    return el("section", { class: "card" }, el("h2", {}, "Adapters trained without a night"),
      table(["version", "held-out loss before", "after", ""], adapters.map(row)));
  }

  async #promote(version, inService) {
    if (!(await confirmed(`Put ${version} in service in place of ${inService ?? "the base model"}?`, "Promote"))) return;
    await this.#change(`/adapters/${version}/promote`);
  }

  async #rollBack(version) {
    if (!(await confirmed(`Take ${version} out of service and go back to what was before it?`, "Roll back"))) return;
    await this.#change("/adapters/rollback");
  }

  async #change(path) {
    try {
      const { version } = await post(path);
      await this.shown();
      // The engine follows by itself within a minute or two; what is asked for is shown at once.
      this.element.querySelector("#in-service").textContent = `${version ?? "the base model"}${version === (await get("/adapters")).in_service ? "" : " (the engine is changing over)"}`;
    } catch (error) {
      this.context.fail(error);
    }
  }
}

const loss = (value) => (value === null ? "not measured" : value.toFixed(3));

function when(night) {
  const [, year, month, day, hour, minute] = /^(\d{4})-(\d\d)-(\d\d)-(\d\d)(\d\d)/.exec(night) ?? [];
  if (year === undefined) return night;
  return new Date(Date.UTC(year, month - 1, day, hour, minute)).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function about(night) {
  const proof = night.is_next_day ? `proved on what came after, up to ${night.newer_commit.slice(0, 8)}` : "proved on files never trained on";
  const minutes = Object.values(night.seconds).reduce((sum, seconds) => sum + seconds, 0) / 60;
  const facts = [night.base_model, night.commit && `trained on ${night.commit.slice(0, 8)}`, night.rows.length > 0 && proof, minutes > 0 && `${minutes.toFixed(1)} minutes`];
  return facts.filter(Boolean).join(" · ");
}

function table(head, rows, caption) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption ?? "table" }, el("table", {}, caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)));
}

function verdict(night) {
  if (night.verdict.length === 0) return null;
  const rows = night.verdict.map((line) => el("tr", {}, el("th", { scope: "row" }, line.rule), el("td", {}, line.measured),
    el("td", { class: line.passed ? "good" : "bad" }, line.passed ? "passed" : "not passed")));
  return table(["rule", "measured", ""], rows, "Verdict");
}

function arms(night) {
  if (night.rows.length === 0) return null;
  const best = Math.min(...night.rows.map((row) => row.newer_code ?? Infinity));
  const rows = night.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.arm), el("td", {}, row.retrieval ? "on" : "off"),
    el("td", { class: row.newer_code === best ? "number best" : "number" }, bits(row.newer_code)), el("td", { class: "number" }, bits(row.elsewhere))));
  const newer = night.is_next_day ? "newer code" : "held-out files";
  return table(["arm", "retrieval", `bits per byte, ${newer}`, "other people's code"], rows, "With and without adapter and retrieval (less is better)");
}

function training(night) {
  if (night.curve.length < 2) return null;
  return el("figure", {}, el("figcaption", {}, "Training loss, nats a token"),
    curve(night.curve, { x: "step", format: (value) => value.toFixed(2), label: "Training loss" }));
}

/** The change of bits per byte that each night's candidate made with retrieval on, oldest first. */
function gains(nights) {
  const points = nights.toReversed().flatMap((night) => {
    const of = (arm) => night.rows.find((row) => row.arm === arm && row.retrieval)?.newer_code;
    return of("base") && of("candidate") ? [of("candidate") / of("base") - 1] : [];
  }).map((gain, at) => [at + 1, gain]);
  if (points.length < 2) return null;
  return el("figure", { class: "card" }, el("figcaption", {}, "Night by night: bits per byte against the base model, less is better"),
    curve(points, { x: "night", format: percent, zero: true, label: "Change against the base model" }));
}
