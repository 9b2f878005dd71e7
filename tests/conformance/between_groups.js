// Runs the tests as vitest does, but asks DURABLE_LOG_RESTART, which answers when it is done, before each group of them.
import { TestRunner } from "vitest"

export default class extends TestRunner {
  async onBeforeRunSuite(suite) {
    await super.onBeforeRunSuite(suite)
    const isFile = "filepath" in suite
    if (isFile || suite.suite !== undefined) return
    const answer = await fetch(process.env.DURABLE_LOG_RESTART, { method: "POST" })
    if (!answer.ok) throw new Error(`the server was not restarted: ${answer.status}`)
  }
}
