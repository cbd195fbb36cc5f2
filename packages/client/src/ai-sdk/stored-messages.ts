/* The conversation that the server keeps, as `useChat`'s messages. */

import type { UIMessage } from "ai";
import { threadPath, type TokenwireClient } from "../core/client.js";
import { asError } from "../core/errors.js";
import type { Compat } from "./chunk-fold.js";

export interface StoredMessagesOptions {
  /** The major version of `ai`; 6, which 7 reads as well, unless given. */
  compat?: Compat;
  /** The newest so many messages; all, unless given. */
  limit?: number;
  /** Of those that are older than the page with this cursor. */
  before?: string;
  signal?: AbortSignal;
}

export interface StoredMessages<M extends UIMessage = UIMessage> {
  messages: M[];
  /** The run under way. While it writes, its answer is not among the messages: `resumeStream` brings
   * it. */
  active?: string;
  /** Where the messages before these begin, when there are more. */
  cursor?: string;
}

/** Reads a chat's messages, oldest first; none of a chat that nobody has asked in. */
export async function storedMessages<M extends UIMessage = UIMessage>(
  client: TokenwireClient,
  chatId: string,
  options: StoredMessagesOptions = {},
): Promise<StoredMessages<M>> {
  const { compat = "6", limit, before, signal } = options;
  const query = new URLSearchParams({
    as: "ui-messages",
    compat,
    ...(limit ? { limit: String(limit) } : {}),
    ...(before ? { before } : {}),
  });
  try {
    const { messages, active, page } = (await client.json(
      "GET",
      `${threadPath(chatId)}?${query}`,
      undefined,
      signal,
    )) as { messages: M[]; active?: string; page?: { cursor?: string } };
    const cursor = page?.cursor;
    return { messages, ...(active ? { active } : {}), ...(cursor ? { cursor } : {}) };
  } catch (error) {
    if (asError(error).status === 404) return { messages: [] };
    throw error;
  }
}
