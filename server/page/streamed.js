// Markdown that grows: what has come is shown at once, and rendered by the server as fast as it keeps up.
import { post } from "./api.js";
import { el, setRendered } from "./dom.js";

const RENDER_EVERY_MS = 120;
const ANY_MARKER = 999; // the server has removed markers that refer to nothing before they came here

export class Streamed {
  text = "";
  #element;
  #tail = el("span", { class: "tail" });
  #rendered = 0;
  #rendering = false;
  #whole = false;

  constructor(element) {
    this.#element = element;
  }

  push(delta) {
    this.text += delta;
    this.#tail.append(delta);
    if (!this.#tail.isConnected) this.#element.append(this.#tail);
    this.#catchUp();
  }

  /** The whole text, and how many passages its markers may refer to. Where it cannot be rendered it stays as it is. */
  async finish(text, passages) {
    this.#whole = true;
    this.text = text;
    const { html } = await post("/ui/render", { text, passages });
    setRendered(this.#element, html);
  }

  async #catchUp() {
    if (this.#rendering) return;
    this.#rendering = true;
    try {
      while (this.#rendered < this.text.length && !this.#whole) {
        const upTo = this.text.length;
        const { html } = await post("/ui/render", { text: this.text, passages: ANY_MARKER });
        if (this.#whole) return;
        setRendered(this.#element, html);
        this.#tail.textContent = this.text.slice(upTo);
        this.#element.append(this.#tail);
        this.#rendered = upTo;
        await new Promise((resolve) => setTimeout(resolve, RENDER_EVERY_MS));
      }
    } catch {
      // Refused or not answered: the plain text stays until the end, which says what is wrong.
    } finally {
      this.#rendering = false;
    }
  }
}
