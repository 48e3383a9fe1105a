// Puts all addons and shared libraries below a folder into one file, and leaves empty files where they were:
//
//     node pack.js FOLDER PACK
//
// So does a bundler. The pack has the length of its index in 8 bytes, the index in JSON, and the files.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

function pack(folder, file) {
  const index = [];
  const contents = [];
  for (const entry of fs.readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.(node|so(\.[0-9]+)*)$/.test(entry.name)) continue;
    const full = path.join(entry.path, entry.name);
    const bytes = fs.readFileSync(full);
    index.push({ path: path.relative(folder, full), size: bytes.length });
    contents.push(bytes);
    fs.truncateSync(full);
  }
  const text = Buffer.from(JSON.stringify(index));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  fs.writeFileSync(file, Buffer.concat([length, text, ...contents]));
}

/** The files of a pack by their absolute paths. */
function unpack(file, folder) {
  const bytes = fs.readFileSync(file);
  const files = new Map();
  let offset = 8 + Number(bytes.readBigUInt64LE());
  for (const entry of JSON.parse(bytes.subarray(8, offset))) {
    files.set(path.resolve(folder, entry.path), bytes.subarray(offset, offset + entry.size));
    offset += entry.size;
  }
  return files;
}

module.exports = { pack, unpack };
if (require.main === module) pack(process.argv[2], process.argv[3]);
