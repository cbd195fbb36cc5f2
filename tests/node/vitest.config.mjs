export default {
  test: { include: ["conformance/**/*.test.mjs"], testTimeout: 30_000, fileParallelism: false },
}
