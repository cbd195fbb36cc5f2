/* The event types and the table of which may follow which, as values. */

export * from "./events.generated.js";
