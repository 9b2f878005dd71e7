// Several suites run at a time here, so a test may take longer than the five seconds that vitest gives it by itself.
const test = { testTimeout: 15_000, maxConcurrency: 20, fileParallelism: false }
if (process.env.DURABLE_LOG_RESTART) test.runner = "./between_groups.js"
export default { test }
