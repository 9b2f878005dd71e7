// The npm client, unmodified, does all that it can do, against the server at DURABLE_LOG_URL.

import { DurableStream, IdempotentProducer, StaleEpochError, stream } from "@durable-streams/client"
import { describe, expect, test } from "vitest"

const BASE = `${process.env.DURABLE_LOG_URL}/v1/stream/npm-client`
const TOKENS = ["Once ", "upon ", "a ", "time", ",\n", "ünïcödé 😀 ", "\n\nand: ", "the ", "end."]
const IDEAS = [{ idea: 1 }, { idea: "zwei\r\n" }, null, [3, [4]], "\ud83d", 5]
const BYTES = Uint8Array.from({ length: 1000 }, (_, at) => (at * 7) % 256)
const LIVE = [false, true, "long-poll", "sse"]

let names = 0
const fresh = () => `${BASE}/${Date.now()}/${names++}`
const text = (options = {}) => DurableStream.create({ url: fresh(), contentType: "text/plain", ...options })
const json = () => DurableStream.create({ url: fresh(), contentType: "application/json" })
const history = async (written, offset = "-1") => (await written.stream({ offset, live: false })).text()
const failure = (promise) => promise.then(() => expect.fail("it succeeded"), (error) => error)
const refused = async (promise) => (({ status, json }) => [status, json.error.code])(await failure(promise))

async function written(contentType, parts) {
  const made = await DurableStream.create({ url: fresh(), contentType })
  for (const part of parts) await made.append(part)
  await made.close()
  return made
}

// Everything that a subscriber is given until the stream is closed there, or there is no more of it for now.
function gathered(response, subscribe, take) {
  return new Promise((resolve, reject) => {
    const chunks = []
    response.closed.catch(reject)
    response[subscribe]((chunk) => {
      chunks.push({ ...take(chunk), offset: chunk.offset })
      if (chunk.streamClosed || (response.live === false && chunk.upToDate)) resolve(chunks)
    })
  })
}
const texts = (response) => gathered(response, "subscribeText", (chunk) => ({ text: chunk.text }))
const joined = (chunks) => chunks.map((chunk) => chunk.text).join("")

async function all(readable) {
  const parts = []
  for await (const part of readable) parts.push(part)
  return parts
}

describe.each(LIVE)("a finished stream, live=%s", (live) => {
  const of = async (contentType, parts) => (await written(contentType, parts)).stream({ offset: "-1", live })

  test("is text", async () => {
    expect(await (await of("text/plain", TOKENS)).text()).toBe(TOKENS.join(""))
    expect(joined(await texts(await of("text/plain", TOKENS)))).toBe(TOKENS.join(""))
    expect((await all((await of("text/plain", TOKENS)).textStream())).join("")).toBe(TOKENS.join(""))
  })

  test("is JSON", async () => {
    const ideas = IDEAS.map((idea) => JSON.stringify(idea))
    expect(await (await of("application/json", ideas)).json()).toEqual(IDEAS)
    const batches = await gathered(await of("application/json", ideas), "subscribeJson", ({ items }) => ({ items }))
    expect(batches.flatMap((batch) => batch.items)).toEqual(IDEAS)
    expect(await all((await of("application/json", ideas)).jsonStream())).toEqual(IDEAS)
  })

  test("is bytes", async () => {
    const halves = [BYTES.slice(0, 333), BYTES.slice(333)]
    expect(await (await of("application/octet-stream", halves)).body()).toEqual(BYTES)
    const chunks = await gathered(await of("image/png", halves), "subscribeBytes", ({ data }) => ({ data: [...data] }))
    expect(chunks.flatMap((chunk) => chunk.data)).toEqual([...BYTES])
    const parts = await all((await of("application/x-thing", halves)).bodyStream())
    expect(parts.flatMap((part) => [...part])).toEqual([...BYTES])
  })

  test("is resumed from every offset that a viewer was given", async () => {
    const made = await text()
    const offsets = []
    for (const token of TOKENS) {
      await made.append(token)
      offsets.push((await made.head()).offset)
    }
    await made.close()
    for (const [at, offset] of offsets.entries()) {
      expect(await (await made.stream({ offset, live })).text()).toBe(TOKENS.slice(at + 1).join(""))
    }
  })

  test("has no more for those who come from now on", async () => {
    const response = await (await written("text/plain", TOKENS)).stream({ offset: "now", live })
    expect(await response.text()).toBe("")
    expect(response.streamClosed).toBe(true)
  })
})

describe.each(LIVE.slice(1))("a stream that is being written, live=%s", (live) => {
  test("reaches viewers from its beginning, from the middle and from now on", async () => {
    const made = await text()
    for (const token of TOKENS.slice(0, 4)) await made.append(token)
    const middle = (await made.head()).offset
    const viewers = []
    for (const offset of ["-1", middle, "now"]) viewers.push(texts(await stream({ url: made.url, offset, live })))
    for (const token of TOKENS.slice(4)) await made.append(token)
    await made.close()
    const [first, resumed, late] = (await Promise.all(viewers)).map(joined)
    expect(first).toBe(TOKENS.join(""))
    expect(resumed).toBe(TOKENS.slice(4).join(""))
    expect(late).toBe(resumed)
  })

  test("is waited for beyond a time-out of the server", async () => {
    const made = await text()
    const response = await made.stream({ offset: "now", live })
    const seen = texts(response)
    await new Promise((resolve) => setTimeout(resolve, 1200)) // two long-polls of half a second
    await made.append("late")
    await made.close()
    expect(joined(await seen)).toBe("late")
  })

  test("shows each character whole, however it was cut", async () => {
    const made = await text()
    // Of long-polls it decodes each by itself for `subscribeText`, and all together for this.
    const seen = all((await made.stream({ offset: "-1", live })).textStream())
    for (const byte of new TextEncoder().encode("ü😀!")) await made.append(Uint8Array.of(byte))
    await made.close()
    expect((await seen).join("")).toBe("ü😀!")
  })

  test("is left by a viewer that cancels, aborts or unsubscribes, and goes on", async () => {
    const made = await text({ body: "one" })
    const cancelled = await made.stream({ offset: "-1", live })
    cancelled.cancel()
    const leaving = new AbortController()
    const aborted = await made.stream({ offset: "-1", live, signal: leaving.signal })
    const rest = all(aborted.textStream()).catch((error) => error)
    leaving.abort()
    await rest
    const unsubscribed = await made.stream({ offset: "-1", live })
    await new Promise((resolve) => {
      const leave = unsubscribed.subscribeText(() => resolve(leave))
    }).then((leave) => leave())
    await made.append(" two")
    expect(await history(made)).toBe("one two")
  })

  test("ends for its viewers when it is deleted", async () => {
    const made = await text({ body: "one" })
    const response = await made.stream({ offset: "-1", live, backoffOptions: { maxRetries: 0 } })
    const failed = failure(response.closed)
    response.subscribeText(() => {})
    await made.delete()
    expect((await failed).status).toBe(404)
    expect(await made.head()).toEqual({ exists: false })
  })

  test("is not there before it is made", async () => {
    for (const offset of ["-1", "now"]) {
      expect(await refused(stream({ url: fresh(), offset, live }))).toEqual([404, "stream_not_found"])
    }
  })
})

describe("life and death", () => {
  test("a stream is created, found, described and deleted", async () => {
    const url = fresh()
    expect(await DurableStream.head({ url })).toEqual({ exists: false })
    const made = await DurableStream.create({ url, contentType: "Text/Plain;charset=UTF-8", ttlSeconds: 3600, body: "a" })
    expect(made.contentType).toBe("Text/Plain;charset=UTF-8")
    await DurableStream.create({ url, contentType: "text/plain; charset=utf-8", ttlSeconds: 3600 }) // the same again
    const found = await DurableStream.connect({ url })
    expect(found.contentType).toBe(made.contentType)
    expect(await found.head()).toMatchObject({ exists: true, streamClosed: false, cacheControl: "no-store" })
    await DurableStream.delete({ url })
    expect((await failure(found.delete())).status).toBe(404)
    expect((await failure(stream({ url, live: false }))).status).toBe(404)
  })

  test("what exists with another configuration is a conflict", async () => {
    const made = await text()
    const other = DurableStream.create({ url: made.url, contentType: "application/json" })
    expect(await refused(other)).toEqual([409, "stream_exists"])
  })

  test("a stream is born closed, with what it holds", async () => {
    const made = await text({ body: "all of it", closed: true })
    expect((await made.head()).streamClosed).toBe(true)
    const response = await made.stream({ offset: "-1" })
    expect([await response.text(), response.streamClosed]).toEqual(["all of it", true])
  })

  test("a close is the end, with last words, and may be repeated", async () => {
    const made = await text()
    const { finalOffset } = await made.close({ body: "last words" })
    expect(await made.close()).toEqual({ finalOffset })
    expect(await refused(made.append("late"))).toEqual([409, "stream_closed"])
    const error = await failure(made.close({ body: "late" }))
    expect([error.status, error.headers["stream-next-offset"]]).toEqual([409, finalOffset])
    expect(await history(made)).toBe("last words")
  })

  test("a fork has its source's past and a future of its own", async () => {
    const made = await text({ body: "shared " })
    const { offset } = await made.head()
    await made.append("source")
    const headers = { "Stream-Forked-From": new URL(made.url).pathname, "Stream-Fork-Offset": offset }
    const fork = await DurableStream.create({ url: fresh(), contentType: "text/plain", headers })
    await new DurableStream({ url: fork.url, contentType: "text/plain" }).append("fork")
    expect([await history(made), await history(fork)]).toEqual(["shared source", "shared fork"])
  })

  test("a name of any characters is one stream, escaped or not", async () => {
    const made = await DurableStream.create({ url: `${fresh()}/a b%2Fc/€`, contentType: "text/plain", body: "x" })
    expect(await history({ stream: (options) => stream({ url: made.url.replace("%2F", "/"), ...options }) })).toBe("x")
  })
})

describe("reading", () => {
  test("many pages are one text, and the first says that there are more", async () => {
    const long = "€".repeat(2 ** 20)
    const made = await text()
    for (let times = 0; times < 3; times++) await made.append(long)
    await made.close()
    for (const live of LIVE.slice(1)) {
      expect((await (await made.stream({ offset: "-1", live })).text()) === long.repeat(3)).toBe(true)
    }
    const first = await made.stream({ offset: "-1", live: false }) // which is one request
    expect([long.repeat(3).startsWith(await first.text()), first.upToDate]).toEqual([true, false])
    expect(await first.offset > "0000000000000000_0000000000000000").toBe(true)
  })

  test("an empty stream has an offset from which its first words are seen", async () => {
    const made = await text()
    const response = await made.stream({ offset: "-1", live: false })
    expect([await response.text(), response.upToDate]).toEqual(["", true])
    await made.append("first")
    expect(await history(made, response.offset)).toBe("first")
  })

  test("an offset that no server gave is refused", async () => {
    const made = await text({ body: "abc" })
    for (const offset of ["nonsense", "1,2", "9999999999999999_9999999999999999"]) {
      expect((await failure(made.stream({ offset, live: false }))).status).toBe(400)
    }
  })

  test("headers and parameters of the application's own are let through, asked for anew each time", async () => {
    let asked = 0
    const made = await text({ headers: { Authorization: () => `Bearer ${++asked}` }, params: { tenant: "t" } })
    await made.append("x")
    expect(await history(made)).toBe("x")
    expect(asked).toBe(3)
  })
})

describe("writing", () => {
  test("appends that overlap arrive in order, whole, as text and as JSON", async () => {
    const numbers = Array.from({ length: 200 }, (_, number) => number)
    const [lines, messages] = [await text(), await json()]
    await Promise.all(numbers.flatMap((n) => [lines.append(`${n};`), messages.append(Promise.resolve(`${n}`))]))
    expect(await history(lines)).toBe(numbers.map((n) => `${n};`).join(""))
    expect(await (await messages.stream({ live: false })).json()).toEqual(numbers)
  })

  test("a body is streamed in pieces and is one append", async () => {
    const made = await text({ body: "" })
    await made.appendStream(
      (async function* () {
        for (const token of TOKENS) yield token
      })()
    )
    expect(await history(made)).toBe(TOKENS.join(""))
  })

  test("a pipe ends with the stream closed", async () => {
    const made = await text()
    await new Blob(TOKENS).stream().pipeTo(made.writable())
    expect([await history(made), (await made.head()).streamClosed]).toEqual([TOKENS.join(""), true])
  })

  test("a sequence that does not grow is a conflict", async () => {
    const made = await text({ batching: false })
    await made.append("a", { seq: "2" })
    expect(await refused(made.append("b", { seq: "10" }))).toEqual([409, "sequence_conflict"])
    expect(await history(made)).toBe("a")
  })

  test("another type than the stream's is a conflict", async () => {
    const made = await text({ batching: false })
    const other = made.append("{}", { contentType: "application/json" })
    expect(await refused(other)).toEqual([409, "content_type_mismatch"])
  })
})

describe("idempotent producers", () => {
  // Sends each second request first and the one before it after that: the server gets them out of order.
  function overtaking() {
    let held
    return async (url, init) => {
      if (!held && !init.headers["Stream-Closed"]) await new Promise((resolve) => (held = resolve))
      else if (held) {
        const go = held
        held = undefined
        const sent = fetch(url, init)
        await fetch(url, { method: "HEAD" }) // by its answer the request before it is there, too
        go()
        return sent
      }
      return fetch(url, init)
    }
  }

  function producing(made, options = {}) {
    const failures = []
    const onError = (error) => failures.push(error)
    return { failures, producer: new IdempotentProducer(made, "writer", { lingerMs: 0, onError, ...options }) }
  }

  test.each([1, 2, 5, 16])("a hundred requests are stored once and in order, %i in flight", async (maxInFlight) => {
    const made = await text()
    const { producer, failures } = producing(made, { maxInFlight, maxBatchBytes: 1 })
    for (let number = 0; number < 100; number++) producer.append(`${number};`)
    const { finalOffset } = await producer.close("closed")
    expect(failures).toEqual([])
    expect(await history(made)).toBe([...Array(100).keys(), ""].join(";") + "closed")
    expect((await made.head()).offset).toBe(finalOffset)
  })

  test("requests that overtake one another are stored in their order", async () => {
    const made = await text()
    const { producer, failures } = producing(made, { maxInFlight: 4, maxBatchBytes: 1, fetch: overtaking() })
    for (let number = 0; number < 20; number++) producer.append(`${number};`)
    await producer.close()
    expect(failures).toEqual([])
    expect(await history(made)).toBe([...Array(20).keys(), ""].join(";"))
  })

  test("requests that are sent twice are stored once", async () => {
    const twice = async (url, init) => {
      await fetch(url, init)
      return fetch(url, init)
    }
    const made = await json()
    const { producer, failures } = producing(made, { fetch: twice })
    for (const idea of IDEAS) {
      producer.append(JSON.stringify(idea))
      await producer.flush()
    }
    await producer.close('"closed"')
    expect(failures).toEqual([])
    expect(await (await made.stream({ live: false })).json()).toEqual([...IDEAS, "closed"])
  })

  test("a batch of JSON messages is one request", async () => {
    let requests = 0
    const counted = (...request) => ++requests && fetch(...request)
    const made = await json()
    const { producer } = producing(made, { lingerMs: 1000, fetch: counted })
    for (const idea of IDEAS) producer.append(JSON.stringify(idea))
    await producer.flush()
    expect(requests).toBe(1)
    expect(await (await made.stream({ live: false })).json()).toEqual(IDEAS)
  })

  test("an older epoch is fenced, and told which one is current", async () => {
    const made = await text()
    const current = producing(made, { epoch: 3 })
    current.producer.append("current;")
    await current.producer.flush()
    const zombie = producing(made, { epoch: 1 })
    zombie.producer.append("zombie;")
    await zombie.producer.flush()
    expect(zombie.failures[0]).toBeInstanceOf(StaleEpochError)
    expect(zombie.failures[0].currentEpoch).toBe(3)
    expect(await history(made)).toBe("current;")
  })

  test("a producer that starts again claims the next epoch, by itself or on demand", async () => {
    const made = await text()
    const first = producing(made, { epoch: 3 })
    first.producer.append("one;")
    await first.producer.restart()
    first.producer.append("two;")
    await first.producer.detach()
    const second = producing(made, { autoClaim: true, maxBatchBytes: 1 })
    for (const part of ["three;", "four;", "five;"]) second.producer.append(part)
    await second.producer.flush()
    expect([...first.failures, ...second.failures]).toEqual([])
    expect(second.producer.epoch).toBe(5)
    expect(await history(made)).toBe("one;two;three;four;five;")
  })
})
