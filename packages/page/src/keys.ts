/* Keys that mean the same everywhere on the page. */

interface Key {
  key: string;
  keyCode: number;
  isComposing: boolean;
}

/** Whether a key belongs to an input method: Enter chooses a candidate there, Esc closes their list.
 * Safari ends the composition before the key that ended it; that one has the code 229. */
export function isComposing(event: Key | { nativeEvent: Key }): boolean {
  const native = "nativeEvent" in event ? event.nativeEvent : event;
  return native.isComposing || native.keyCode === 229;
}

/** Whether a person writes with a keyboard on the screen: it has no Shift+Enter, so Enter breaks the
 * line there. */
export function hasTouchKeyboard(): boolean {
  return matchMedia("(pointer: coarse) and (hover: none)").matches;
}
