/* A person's files as parts of a question: read, checked, pictures made small enough.

Always true: what comes out is a picture of four known kinds, a document, a sound or text; no more
and no larger than a request may hold. */

import { useCallback, useMemo, useRef, useState } from "react";
import { withoutHidden } from "../hidden.js";

/** A file of a question. */
export interface Attachment {
  name: string;
  /** Media type. */
  type: string;
  /** Bytes. */
  size: number;
  /** Base64. */
  data: string;
}

type Part = Record<string, unknown>;

/** A question with files as the parts of a message; without files it is text alone. */
export function contentOf(text: string, files: Attachment[]): Part[] | undefined {
  if (!files.length) return undefined;
  const parts = files.map(({ name, type, data }): Part => ({ type: "file", media_type: type, data, name }));
  return text ? [...parts, { type: "text", text }] : parts;
}

/** The files of a message whose bytes are in it. */
export function filesIn(content: Part[] | undefined): Attachment[] {
  return (content ?? []).flatMap(({ type, media_type: kind, name, data }) => {
    if (type !== "file" || typeof data !== "string") return [];
    const size = Math.floor((data.replace(/={1,2}$/, "").length * 3) / 4);
    return [{ name: String(name ?? "file"), type: String(kind ?? "application/octet-stream"), size, data }];
  });
}

/** Of one question. */
export const MOST_FILES = 8;
/** Bytes: of a picture, a text, another file, and of all files of a question together (the server
 * takes 8 MiB of base64). */
const MOST = { picture: 1 << 20, text: 1 << 20, file: 4 << 20, all: 6 << 20 };
/** A photo may be larger, since it is made smaller here. */
const MOST_PHOTO = 50 << 20;
/** Pixels of a picture's longer side; models look at no more. */
const MOST_SIDE = 2048;
const MOST_NAME = 120;

const PICTURES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
/** What a file chooser offers first; what is text is taken whatever it is called. */
export const ACCEPTED = "image/*,application/pdf,text/*,.md,.csv,.json,.py,.ts,.js,.log,audio/mpeg,audio/wav";
const DOCUMENTS = ["application/pdf", "audio/mpeg", "audio/wav", "audio/x-wav"];

/** A longer text is pasted as a file, in bytes. */
const MOST_PASTED = 32 << 10;

/** What a paste attaches; nothing where it is text for the field. Cells of a spreadsheet and words of
 * a text processor come with their picture, too: they are text. */
export function pastedFiles(data: Pick<DataTransfer, "files" | "getData">): File[] {
  const text = data.getData("text/plain");
  const files = [...data.files];
  // A file manager tells the names of the files as text.
  const names = text.split("\n").map((line) => decodeName(line.trim().split(/[/\\]/).pop() ?? ""));
  const isNames = files.length > 0 && names.every((name) => !name || files.some((file) => file.name === name));
  if (files.length && (!text.trim() || isNames)) return files;
  const long = text.length > MOST_PASTED || new Blob([text]).size > MOST_PASTED;
  return long ? [new File([text], "pasted.txt", { type: "text/plain" })] : [];
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** The files of the question that is being written. */
export function useAttachments() {
  const [files, setFiles] = useState<Attachment[]>([]);
  const [problems, setProblems] = useState<string[]>([]);
  const [reading, setReading] = useState(0);
  const now = useRef(files);
  now.current = files;
  // One choice after the other, so that each counts what was chosen before.
  const queue = useRef<Promise<void>>(Promise.resolve());
  const add = useCallback((picked: File[]) => {
    if (!picked.length) return;
    setReading((n) => n + 1);
    queue.current = queue.current.then(async () => {
      const read = await readFiles(picked, now.current);
      now.current = [...now.current, ...read.files];
      setFiles(now.current);
      setProblems(read.problems);
      setReading((n) => n - 1);
    });
  }, []);
  const remove = useCallback((file: Attachment) => {
    setFiles((before) => before.filter((one) => one !== file));
    setProblems([]);
  }, []);
  const clear = useCallback(() => {
    setFiles([]);
    setProblems([]);
  }, []);
  return useMemo(
    () => ({ files, problems, reading: reading > 0, add, remove, clear }),
    [files, problems, reading, add, remove, clear],
  );
}

export type Attached = ReturnType<typeof useAttachments>;

/** The files of `picked` that can be sent beside `before`, and why the others cannot. */
export async function readFiles(
  picked: File[],
  before: Attachment[],
): Promise<{ files: Attachment[]; problems: string[] }> {
  const files: Attachment[] = [];
  const problems: string[] = [];
  let total = before.reduce((sum, { size }) => sum + size, 0);
  for (const file of picked) {
    const name = cleanName(file.name);
    if (before.length + files.length >= MOST_FILES) {
      problems.push(`A question takes at most ${MOST_FILES} files.`);
      break;
    }
    try {
      const read = await readFile(file, name);
      if (total + read.size > MOST.all) throw new Error(`with it the files have more than ${size(MOST.all)} together`);
      total += read.size;
      files.push(read);
    } catch (error) {
      problems.push(`“${name}” cannot be attached: ${(error as Error).message}.`);
    }
  }
  return { files, problems };
}

async function readFile(file: File, name: string): Promise<Attachment> {
  if (!file.size) throw new Error("it is empty");
  if (/^image\/(?!svg)/.test(file.type)) return readPicture(file, name);
  if (DOCUMENTS.includes(file.type)) {
    limit(file.size, MOST.file);
    return { name, type: file.type.replace("x-wav", "wav"), size: file.size, data: await base64(file) };
  }
  if (/^(audio|video|font)\//.test(file.type) && file.type !== "video/mp2t") throw new Error(`models take no ${file.type}`);
  // Sources have no type, or a wrong one (`.ts` is no video): what is text shows itself.
  limit(file.size, file.type.startsWith("text/") ? MOST.text : MOST.file);
  if (!isText(await file.arrayBuffer())) throw new Error("only pictures, PDF, sound (MP3, WAV) and text can");
  limit(file.size, MOST.text);
  return { name, type: "text/plain", size: file.size, data: await base64(file) };
}

function limit(bytes: number, most: number): void {
  if (bytes > most) throw new Error(`it has ${size(bytes)}, more than ${size(most)}`);
}

function isText(bytes: ArrayBuffer): boolean {
  try {
    return !new TextDecoder("utf-8", { fatal: true }).decode(bytes).includes("\0");
  } catch {
    return false;
  }
}

async function readPicture(file: File, name: string): Promise<Attachment> {
  limit(file.size, MOST_PHOTO);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("this browser cannot read the picture");
  }
  const { width, height } = bitmap;
  const asItIs = PICTURES.includes(file.type) && file.size <= MOST.picture && Math.max(width, height) <= MOST_SIDE;
  const made = asItIs ? file : await smaller(bitmap);
  bitmap.close();
  return {
    name: asItIs ? name : `${name.replace(/\.\w{1,5}$/, "")}.jpg`,
    type: made.type,
    size: made.size,
    data: await base64(made),
  };
}

/** The picture as JPEG that fits: first fewer pixels, then fewer details. */
async function smaller(bitmap: ImageBitmap): Promise<Blob> {
  let scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  for (let quality = 0.85; ; quality = Math.max(0.5, quality - 0.15), scale *= 0.8) {
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
    const context = canvas.getContext("2d")!;
    // JPEG has no transparency; without a ground it would be black.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
    if (blob.size <= MOST.picture) return blob;
  }
}

async function base64(blob: Blob): Promise<string> {
  const reader = new FileReader();
  const url = await new Promise<string>((resolve, reject) => {
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("it could not be read"));
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

/** A file's name for people and models: no path, nothing that cannot be seen, not too long. */
export function cleanName(name: string): string {
  const plain = withoutHidden(name).replace(/[\u0000-\u001f\u007f-\u009f]/g, "").split(/[/\\]/).pop()!.trim();
  if (plain.length <= MOST_NAME) return plain || "file";
  const end = /\.\w{1,8}$/.exec(plain)?.[0] ?? "";
  return `${plain.slice(0, MOST_NAME - end.length - 1)}…${end}`;
}

/** Bytes as people read them. */
export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1 << 20) return `${Math.round(bytes / 1024)} KiB`;
  return `${Number((bytes / (1 << 20)).toFixed(1))} MiB`;
}
