// What browsers have built in, EventSource, as the package of that name has it for Node.

import { EventSource } from "eventsource"
import { expect, test } from "vitest"

const BASE = `${process.env.DURABLE_LOG_URL}/v1/stream/event-source`
const POEM = ["Ein ", "Gedicht:\n", "\n  ünïcödé 😀\n", "und Schluss"]

const url = (name) => `${BASE}/${Date.now()}/${name}`
const put = (to, type, body) => fetch(to, { method: "PUT", headers: { "Content-Type": type }, body })
const post = (to, type, body) => fetch(to, { method: "POST", headers: { "Content-Type": type }, body })
const close = (to) => fetch(to, { method: "POST", headers: { "Stream-Closed": "true" } })

// All data events until the stream is closed, or until there are so many.
function watch(from, offset = "-1", most = Infinity) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${from}?offset=${offset}&live=sse`)
    const seen = []
    let last
    const end = () => (source.close(), resolve({ seen, last }))
    source.onerror = ({ message }) => (source.close(), reject(new Error(message)))
    source.onmessage = () => reject(new Error("an event without a name"))
    source.addEventListener("data", ({ data }) => seen.push(data))
    source.addEventListener("control", ({ data }) => {
      last = JSON.parse(data)
      if (last.streamClosed || seen.length >= most) end()
    })
  })
}

test("text is seen as it is written and resumed where a viewer stopped", async () => {
  const to = url("poem")
  await put(to, "text/plain", POEM[0])
  const [first, all] = [watch(to, "-1", 1), watch(to)]
  const { seen, last } = await first
  for (const line of POEM.slice(1)) await post(to, "text/plain", line)
  await close(to)
  expect((await all).seen.join("")).toBe(POEM.join(""))
  const rest = await watch(to, last.streamNextOffset)
  expect(seen.join("") + rest.seen.join("")).toBe(POEM.join(""))
})

test("each JSON event is an array of whole messages", async () => {
  const to = url("ideas")
  await put(to, "application/json", "[]")
  const seeing = watch(to)
  await post(to, "application/json", '[{"idea":1},[2,\n[3]]]')
  await post(to, "application/json", '"\\ud83d"')
  await close(to)
  expect((await seeing).seen.flatMap((data) => JSON.parse(data))).toEqual([{ idea: 1 }, [2, [3]], "\ud83d"])
})

test("binary data is base64 event by event", async () => {
  const to = url("image")
  await put(to, "image/png", Uint8Array.of(0, 255, 10))
  const seeing = watch(to, "-1")
  await post(to, "image/png", Uint8Array.of(13, 10, 0, 128))
  await close(to)
  expect(Buffer.concat((await seeing).seen.map((data) => Buffer.from(data, "base64")))).toEqual(
    Buffer.from([0, 255, 10, 13, 10, 0, 128])
  )
})

test("what is not there is an error and not tried again", async () => {
  await expect(watch(url("missing"))).rejects.toThrow(/404/)
})
