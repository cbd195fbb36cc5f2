/* Formulas to MathML, built as nodes; loaded when the first formula is shown. */

import temml from "temml";

/** Draws `source` into `target`; returns false when it is no formula. */
export function drawMath(source: string, target: HTMLElement, display: boolean): boolean {
  try {
    temml.render(source, target, {
      displayMode: display,
      throwOnError: true,
      trust: false,
      maxSize: [20, 20],
      maxExpand: 200,
    });
    return true;
  } catch {
    target.textContent = "";
    return false;
  }
}
