// BullMQ on the workloads that scripts/bench measures of MAOS: the same sizes, one machine, one run.
//
//   node bench.mjs [--json]
//
// It starts a Redis of its own that syncs every write (`appendfsync always`), as MAOS does, with a
// folder of its own, and one worker process of 100 jobs at a time. Nothing here passes or fails.

import { fork, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";

const TASKS = 30_000;
const CONNECTIONS = 64;
const BATCH = 500;
const CHAINS = 500;
const STEPS = 10;
const WIDTH = 1_000;
const ROUND_TRIPS = 300;

const connectionTo = (port) => ({ host: "127.0.0.1", port, maxRetriesPerRequest: null });
const seconds = (since) => (performance.now() - since) / 1e3;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const payload = (number) => ({ number, text: "x".repeat(160) });
const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

function work(port) {
  const connection = connectionTo(port);
  for (const queue of ["steps", "joins"]) {
    const worker = new Worker(queue, async (job) => job.data.number, { connection, concurrency: 100 });
    worker.on("error", (fault) => console.error(String(fault)));
  }
}

function freePort() {
  return new Promise((found, failed) => {
    const server = createServer();
    server.on("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

async function redis(port, folder) {
  const options = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", ""];
  const synced = ["--appendonly", "yes", "--appendfsync", "always"];
  const server = spawn("redis-server", [...options, ...synced], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const text of server.stdout) {
    if (String(text).includes("Ready to accept connections")) break;
  }
  server.stdout.resume();
  return server;
}

// One task life each: `send` takes the number of the first task that it is to submit.
async function throughput(queue, step, send) {
  await queue.obliterate({ force: true });
  const before = performance.now();
  let next = 0;
  const lines = Array.from({ length: step === 1 ? CONNECTIONS : 2 }, async () => {
    while (next < TASKS) {
      const first = next;
      next += step;
      await send(first);
    }
  });
  await Promise.all(lines);
  while ((await queue.getCompletedCount()) < TASKS) await pause(10);
  return TASKS / seconds(before);
}

async function measure(port) {
  const connection = connectionTo(port);
  const [steps, joins] = [new Queue("steps", { connection }), new Queue("joins", { connection })];
  const [ended, joined] = ["steps", "joins"].map((queue) => new QueueEvents(queue, { connection }));
  const flows = new FlowProducer({ connection });
  await Promise.all([ended.waitUntilReady(), joined.waitUntilReady()]);
  const rows = [];
  const row = (name, figure, unit) => rows.push({ name: `BullMQ: ${name}`, figure, unit });

  const single = await throughput(steps, 1, (first) => steps.add("task", payload(first)));
  row(`one by one, ${CONNECTIONS} under way`, single, "tasks/s");
  const bulk = (first) => Array.from({ length: BATCH }, (_, at) => ({ name: "task", data: payload(first + at) }));
  const batches = await throughput(steps, BATCH, (first) => steps.addBulk(bulk(first)));
  row(`in batches of ${BATCH}`, batches, "tasks/s");

  const times = [];
  for (let number = 0; number < ROUND_TRIPS; number++) {
    const before = performance.now();
    await (await steps.add("task", payload(number))).waitUntilFinished(ended);
    times.push(performance.now() - before);
  }
  row("submission to known completion, p50", middle(times), "ms");

  await steps.obliterate({ force: true });
  const step = (chain, left) => ({
    name: "step",
    queueName: "steps",
    data: payload(chain),
    children: left > 1 ? [step(chain, left - 1)] : undefined,
  });
  let before = performance.now();
  await flows.addBulk(Array.from({ length: CHAINS }, (_, chain) => step(chain, STEPS)));
  while ((await steps.getCompletedCount()) < CHAINS * STEPS) await pause(5);
  row(`${CHAINS} chains of ${STEPS}`, (CHAINS * STEPS) / seconds(before), "steps/s");

  const children = Array.from({ length: WIDTH }, (_, number) => ({
    name: "part",
    queueName: "steps",
    data: payload(number),
  }));
  before = performance.now();
  const { job } = await flows.add({ name: "join", queueName: "joins", data: payload(0), children });
  await job.waitUntilFinished(joined);
  row(`one into ${WIDTH} and their join`, seconds(before) * 1e3, "ms");
  return rows;
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "maos-peer-"));
  const port = await freePort();
  const server = await redis(port, folder);
  const worker = fork(process.argv[1], ["work", port]);
  try {
    for (const { name, figure, unit } of await measure(port)) {
      const shown = figure.toFixed(2);
      const plain = `${name.padEnd(58)} ${shown.padStart(12)} ${unit}`;
      console.log(process.argv.includes("--json") ? `{"name":"${name}","figure":${shown},"unit":"${unit}"}` : plain);
    }
  } finally {
    worker.kill();
    server.kill();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[2] === "work") {
  work(Number(process.argv[3]));
} else {
  await main();
  process.exit(0);
}
