// Loads Node's addons from bytes: nothing is written to a file.
'use strict';

const path = require('node:path');
const binding = require(process.env.MEMDL_NODE || './build/memdl.node');

const bound = new Set();

/**
 * Loads an addon and returns its exports. A name that was loaded before is not loaded again.
 *
 * @param {string} name What debuggers and errors call it. Different addons need different names.
 * @param {Uint8Array} bytes The contents of its `.node` file.
 */
function load(name, bytes) {
  if (!bound.has(name)) {
    binding.load(name, bytes);
    bound.add(name);
  }
  return process._linkedBinding(name);
}

/**
 * Supplies a shared library that addons need.
 *
 * @param {string} name As in the addon's `DT_NEEDED`: `libvips-cpp.so.8.17.1`.
 * @param {Uint8Array} bytes
 */
function provide(name, bytes) {
  binding.provide(name, bytes);
}

/**
 * Lets `require` take addons from memory: a `.node` file of this path, and the shared libraries that addons need.
 *
 * @param {Map<string, Uint8Array>} files By absolute path.
 */
function serve(files) {
  const addons = new Map();
  for (const [file, bytes] of files) {
    if (file.endsWith('.node')) addons.set(path.toNamespacedPath(file), bytes);
    else provide(path.basename(file), bytes);
  }
  const dlopen = process.dlopen;
  process.dlopen = function (module, file, ...flags) {
    const bytes = addons.get(file);
    if (!bytes) return dlopen.call(this, module, file, ...flags);
    module.exports = load(file, bytes);
  };
}

module.exports = { load, provide, serve };
