/* A real server for a test, and a proxy before it that cuts connections. */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";

const root = join(import.meta.dirname, "../../..");
const python = process.env.TOKENWIRE_PYTHON ?? join(root, ".venv/bin/python");

export interface Real {
  url: string;
  stop(): Promise<void>;
}

/** `tokenwire serve` with the demo model, on a free port. */
export async function startServer(...more: string[]): Promise<Real> {
  if (!existsSync(python)) {
    throw new Error(`no ${python}: run "make setup"; this test reads from a real server`);
  }
  const flags = ["-m", "tokenwire", "serve", "--port", "0", "--store", "memory:", ...more];
  // A busy machine must not make it refuse new runs.
  const env = { ...process.env, PYTHONUNBUFFERED: "1", TOKENWIRE_MAX_LAG: "0" };
  const child = spawn(python, flags, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  const gone = new Promise<void>((done) => child.once("exit", () => done()));
  const url = await said(child, /at (http:\/\/[\d.]+:\d+)\//);
  return {
    url,
    stop: async () => {
      child.kill("SIGKILL");
      await gone;
    },
  };
}

function said(child: ChildProcess, wanted: RegExp): Promise<string> {
  return new Promise((found, failed) => {
    let text = "";
    const hear = (piece: Buffer) => {
      text += piece.toString();
      const match = wanted.exec(text);
      if (match) found(match[1]!);
    };
    child.stdout!.on("data", hear);
    child.stderr!.on("data", hear);
    child.once("exit", (code) => failed(new Error(`the server ended with ${code}: ${text}`)));
  });
}

export interface Proxy extends Real {
  /** How many connections it cut. */
  cuts(): number;
}

const STREAMS = /^GET \/v1\/runs\/[^ ]+\/events /;

/** Passes everything on. Of an answer to what is `chosen` (event streams, unless told) it lets
 * `bytes(n)` through the n-th time, then cuts it: with an orderly end and a reset in turns. */
export async function startProxy(
  target: string,
  bytes: (n: number) => number,
  chosen = STREAMS,
): Promise<Proxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let times = 0;
  let cuts = 0;
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    let left = Infinity;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined); // the other side is cut as well
      socket.on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.on("data", (data) => {
      const head = data.toString("latin1");
      // A connection is kept for further requests; what a socket says is none.
      if (/^[A-Z]+ \//.test(head)) left = chosen.test(head) ? bytes(times++) : Infinity;
      far.write(data);
    });
    far.on("data", (data) => {
      if (data.length < left) {
        left -= data.length;
        near.write(data);
        return;
      }
      cuts++;
      near.write(data.subarray(0, left), () => {
        if (cuts % 2) near.end();
        else near.resetAndDestroy();
        far.destroy();
      });
      left = Infinity;
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cuts: () => cuts,
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}
