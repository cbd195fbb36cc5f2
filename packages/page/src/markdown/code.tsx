/* A listing: coloured when its language is known, with its name and a copy button. */

import { memo, useEffect, useState, type ReactNode } from "react";
import { CopyButton } from "../copy.js";

type Highlighter = typeof import("./highlight.js").highlight;

let loaded: Highlighter | undefined;
let loading: Promise<void> | undefined;
/** An open listing longer than this is coloured when it is complete. */
const MOST_OPEN = 6000;
const MOST = 200_000;

export const CodeBlock = memo(function CodeBlock(props: {
  code: string;
  language: string;
  open: boolean;
}): ReactNode {
  const { code, language, open } = props;
  const [, redraw] = useState(0);
  useEffect(() => {
    if (loaded || !language) return undefined;
    let gone = false;
    loading ??= import("./highlight.js").then((module) => {
      loaded = module.highlight;
    });
    loading.then(
      () => gone || redraw((n) => n + 1),
      () => undefined,
    );
    return () => {
      gone = true;
    };
  }, [language]);
  const wanted = language && code.length < (open ? MOST_OPEN : MOST);
  const pieces = wanted ? loaded?.(code, language) : null;
  return (
    <figure className="code" aria-label={`Code${language ? `: ${language}` : ""}`}>
      <figcaption>
        <span>{language || "text"}</span>
        <CopyButton text={code} label="Copy code" />
      </figcaption>
      <pre tabIndex={0} dir="ltr">
        <code>
          {pieces
            ? pieces.map((piece, at) =>
                piece.className ? (
                  <span key={at} className={piece.className}>
                    {piece.text}
                  </span>
                ) : (
                  piece.text
                ),
              )
            : code}
        </code>
      </pre>
    </figure>
  );
});
