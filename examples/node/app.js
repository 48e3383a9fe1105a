// Uses three addons: better-sqlite3 (V8's API), sharp (Node-API, with a library of 17 MB), and one in Rust (napi-rs).
//
//     node app.js [PACK [extract]]
//
// With a pack, addons and libraries come out of it, from memory; or, to compare, by way of temporary files, as bundlers
// do it. A worker then uses two of them, too.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Worker, isMainThread, workerData, parentPort } = require('node:worker_threads');

const modules = path.join(__dirname, 'node_modules');
const [pack, way] = isMainThread ? process.argv.slice(2) : workerData;
const start = process.hrtime.bigint();
if (pack) {
  const files = require('./pack.js').unpack(pack, modules);
  if (way === 'extract') extract(files);
  else require('./index.js').serve(files);
}

// Writes addons and libraries to a temporary folder, from which they are opened.
function extract(files) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'addons-'));
  process.on('exit', () => fs.rmSync(folder, { recursive: true }));
  const extracted = new Map();
  for (const [file, bytes] of files) {
    const copy = path.join(folder, path.relative(modules, file));
    fs.mkdirSync(path.dirname(copy), { recursive: true });
    fs.writeFileSync(copy, bytes);
    extracted.set(file, copy);
  }
  const dlopen = process.dlopen;
  process.dlopen = function (module, file, ...flags) {
    return dlopen.call(this, module, extracted.get(file) ?? file, ...flags);
  };
}

async function use() {
  const Database = require(path.join(modules, 'better-sqlite3'));
  const db = new Database(':memory:');
  db.exec('create table numbers (n integer)');
  const insert = db.prepare('insert into numbers values (?)');
  for (let n = 1; n <= 100; n++) insert.run(n);
  const { sum } = db.prepare('select sum(n) as sum from numbers').get();
  db.close();

  const argon2 = require(path.join(modules, '@node-rs/argon2'));
  const verified = await argon2.verify(await argon2.hash('secret', { memoryCost: 1024, timeCost: 1 }), 'secret');

  if (!isMainThread) return { sum, verified };
  const sharp = require(path.join(modules, 'sharp'));
  const picture = { create: { width: 640, height: 480, channels: 3, background: '#336699' } };
  const png = await sharp(picture).resize(64, 48).png().toBuffer();
  const { width, height, format } = await sharp(png).metadata();
  return { sum, verified, width, height, format };
}

async function main() {
  const result = await use();
  const took = Number(process.hrtime.bigint() - start) / 1e6;
  const worker = new Worker(__filename, { workerData: [pack, way] });
  const inWorker = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  console.log(JSON.stringify({ ...result, inWorker }));
  console.error(`took ${took.toFixed(1)} ms`);
}

if (isMainThread) main();
else use().then((result) => parentPort.postMessage(result));
