/* Read tokenwire runs in a browser: exactly once, through any cut. */

export { TokenwireClient, randomId } from "./client.js";
export type { ClientOptions, RunInfo, StartRequest } from "./client.js";
export { TokenwireError } from "./errors.js";
export type * from "./events.generated.js";
export { Fold, emptyRun, finishReasonOf, stateOf, textOf, usageOf } from "./fold.js";
export type { PartState, RunState, StepState, ToolState } from "./fold.js";
export { follow, offsetOf } from "./reader.js";
export type { Connect, Delivered, FollowOptions, LinkState } from "./reader.js";
export { SSEParser } from "./sse.js";
export type { Frame, SSELimits } from "./sse.js";
export { RunStore } from "./store.js";
export type { RunView } from "./store.js";
export { streamChat } from "./stream-chat.js";
export type { StreamChatOptions } from "./stream-chat.js";
