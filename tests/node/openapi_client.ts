// A client of types that were generated from /openapi.json, against the server that has it.
import createClient from 'openapi-fetch'
import type { components, paths } from './api'

type Event = components['schemas']['Event']

const client = createClient<paths>({ baseUrl: process.argv[2] ?? '' })

const started = await client.POST('/v1/runs', {
  body: { prompt: 'scenario:text', thread: 'typed', metadata: { from: 'types' } },
})
if (started.error) throw new Error(started.error.error.message)
if (typeof started.data === 'string') throw new Error('no stream was asked for')
const run: string = started.data.id

const streamed = await client.GET('/v1/runs/{run}/events', {
  params: { path: { run } },
  headers: { Accept: 'text/event-stream' },
  parseAs: 'text',
})
let text = ''
let end: string | undefined
for (const frame of String(streamed.data).split('\n\n')) {
  const line = frame.split('\n').find((part) => part.startsWith('data: '))
  if (!line) continue
  const event = JSON.parse(line.slice(6)) as Event
  if (event.type === 'text-delta') text += event.text
  if (event.type === 'run-end') end = event.outcome
}

const snapshot = await client.GET('/v1/runs/{run}', { params: { path: { run } } })
if (!snapshot.data) throw new Error(snapshot.error.error.code)
const content = snapshot.data.message.content ?? ''
const whole = typeof content === 'string'
  ? content
  : content.map((part) => (part.type === 'text' ? part.text : '')).join('')

// With `live` the answer would be events.
const threads = await client.GET('/v1/threads', { params: { query: { limit: 5 } } })
const list = typeof threads.data === 'object' && 'threads' in threads.data ? threads.data.threads : undefined
const missing = await client.GET('/v1/runs/{run}/info', { params: { path: { run: 'none' } } })
const chat = await client.POST('/v1/chat/completions', {
  body: { model: 'demo', messages: [{ role: 'user', content: 'scenario:text' }] },
})

console.log(JSON.stringify({
  same: text === whole && text.length > 100,
  end,
  state: snapshot.data.state,
  threads: list?.map((thread) => thread.thread),
  code: missing.error?.error.code,
  answer: typeof chat.data === 'object' && 'choices' in chat.data
    ? chat.data.choices[0]?.message.content === whole
    : null,
}))
