// The AI SDK's own schema and reducer over many streams. usage: node check_chunks.mjs VERSION FILE
// FILE: [{seed, compat, chunks, rest}]: a run's chunks, and what one hears who comes back in it.
import { readFileSync } from "node:fs"

const [version, path] = process.argv.slice(2)
const ai = await import(`ai${version}`)
const schema = typeof ai.uiMessageChunkSchema === "function" ? ai.uiMessageChunkSchema() : ai.uiMessageChunkSchema
const check = async (chunk) => {
  if (schema["~standard"]) {
    const { issues } = await schema["~standard"].validate(chunk)
    return issues && JSON.stringify(issues)
  }
  const found = await schema.validate(chunk)
  return found.success ? undefined : String(found.error?.message ?? found.error)
}

// The reducer, as useChat runs it; an error chunk is the answer's end there.
async function reduce(chunks) {
  const stream = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(structuredClone(chunk))
      controller.close()
    },
  })
  let message
  let failed
  try {
    const reading = ai.readUIMessageStream({ stream, terminateOnError: true })
    for await (const state of reading) message = state
  } catch (error) {
    failed = String(error?.message ?? error)
  }
  const told = chunks.find(({ type }) => type === "error")?.errorText
  return { message, failed: told !== undefined && failed === told ? undefined : failed }
}

const wrong = []
let checked = 0
for (const { seed, compat, chunks, rest } of JSON.parse(readFileSync(path, "utf8"))) {
  for (const chunk of [...chunks, ...rest]) {
    checked++
    const said = await check(chunk)
    if (said) wrong.push({ seed, compat, chunk, said: said.slice(0, 500) })
  }
  const { failed } = await reduce(chunks)
  if (failed) wrong.push({ seed, compat, failed })
}
console.log(JSON.stringify({ checked, count: wrong.length, wrong: wrong.slice(0, 5) }))
process.exit(0)
