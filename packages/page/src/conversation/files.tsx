/* Files as they are seen: small pictures, and cards with name, kind and size.

Always true: only small pictures of four kinds are drawn, from their own bytes; a file is never
opened in the page, and what is saved has no type that a browser would run. */

import { useEffect, useRef, useState, type ReactNode } from "react";
import { cleanName, size } from "./attach.js";
import { revealed } from "../hidden.js";
import { Icon } from "../icons.js";

export interface Shown {
  name: string;
  type: string;
  /** Bytes. */
  size: number;
  /** Base64; missing while it is not read. */
  data?: string | undefined;
}

const PICTURE = /^image\/(png|jpeg|webp|gif)$/;
const MOST_PICTURE = 1 << 20;

function isPicture({ type, size: bytes }: Shown): boolean {
  return PICTURE.test(type) && bytes <= MOST_PICTURE;
}

/** Base64 text without what is none: line ends of a provider, or worse. */
export function cleanBase64(text: string): string {
  return text.replace(/[^A-Za-z0-9+/]/g, "");
}

const pictureOf = ({ type, data }: Shown) => `data:${type};base64,${cleanBase64(data ?? "")}`;

/** One file; a picture can be looked at, everything can be saved. */
export function FileView(props: { file: Shown; large?: boolean; onRemove?: () => void }): ReactNode {
  const { large = false, onRemove } = props;
  const file = { ...props.file, name: revealed(props.file.name) };
  const [looking, setLooking] = useState(false);
  const picture = isPicture(file);
  if (picture && large) {
    return (
      <figure className="picture-part">
        <img className="inline-image" alt={file.name} src={pictureOf(file)} />
        <figcaption>
          {about(file)} <SaveButton file={props.file} />
        </figcaption>
      </figure>
    );
  }
  return (
    <span className={`file${picture ? " thumb" : ""}`} title={`${file.name}, ${about(file)}`}>
      {picture ? (
        <button type="button" className="quiet" aria-label={`Look at ${file.name}`} disabled={file.data === undefined} onClick={() => setLooking(true)}>
          {file.data === undefined ? <Icon name="image" /> : <img alt={file.name} src={pictureOf(file)} />}
        </button>
      ) : (
        <>
          <Icon name="file" />
          <span className="file-name">
            <span dir="auto">{file.name}</span>
            <small>{about(file)}</small>
          </span>
          {!onRemove && <SaveButton file={props.file} />}
        </>
      )}
      {onRemove && (
        <button type="button" className="icon remove" aria-label={`Remove ${file.name}`} title="Remove" onClick={onRemove}>
          <Icon name="close" />
        </button>
      )}
      {looking && <Lightbox file={file} onClose={() => setLooking(false)} />}
    </span>
  );
}

function about({ type, size: bytes }: Shown): string {
  return bytes ? `${kindOf(type)}, ${size(bytes)}` : kindOf(type);
}

function kindOf(type: string): string {
  const kind = type.split("/").pop()!.replace(/^x-/, "");
  return kind === "plain" ? "text" : kind === "octet-stream" ? "file" : kind.slice(0, 20).toUpperCase();
}

function SaveButton({ file }: { file: Shown }): ReactNode {
  return (
    <button
      type="button"
      className="quiet icon"
      aria-label={`Save ${file.name}`}
      title="Save"
      disabled={file.data === undefined}
      onClick={() => save(file)}
    >
      <Icon name="save" />
    </button>
  );
}

/** Saves under a plain name; the type is one that no browser opens by itself. */
function save({ name, data }: Shown): void {
  const text = cleanBase64(data ?? "");
  // One letter alone, at the end of what was cut, is no byte.
  const whole = text.length % 4 === 1 ? text.slice(0, -1) : text;
  const bytes = Uint8Array.from(atob(whole), (char) => char.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = cleanName(name);
  link.click();
  // The download has begun when this turn is over; the bytes are let go after it.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function Lightbox({ file, onClose }: { file: Shown; onClose(): void }): ReactNode {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} className="lightbox" aria-label={file.name} onClose={onClose} onKeyDown={(event) => event.stopPropagation()}>
      <header>
        <strong dir="auto">{file.name}</strong>
        <small>{about(file)}</small>
        <SaveButton file={file} />
        <button type="button" className="quiet icon" autoFocus aria-label="Close" onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      <img alt={file.name} src={pictureOf(file)} />
    </dialog>
  );
}
