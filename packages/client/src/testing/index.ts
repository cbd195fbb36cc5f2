/* For tests: a server whose model answers from a script, cassettes of providers, and checks. */

export { CassettePlayer } from "./cassette.js";
export type { CassetteFile, ReplayOptions } from "./cassette.js";
export { cutEverywhere, eventuallyEnds } from "./checks.js";
export type { CutEverywhereOptions } from "./checks.js";
export { call, events, failure, pause, reasoning } from "./script.js";
export type { CallOptions, Piece } from "./script.js";
export { ScriptedServer } from "./server.js";
export type { Cut, ScriptedServerOptions, SentRequest } from "./server.js";
