#!/usr/bin/env node
// Compiles src/Accounting.sol with the settings of foundry.toml into what Python needs of it: interface, bytecode, and where
// in the deployed code the immutables stand (they differ from chain to chain). Prints it, or writes it with --write.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const PLACE = path.join(__dirname, "artifacts", "Accounting.json");
const SOURCE = "src/Accounting.sol";

const input = {
  language: "Solidity",
  sources: { [SOURCE]: { content: read(SOURCE) } },
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 10_000 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: {
      [SOURCE]: {
        Accounting: [
          "abi",
          "evm.bytecode.object",
          "evm.deployedBytecode.object",
          "evm.deployedBytecode.immutableReferences",
        ],
      },
    },
  },
};

function read(name) {
  const folder = name.startsWith("@") ? path.join(__dirname, "node_modules") : __dirname;
  return fs.readFileSync(path.join(folder, name), "utf8");
}

const output = JSON.parse(solc.compile(JSON.stringify(input), { import: (name) => ({ contents: read(name) }) }));
const complaints = (output.errors || []).filter((error) => !error.sourceLocation?.file.startsWith("@openzeppelin/"));
if (complaints.length) {
  console.error(complaints.map((complaint) => complaint.formattedMessage).join("\n"));
  process.exit(1);
}

const { abi, evm } = output.contracts[SOURCE].Accounting;
const lines = [
  '{"abi":[',
  abi.map((entry) => JSON.stringify(entry)).join(",\n"),
  "],",
  `"bytecode":"0x${evm.bytecode.object}",`,
  `"deployedBytecode":"0x${evm.deployedBytecode.object}",`,
  `"immutableReferences":${JSON.stringify(evm.deployedBytecode.immutableReferences)}}`,
  "",
];
if (process.argv.includes("--write")) {
  fs.mkdirSync(path.dirname(PLACE), { recursive: true });
  fs.writeFileSync(PLACE, lines.join("\n"));
} else {
  process.stdout.write(lines.join("\n"));
}
