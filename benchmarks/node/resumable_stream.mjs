// resumable-stream (npm) with writer and readers in this process: what log_peers.py measures of the
// others. Arguments: Redis URL, readers, chunks, seconds between chunks. Prints figures as JSON.
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream/redis";

const CHUNK = 'x{"type":"text-delta","part":0,"text":" a few words of text"}';
const STAMP = 20;
const [url, readers, chunks, gap] = [process.argv[2], ...process.argv.slice(3).map(Number)];

async function context() {
  const publisher = createClient({ url });
  const subscriber = createClient({ url });
  await publisher.connect();
  await subscriber.connect();
  const streams = createResumableStreamContext({ keyPrefix: "bench", waitUntil: () => {}, publisher, subscriber });
  return { streams, close: () => Promise.all([publisher.close(), subscriber.close()]) };
}

const stamp = () => performance.now().toFixed(6).padStart(STAMP, "0");
const median = (values, share = 0.5) =>
  values.sort((a, b) => a - b)[Math.floor((values.length - 1) * share)];

const producer = await context();
const reader = await context();
let go, finish;
const started = new Promise((resolve) => (go = resolve));
const finished = new Promise((resolve) => (finish = resolve));

async function* source() {
  await started;
  for (let number = 0; number < chunks; number += 1) {
    yield stamp() + CHUNK;
    if (gap) await sleep(gap * 1000);
  }
  await finished; // so that it can be read again
}

async function follow(late) {
  const stream = await reader.streams.resumeExistingStream("s");
  let size = 0;
  for await (const text of stream) {
    const now = performance.now();
    for (let at = 0; at < text.length; at += STAMP + CHUNK.length) {
      late.push(now - Number(text.slice(at, at + STAMP)));
      size += CHUNK.length;
    }
    if (size === CHUNK.length * chunks) break;
  }
  return size;
}

const produced = await producer.streams.createNewResumableStream("s", () => ReadableStream.from(source()));
const own = (async () => {
  for await (const _ of produced);
})();
const late = [];
const following = Array.from({ length: readers }, () => follow(late));
await sleep(300);
const cpu = process.cpuUsage();
const begun = performance.now();
go();
const sizes = await Promise.all(following);
const seconds = (performance.now() - begun) / 1000;
const { user, system } = process.cpuUsage(cpu);
if (sizes.some((size) => size !== CHUNK.length * chunks)) throw new Error(`sizes ${sizes}`);
const again = performance.now();
await follow([]);
const readAgain = performance.now() - again;
finish();
await own;
console.log(
  JSON.stringify({
    chunks_per_s: chunks / seconds,
    cpu_us_per_chunk_and_reader: (user + system) / chunks / readers,
    p50_ms: median(late),
    p99_ms: median(late, 0.99),
    read_again_ms: readAgain,
  }),
);
await Promise.all([producer.close(), reader.close()]);
process.exit(0);
