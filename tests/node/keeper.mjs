// One Node for many scripts: what they import is loaded once, and each script anew.
// Reads {"script", "arguments", "env"} as lines; answers each with a line {"told"} or {"failed"}.
// A script that ends its process ends this one, behind its answer.
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"
import { writeFileSync } from "node:fs"
import { format } from "node:util"

let lines = []
let fail = () => {}
console.log = (...words) => lines.push(format(...words))
const exit = process.exit.bind(process)
const answer = (reply) => writeFileSync(1, `${JSON.stringify(reply)}\n`)
process.exit = (code = 0) => {
  answer(code ? { failed: `it ended with ${code}` } : { told: lines, ended: true })
  exit(code)
}
for (const kind of ["unhandledRejection", "uncaughtException"]) process.on(kind, (error) => fail(error))

const argv = process.argv.slice(0, 1)
const { warn, error: say } = console
const { fetch: ask, WebSocket: socket } = globalThis
let number = 0
for await (const line of createInterface({ input: process.stdin })) {
  const { script, arguments: words, env } = JSON.parse(line)
  const before = { ...process.env }
  lines = []
  process.argv = [...argv, script, ...words]
  Object.assign(process.env, env)
  const failed = new Promise((_, reject) => (fail = reject))
  try {
    await Promise.race([import(`${pathToFileURL(script)}?${++number}`), failed])
    answer({ told: lines })
  } catch (error) {
    answer({ failed: `${lines.join("\n")}\n${error?.stack ?? error}` })
  }
  // What the script changed for itself alone.
  Object.assign(console, { warn, error: say })
  globalThis.fetch = ask
  if (socket) globalThis.WebSocket = socket
  else delete globalThis.WebSocket
  for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
  Object.assign(process.env, before)
}
exit(0)
