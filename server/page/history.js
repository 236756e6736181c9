// Conversations, kept in this browser only, one list a workspace.
const MOST = 100;

export class History {
  #key;

  constructor(workspace) {
    this.#key = `nightschool.history:${workspace}`;
  }

  /** The conversations, the one touched last first: `{id, title, at, turns}`. */
  list() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#key) ?? "[]");
      return Array.isArray(kept) ? kept : [];
    } catch {
      return [];
    }
  }

  /** Keep a conversation as it is now. The oldest go when there are too many or the browser has no room. */
  put(conversation) {
    const kept = [conversation, ...this.list().filter((other) => other.id !== conversation.id)].slice(0, MOST);
    while (kept.length > 0 && !this.#write(kept)) kept.pop();
  }

  remove(id) {
    this.#write(this.list().filter((conversation) => conversation.id !== id));
  }

  clear() {
    localStorage.removeItem(this.#key);
  }

  #write(kept) {
    try {
      localStorage.setItem(this.#key, JSON.stringify(kept));
      return true;
    } catch {
      return false; // QuotaExceededError
    }
  }
}
