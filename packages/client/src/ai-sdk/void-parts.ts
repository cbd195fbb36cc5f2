/* The parts of an AI SDK message that still count.

After a worker was lost in the middle of a step, the step starts again and says its words anew.
Versions 5 and 6 of `ai` know no chunk that takes parts back, so the server marks them instead. */

/** `parts` without those of a step that was started again, and without the marks themselves. The
 * server marks with a part `data-step-reset` that everything since the `step-start` before it is
 * void; with `compat=7` there are none, and nothing changes. For whoever draws a message:
 *
 *     withoutVoid(message.parts).map((part) => ...)
 */
export function withoutVoid<P extends { type: string }>(parts: readonly P[]): P[] {
  const kept: P[] = [];
  let step = 0;
  for (const part of parts) {
    if (part.type === "data-step-reset") {
      kept.length = step;
      continue;
    }
    if (part.type === "step-start") step = kept.length;
    kept.push(part);
  }
  return kept;
}
