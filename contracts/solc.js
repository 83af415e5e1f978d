#!/usr/bin/env node
// The JavaScript compiler where forge expects a native one: it asks for `--version`, else gives standard JSON on stdin.
"use strict";
const solc = require("solc");

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else {
  process.stdout.write(solc.compile(require("fs").readFileSync(0, "utf8")));
}
