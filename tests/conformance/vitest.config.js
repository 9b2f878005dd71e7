// Several suites run at a time here, so a test may take longer than the five seconds that vitest gives it by itself.
export default { test: { testTimeout: 15_000, maxConcurrency: 20, fileParallelism: false } }
