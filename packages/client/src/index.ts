/* Read tokenwire runs in a browser: exactly once, through any cut. */

export { TokenwireClient, randomId } from "./core/client.js";
export type { ClientOptions, RunInfo, StartRequest } from "./core/client.js";
export { TokenwireError } from "./core/errors.js";
export type * from "./core/events.generated.js";
export { Fold, emptyRun, finishReasonOf, stateOf, textOf, usageOf } from "./core/fold.js";
export type { Agent, DataState, PartState, RunState, StepState, ToolState } from "./core/fold.js";
export { follow, offsetOf } from "./core/reader.js";
export type { Connect, Delivered, FollowOptions, LinkState } from "./core/reader.js";
export { SSEParser } from "./core/sse.js";
export type { Frame, SSELimits } from "./core/sse.js";
export { RunStore } from "./state/store.js";
export type { RunView } from "./state/store.js";
export { streamChat } from "./stream-chat.js";
export type { StreamChatOptions } from "./stream-chat.js";
