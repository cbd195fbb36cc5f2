/* React hooks and unstyled components for tokenwire. */

export * from "./agent.js";
export * from "./hooks.js";
export * from "./parts.js";
export * from "./thread.js";
export { Conversation } from "@tokenwire/client/conversation";
export type {
  AskOptions,
  ClientTool,
  ConversationView,
  Turn,
  WaitingQuestion,
} from "@tokenwire/client/conversation";
