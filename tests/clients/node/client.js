// The npm ssh2 client of tests/clients: one task, told as JSON on the command line; what came of it as JSON.
"use strict";
const fs = require("fs");
const { Client } = require("ssh2");

const asked = JSON.parse(process.argv[2]);
const result = {};
const client = new Client();

const fail = (error) => {
  console.error(error.message);
  process.exit(1);
};
const done = () => {
  console.log(JSON.stringify(result));
  client.end();
};
const or = (next) => (error, ...values) => (error ? fail(error) : next(...values));

const collected = (stream, then) => {
  const out = [];
  const err = [];
  stream.on("data", (data) => out.push(data));
  stream.stderr.on("data", (data) => err.push(data));
  stream.on("exit", (status) => (result.status = status));
  stream.on("close", () => {
    result.stdout = Buffer.concat(out).toString("hex");
    result.stderr = Buffer.concat(err).toString("hex");
    then();
  });
};

const tasks = {
  login() {
    const window = { term: "xterm", rows: 31, cols: 97, modes: { ECHO: 0 } };
    client.shell(window, or((stream) => {
      collected(stream, done);
      stream.end("stty size; exit 7\n");
    }));
  },
  exec() {
    client.exec(asked.command, or((stream) => {
      collected(stream, done);
      stream.end(Buffer.from(asked.stdin, "hex"));
    }));
  },
  transfer() {
    client.sftp(or((sftp) => {
      sftp.fastPut(asked.put, asked.there, or(() => sftp.fastGet(asked.there, asked.get, or(done))));
    }));
  },
  forward() {
    client.forwardOut("127.0.0.1", 1, asked.host, asked.hostPort, or((stream) => {
      stream.once("data", (data) => {
        result.answer = data.subarray(0, 1).toString("hex");
        done();
      });
      stream.write(Buffer.from(asked.send, "hex"));
    }));
  },
};

client
  .on("handshake", (found) => (result.algorithms = [found.kex, found.serverHostKey, found.cs.cipher]))
  .on("ready", () => tasks[asked.task]())
  .on("error", fail)
  .connect({ host: "127.0.0.1", port: asked.port, username: asked.user, privateKey: fs.readFileSync(asked.key) });
