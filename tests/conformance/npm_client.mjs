// A conversation as the npm client writes, resumes and watches it; prints one JSON object about what it saw.
// The published client calls text subscription `subscribeText`, and the chunk's text `text`.

import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const base = `${process.env.DURABLE_LOG_URL}/v1/stream`
const tokens = ["Once ", "upon ", "a ", "time", ",\n", "ünïcödé 😀 ", "and ", "the ", "end."]
const ideas = [{ idea: 1 }, { idea: "two" }, null, [3, [4]]]

async function readText(url, offset, live) {
  const response = await stream({ url, offset, live })
  let text = ""
  return new Promise((resolve) => {
    response.subscribeText((chunk) => {
      text += chunk.text
      if (chunk.streamClosed || (!live && chunk.upToDate)) resolve({ text, offset: chunk.offset })
    })
  })
}

async function generate(url) {
  const written = await DurableStream.create({ url, contentType: "text/plain" })
  for (const token of tokens) await written.append(token)
  await written.close()
}

async function resume(url) {
  const written = await DurableStream.create({ url, contentType: "text/plain" })
  for (const token of tokens.slice(0, 4)) await written.append(token)
  const before = await readText(url, "-1", false)
  const rest = readText(url, before.offset, true)
  for (const token of tokens.slice(4)) await written.append(token)
  await written.close()
  return before.text + "|" + (await rest).text
}

async function brainstorm(url) {
  const written = await DurableStream.create({ url, contentType: "application/json" })
  await written.append(JSON.stringify("history"))
  const response = await stream({ url, offset: "now", live: true })
  const seen = []
  const ended = new Promise((resolve) => {
    response.subscribeJson(async (batch) => {
      for (const idea of batch.items) seen.push(idea)
      if (batch.streamClosed) resolve(seen)
    })
  })
  for (const idea of ideas) await written.append(JSON.stringify(idea))
  await written.close()
  return ended
}

async function pipeline(url) {
  const written = await DurableStream.create({ url, contentType: "text/plain" })
  const failures = []
  const producer = new IdempotentProducer(written, "writer", {
    maxInFlight: 5,
    lingerMs: 0,
    maxBatchBytes: 1,
    onError: (error) => failures.push(String(error)),
  })
  for (let number = 0; number < 100; number++) producer.append(`${number};`)
  await producer.flush()
  await producer.close()
  return { text: (await readText(url, "-1", false)).text, failures }
}

await generate(`${base}/generation/1`)
console.log(
  JSON.stringify({
    tokens: tokens.join(""),
    catchUp: (await readText(`${base}/generation/1`, "-1", false)).text,
    live: (await readText(`${base}/generation/1`, "-1", true)).text,
    sse: (await readText(`${base}/generation/1`, "-1", "sse")).text,
    longPoll: (await readText(`${base}/generation/1`, "-1", "long-poll")).text,
    resumed: await resume(`${base}/generation/2`),
    ideas,
    seen: await brainstorm(`${base}/workspace/1/brainstorm`),
    pipelined: await pipeline(`${base}/generation/3`),
  })
)
