// The TanStack AI transport of Durable Streams: a chat is stored, watched by two and resumed after a refresh.

import {
  durableStreamConnection,
  materializeSnapshotFromDurableStream,
  toDurableChatSessionResponse,
  toDurableStreamResponse,
} from "@durable-streams/tanstack-ai-transport"
import { expect, test } from "vitest"

const BASE = `${process.env.DURABLE_LOG_URL}/v1/stream`
const DELTAS = ["An ", "answer ", "that ", "outlives\n", "its ", "tab \ud83d", "\ude00."]

const target = (name) => `${BASE}/${encodeURIComponent(`tanstack/${Date.now()}/${name}`)}`

async function* answer(messageId, pause = () => {}) {
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant" }
  for (const delta of DELTAS) {
    await pause(delta)
    yield { type: "TEXT_MESSAGE_CONTENT", messageId, delta, content: "what is not stored twice" }
  }
  yield { type: "TEXT_MESSAGE_END", messageId }
}

const asked = (id, content) => ({ id, role: "user", parts: [{ type: "text", content }] })
const textOf = (message) => message.parts.map((part) => part.content).join("")

// What a viewer shows, from the chunks that it is given, until a message ends.
async function show(connection, signal) {
  const shown = new Map()
  for await (const chunk of connection.subscribe(signal)) {
    if (chunk.type === "MESSAGES_SNAPSHOT") for (const message of chunk.messages) shown.set(message.id, textOf(message))
    if (chunk.type === "TEXT_MESSAGE_START") shown.set(chunk.messageId, "")
    if (chunk.type === "TEXT_MESSAGE_CONTENT") shown.set(chunk.messageId, shown.get(chunk.messageId) + chunk.delta)
    if (chunk.type === "TEXT_MESSAGE_END" && chunk.messageId.startsWith("a")) break
  }
  return shown
}

test("a chat is watched by two, resumed from a snapshot and goes on", async () => {
  const writeUrl = target("chat")
  const turn = (question, id, pause) =>
    toDurableChatSessionResponse({
      stream: { writeUrl },
      newMessages: [asked(`u${id}`, question)],
      responseStream: answer(`a${id}`, pause),
      mode: "await",
    })
  expect((await turn("Why?", 1)).status).toBe(200)
  const leaving = new AbortController()
  const viewers = [1, 2].map(() => show(durableStreamConnection({ sendUrl: writeUrl }), leaving.signal))
  const snapshot = await materializeSnapshotFromDurableStream({ readUrl: writeUrl })
  expect(snapshot.messages.map((message) => [message.id, textOf(message)])).toEqual([
    ["u1", "Why?"],
    ["a1", DELTAS.join("")],
  ])
  const refreshed = show(durableStreamConnection({ sendUrl: writeUrl, initialOffset: snapshot.offset }), leaving.signal)
  await turn("And then?", 2)
  for (const viewer of viewers) {
    expect(Object.fromEntries(await viewer)).toMatchObject({ u2: "And then?", a2: DELTAS.join("") })
  }
  expect(Object.fromEntries(await refreshed)).toEqual({ u2: "And then?", a2: DELTAS.join("") })
  leaving.abort()
})

test("an answer is stored, told where, and closed at its end", async () => {
  const writeUrl = target("answer")
  const response = await toDurableStreamResponse(answer("a1"), { stream: { writeUrl }, mode: "await" })
  const { streamUrl, finalOffset } = await response.json()
  const stored = await fetch(`${streamUrl}?offset=-1`)
  expect(stored.headers.get("stream-next-offset")).toBe(finalOffset)
  expect(stored.headers.get("stream-closed")).toBe("true")
  const chunks = await stored.json()
  expect(chunks.filter((chunk) => chunk.delta).map((chunk) => chunk.delta)).toEqual(DELTAS)
  const unescaped = await fetch(`${decodeURIComponent(streamUrl)}?offset=-1`)
  expect(await unescaped.json()).toEqual(chunks)
})
