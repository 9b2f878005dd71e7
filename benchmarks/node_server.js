// The Node reference server, as its README starts it: with a directory its file store, without one its memory store.
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
const server = new DurableStreamTestServer({ port: Number(port), dataDir })
await server.start()
