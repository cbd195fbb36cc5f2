/* JSON that is still being written, as a value.

Always true: each character is looked at once, so the work is linear however the text is cut; a
member appears when its value begins; what is shown never contradicts the whole text, except that
an open string or number is still growing; names are data, also `__proto__`. */

type Container = Record<string, unknown> | unknown[];

interface Level {
  at: Container;
  /** The member that is being written, for objects. */
  key: string;
}

const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f" };
const WORDS: Record<string, unknown> = { true: true, false: false, null: null };
/** Deeper than this is not shown, and stops the reading. */
const MOST_DEPTH = 200;

type Mode = "value" | "key" | "after-key" | "string" | "scalar" | "after" | "end" | "bad";

export class PartialJSON {
  #stack: Level[] = [];
  #root: unknown;
  #mode: Mode = "value";
  #isKey = false;
  #text: string[] = [];
  /** An escape that is not complete: `\`, `\u12`. */
  #escape = "";
  /** Whether something came since the last snapshot, and that snapshot. */
  #fed = true;
  #shared: unknown;

  /** Takes the next piece in. */
  feed(piece: string): this {
    if (piece) this.#fed = true;
    for (let at = 0; at < piece.length && this.#mode !== "bad"; at++) {
      if (this.#mode === "string" && !this.#escape) {
        const start = at;
        while (at < piece.length && piece[at] !== '"' && piece[at] !== "\\") at++;
        if (at > start) this.#text.push(piece.slice(start, at));
        if (at === piece.length) break;
      }
      this.#take(piece[at]!);
    }
    return this;
  }

  /** The value so far; undefined before anything can be shown. */
  get value(): unknown {
    if (this.#mode === "string" && !this.#isKey) this.#put(this.#joined());
    else if (this.#mode === "scalar") {
      const known = scalar(this.#joined(), true);
      if (known !== undefined) this.#put(known);
    }
    return this.#root;
  }

  /** The value so far, to keep: it never changes again, and what was finished before is the same
   * object as in the snapshot before. */
  snapshot(): unknown {
    const shown = this.value;
    if (!this.#fed) return this.#shared;
    this.#fed = false;
    // What is still open goes on in copies; only these are written to from now on.
    for (let at = this.#stack.length - 1; at >= 0; at--) {
      const level = this.#stack[at]!;
      level.at = Array.isArray(level.at) ? [...level.at] : { ...level.at };
      const inner = this.#stack[at + 1];
      if (inner) put(level, inner.at);
      if (at === 0) this.#root = level.at;
    }
    return (this.#shared = shown);
  }

  /** Whether the text was a whole JSON value. */
  get complete(): boolean {
    if (this.#mode === "scalar" && !this.#stack.length) {
      return scalar(this.#joined(), false) !== undefined;
    }
    return this.#mode === "end";
  }

  #joined(): string {
    if (this.#text.length > 1) this.#text = [this.#text.join("")];
    return this.#text[0] ?? "";
  }

  #take(char: string): void {
    if (this.#mode === "string") return this.#string(char);
    if (this.#mode === "scalar") {
      if (/[-+.\w]/.test(char)) {
        this.#text.push(char);
        return;
      }
      const value = scalar(this.#joined(), false);
      if (value === undefined) {
        this.#mode = "bad";
        return;
      }
      this.#put(value);
      this.#closed();
    }
    if (/\s/.test(char)) return;
    const level = this.#stack[this.#stack.length - 1];
    if (char === "}" || char === "]") {
      const fits = level && Array.isArray(level.at) === (char === "]");
      if (!fits || this.#mode === "after-key") this.#mode = "bad";
      else {
        this.#stack.pop();
        this.#closed();
      }
    } else if (this.#mode === "value") this.#begin(char);
    else if (this.#mode === "key" && char === '"') this.#open(true);
    else if (this.#mode === "after-key" && char === ":") this.#mode = "value";
    else if (this.#mode === "after" && char === "," && level) {
      this.#mode = Array.isArray(level.at) ? "value" : "key";
      if (Array.isArray(level.at)) level.key = String(level.at.length);
    } else this.#mode = "bad";
  }

  #begin(char: string): void {
    if (char === "{" || char === "[") {
      const at: Container = char === "{" ? {} : [];
      if (this.#stack.length >= MOST_DEPTH) {
        this.#mode = "bad";
        return;
      }
      this.#put(at);
      this.#stack.push({ at, key: "0" });
      this.#mode = char === "{" ? "key" : "value";
    } else if (char === '"') this.#open(false);
    else if (/[-\dtfn]/.test(char)) {
      this.#text = [char];
      this.#mode = "scalar";
    } else this.#mode = "bad";
  }

  #open(isKey: boolean): void {
    this.#isKey = isKey;
    this.#text = [];
    this.#mode = "string";
  }

  #string(char: string): void {
    if (this.#escape) {
      this.#escape += char;
      if (this.#escape[1] === "u") {
        if (this.#escape.length < 6) return;
        this.#text.push(String.fromCharCode(parseInt(this.#escape.slice(2), 16) || 0));
      } else this.#text.push(ESCAPES[char] ?? char);
      this.#escape = "";
    } else if (char === "\\") this.#escape = char;
    else if (this.#isKey) {
      this.#stack[this.#stack.length - 1]!.key = this.#joined();
      this.#mode = "after-key";
    } else {
      this.#put(this.#joined());
      this.#closed();
    }
  }

  #closed(): void {
    this.#mode = this.#stack.length ? "after" : "end";
  }

  #put(value: unknown): void {
    const level = this.#stack[this.#stack.length - 1];
    if (level) put(level, value);
    else this.#root = value;
  }
}

function put({ at, key }: Level, value: unknown): void {
  if (key === "__proto__" && !Array.isArray(at)) {
    const own = { value, writable: true, enumerable: true, configurable: true };
    Object.defineProperty(at, key, own);
  } else (at as Record<string, unknown>)[key] = value;
}

/** A number or a word. While it is open, a number is shown as far as it is one. */
function scalar(text: string, open: boolean): unknown {
  if (Object.hasOwn(WORDS, text)) return WORDS[text];
  let end = text.length;
  while (open && end && "-+.eE".includes(text[end - 1]!)) end--;
  const shown = text.slice(0, end);
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$/.test(shown) ? Number(shown) : undefined;
}
