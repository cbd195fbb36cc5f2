/* As docs/guide/browser.md has it; the address of the server comes from the test. */

const target = process.env.TOKENWIRE_TARGET;

export default {
  // Compression stays on, as it is by default: a stream says `no-transform`.
  rewrites: async () =>
    ["/v1/:path*", "/api/chat/:path*", "/ws"].map((source) => ({ source, destination: target + source })),
};
