/* An answer's Markdown, drawn block by block.

Always true: a finished block is drawn once; of a very long answer only what is near the window is in
the document. */

import { memo, useEffect, useRef, useState, type ReactNode } from "react";
import { flushSync } from "react-dom";
import { type Block, BlockReader } from "./blocks.js";
import { renderBlocks } from "./render.js";

/** Blocks in one group; groups are what is mounted and unmounted. */
const GROUP = 24;
/** An answer of fewer groups is in the document as a whole, so that the browser's search finds it. */
const MOST_GROUPS = 12;

export const Markdown = memo(function Markdown({ text, open }: { text: string; open: boolean }): ReactNode {
  const reader = useRef<BlockReader>(undefined);
  reader.current ??= new BlockReader();
  const groups = useGroups(reader.current.read(text, open));
  const printing = usePrinting();
  const windowed = groups.length > MOST_GROUPS && !printing;
  return (
    <div className="markdown">
      {groups.map((blocks, at) => (
        <Group key={at} blocks={blocks} windowed={windowed && at < groups.length - 1} />
      ))}
    </div>
  );
});

/** On paper the whole answer stands. */
function usePrinting(): boolean {
  const [printing, setPrinting] = useState(false);
  useEffect(() => {
    const set = (on: boolean) => () => flushSync(() => setPrinting(on));
    const [before, after] = [set(true), set(false)];
    addEventListener("beforeprint", before);
    addEventListener("afterprint", after);
    return () => {
      removeEventListener("beforeprint", before);
      removeEventListener("afterprint", after);
    };
  }, []);
  return printing;
}

/** The same group object while its blocks are the same. */
function useGroups(blocks: Block[]): Block[][] {
  const known = useRef<Block[][]>([]);
  const groups: Block[][] = [];
  for (let at = 0; at < blocks.length; at += GROUP) {
    const group = blocks.slice(at, at + GROUP);
    const before = known.current[groups.length];
    const same = before?.length === group.length && group.every((block, n) => block === before[n]);
    groups.push(same ? before : group);
  }
  known.current = groups;
  return groups;
}

const Group = memo(function Group({ blocks, windowed }: { blocks: Block[]; windowed: boolean }): ReactNode {
  const place = useRef<HTMLDivElement>(null);
  const [near, setNear] = useState(!windowed);
  const height = useRef(blocks.length * 60);
  useEffect(() => {
    const element = place.current;
    if (!windowed || !element) return undefined;
    const observer = new IntersectionObserver(
      ([entry]) => {
        if (!entry) return;
        if (!entry.isIntersecting && entry.boundingClientRect.height) {
          height.current = entry.boundingClientRect.height;
        }
        setNear(entry.isIntersecting);
      },
      { rootMargin: "1500px 0px" },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [windowed]);
  const shown = near || !windowed;
  return (
    <div ref={place} className="group" style={shown ? undefined : { height: height.current }}>
      {shown && blocks.map((block) => <OneBlock key={block.key} block={block} />)}
    </div>
  );
});

const OneBlock = memo(function OneBlock({ block }: { block: Block }): ReactNode {
  return renderBlocks(block.tokens, block.open);
}, sameBlock);

/** A block that is lexed again with the same text is drawn the same. */
function sameBlock(before: { block: Block }, after: { block: Block }): boolean {
  const [a, b] = [before.block, after.block];
  return (
    a === b ||
    (a.open === b.open &&
      a.tokens.length === b.tokens.length &&
      a.tokens.every((token, at) => token.type === b.tokens[at]!.type && token.raw === b.tokens[at]!.raw))
  );
}
