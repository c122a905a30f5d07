// What the page remembers. Where the browser denies storage, or it is full, the values are kept in memory.

class Store {
  /** @param {"localStorage" | "sessionStorage"} name */
  constructor(name) {
    this.name = name;
    this.unsaved = new Map();
  }

  /** The text of a value, or null. */
  text(key) {
    if (this.unsaved.has(key)) return this.unsaved.get(key);
    try {
      return window[this.name].getItem(key);
    } catch {
      return null;
    }
  }

  get(key) {
    try {
      return JSON.parse(this.text(key));
    } catch {
      return null;
    }
  }

  /** Set a value; null removes it. An equal value is not written: other tabs hear of changes only. */
  set(key, value) {
    const text = value === null ? null : JSON.stringify(value);
    if (text === this.text(key)) return;
    this.unsaved.delete(key);
    try {
      if (text === null) window[this.name].removeItem(key);
      else window[this.name].setItem(key, text);
    } catch {
      this.unsaved.set(key, text);
    }
  }
}

export const browser = new Store("localStorage"); // shared by all tabs, and kept when they are closed
export const tab = new Store("sessionStorage");
