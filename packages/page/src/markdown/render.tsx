/* Markdown tokens to React elements from a closed set.

Always true: text becomes text nodes; no element, attribute or address comes from the model except
through this file; raw HTML is shown as the text it is; images never load by themselves; the same
holds at every prefix of an answer. */

import type { Token, Tokens } from "marked";
import { createContext, memo, useContext, useEffect, useRef, useState, type ReactNode } from "react";
import { Icon } from "../icons.js";
import { CodeBlock } from "./code.js";
import { hiddenCount, revealed } from "../hidden.js";
import { decodeEntities, hostsIn, isInlineImage, safeLink } from "./links.js";

/** A quote in a list in a quote ...: deeper than this is shown as text. */
const MOST_DEPTH = 24;
/** A table's cell of no more characters is not broken into lines. */
const MOST_SHORT = 16;

export function renderBlocks(tokens: Token[], open: boolean, depth = 0): ReactNode[] {
  return tokens.map((token, at) => {
    const last = open && at === tokens.length - 1;
    return <BlockToken key={at} token={token} open={last} depth={depth} />;
  });
}

function BlockToken({ token, open, depth }: { token: Token; open: boolean; depth: number }): ReactNode {
  if (depth > MOST_DEPTH) return <p dir="auto">{token.raw}</p>;
  const inner = (tokens: Token[] | undefined) => renderInline(tokens ?? [], open, depth + 1);
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      // The page's own headings come first: an answer begins at the third level.
      const Name = `h${Math.min(6, (token as Tokens.Heading).depth + 2)}` as "h3";
      return <Name dir="auto">{inner(token.tokens)}</Name>;
    }
    case "paragraph":
      return <p dir="auto">{inner(token.tokens)}</p>;
    case "text":
      // Of a list's item. A list that turns out to be loose looks the same.
      return <p dir="auto">{token.tokens ? inner(token.tokens) : decodeEntities((token as Tokens.Text).text)}</p>;
    case "footnote":
      return (
        <p className="footnote" dir="auto">
          <sup>{(token as unknown as { label: string }).label}</sup> {inner(token.tokens)}
        </p>
      );
    case "hr":
      return <hr />;
    case "blockquote":
      return <blockquote dir={sideOf(token.raw)}>{renderBlocks(token.tokens ?? [], open, depth + 1)}</blockquote>;
    case "code": {
      const code = token as Tokens.Code;
      const language = /^[\w+#.-]{1,30}/.exec(code.lang ?? "")?.[0].toLowerCase() ?? "";
      return <CodeBlock code={code.text} language={language} open={open} />;
    }
    case "list":
      return <List list={token as Tokens.List} open={open} depth={depth} />;
    case "table":
      return <Table table={token as Tokens.Table} open={open} depth={depth} />;
    case "math":
      return <Formula source={(token as unknown as { text: string }).text} raw={token.raw} display />;
    case "html":
      return <p className="raw">{token.raw.trimEnd()}</p>;
    default:
      return <p>{token.raw}</p>;
  }
}

const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

/** The direction of a block that has others in it: those have their own, so `auto` would not see
 * their text. By the first letter, as `auto` has it. */
function sideOf(text: string): "rtl" | "ltr" | undefined {
  const letter = /\p{L}/u.exec(text.replace(/`[^`]*`/g, ""))?.[0];
  if (!letter) return undefined;
  return RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
}

function List({ list, open, depth }: { list: Tokens.List; open: boolean; depth: number }): ReactNode {
  const items = list.items.map((item, at) => {
    const last = open && at === list.items.length - 1;
    const tokens = item.tokens.filter((token) => token.type !== "checkbox");
    return (
      <li key={at} dir={sideOf(item.raw)} className={item.task ? "task" : undefined}>
        {item.task && <input type="checkbox" checked={!!item.checked} readOnly disabled aria-label={item.checked ? "done" : "to do"} />}
        {renderBlocks(tokens, last, depth + 1)}
      </li>
    );
  });
  const side = sideOf(list.raw);
  if (!list.ordered) return <ul dir={side}>{items}</ul>;
  return <ol dir={side} start={typeof list.start === "number" && list.start < 1e9 ? list.start : 1}>{items}</ol>;
}

function Table({ table, open, depth }: { table: Tokens.Table; open: boolean; depth: number }): ReactNode {
  const look = (at: number, text: string) => {
    const side = table.align[at];
    // A date or a price stays in one piece; the table scrolls instead.
    return `${side ? `to-${side}` : ""}${text.length <= MOST_SHORT ? " short" : ""}`;
  };
  return (
    <div className="table" dir={sideOf(table.raw)} tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>
            {table.header.map((cell, at) => (
              <th key={at} dir="auto" scope="col" className={look(at, cell.text)}>
                {renderInline(cell.tokens, false, depth + 1)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, number) => (
            <tr key={number}>
              {row.map((cell, at) => (
                <td key={at} dir="auto" className={look(at, cell.text)}>
                  {renderInline(cell.tokens, open && number === table.rows.length - 1, depth + 1)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function renderInline(tokens: Token[], open: boolean, depth: number): ReactNode[] {
  // An address may go on after what looks like its end (`https://a.` before `test`): only a space
  // after it settles it.
  const settled = open ? tokens.findLastIndex((token) => /\s/.test(token.raw)) : tokens.length;
  return tokens.map((token, at) => {
    const unsettled = open && at >= settled;
    return <InlineToken key={at} token={token} open={unsettled} depth={depth} />;
  });
}

function InlineToken({ token, open, depth }: { token: Token; open: boolean; depth: number }): ReactNode {
  if (depth > MOST_DEPTH) return <>{token.raw}</>;
  const inner = () => renderInline((token as Tokens.Generic).tokens ?? [], open, depth + 1);
  switch (token.type) {
    case "strong":
      return <strong>{inner()}</strong>;
    case "em":
      return <em>{inner()}</em>;
    case "del":
      return <del>{inner()}</del>;
    case "codespan":
      return <code dir="ltr">{(token as Tokens.Codespan).text}</code>;
    case "br":
      return <br />;
    case "checkbox":
      return null; // of a list's item, which has drawn it
    case "link":
      return <Link link={token as Tokens.Link} open={open} depth={depth} />;
    case "image":
      return <Picture image={token as Tokens.Image} open={open} />;
    case "math": {
      const { text, display } = token as unknown as { text: string; display: boolean };
      return <Formula source={text} raw={token.raw} display={display} />;
    }
    case "html":
      return /^<br\s*\/?>$/i.test(token.raw) ? <br /> : <>{token.raw}</>;
    case "footnoteMark":
      return <sup>{(token as unknown as { label: string }).label}</sup>;
    case "escape":
      return <>{(token as Tokens.Escape).text}</>;
    case "text":
      return (token as Tokens.Text).tokens ? <>{inner()}</> : <>{decodeEntities((token as Tokens.Text).text)}</>;
    default:
      return <>{token.raw}</>;
  }
}

function Link({ link, open, depth }: { link: Tokens.Link; open: boolean; depth: number }): ReactNode {
  const text = renderInline(link.tokens, false, depth + 1);
  const safe = safeLink(link.href);
  // While it touches the end of the text, the rest of its address may still come.
  if (!safe || open) return <span className="no-link">{text}</span>;
  const named = hostsIn(link.text);
  const other = named.find((host) => host !== safe.host);
  const isAddress = named.length > 0 && !other && !/[?]/.test(safe.href.startsWith("mailto:") ? safe.href : "");
  return (
    <>
      <a href={safe.href} target="_blank" rel="noopener noreferrer nofollow" title={safe.href}>
        <InLink value={true}>{hiddenCount(link.text) ? revealed(link.text) : text}</InLink>
      </a>
      {!isAddress && (
        <span className={other ? "host other" : "host"}>
          {" "}
          ({safe.host}){other && !safe.href.startsWith("mailto:") ? `, not ${other}` : ""}
        </span>
      )}
    </>
  );
}

/** Whether a link is around it: a link has no other inside. */
const InLink = createContext(false);

function Picture({ image, open }: { image: Tokens.Image; open: boolean }): ReactNode {
  const inLink = useContext(InLink);
  const name = image.text || "image";
  if (isInlineImage(image.href) && !open) return <img src={image.href} alt={name} className="inline-image" />;
  const safe = safeLink(image.href);
  if (!safe || open || inLink || !safe.href.startsWith("http")) {
    return (
      <span className="no-link">
        <Icon name="image" /> {name}
      </span>
    );
  }
  return (
    <a className="picture" href={safe.href} target="_blank" rel="noopener noreferrer nofollow" title={`Open ${safe.href}`}>
      <Icon name="image" /> {name} <span className="host">({safe.host})</span>
    </a>
  );
}

const Formula = memo(function Formula(props: { source: string; raw: string; display: boolean }): ReactNode {
  const { source, raw, display } = props;
  const target = useRef<HTMLSpanElement>(null);
  const [drawn, setDrawn] = useState(false);
  useEffect(() => {
    let gone = false;
    import("./math.js").then(
      ({ drawMath }) => {
        if (!gone && target.current) setDrawn(drawMath(source, target.current, display));
      },
      () => undefined,
    );
    return () => {
      gone = true;
    };
  }, [source, display]);
  return (
    <span className={display ? "math display" : "math"} dir="ltr">
      <span ref={target} />
      {!drawn && <code>{raw.trim()}</code>}
    </span>
  );
});
