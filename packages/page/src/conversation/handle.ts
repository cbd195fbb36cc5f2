/* The conversation as the parts of the page get it. */

import type { useChat } from "@tokenwire/react";

export type ChatHandle = ReturnType<typeof useChat>;
