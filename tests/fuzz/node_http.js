// How Node's http reads raw streams.  In: for each its length (4 bytes, big endian) and its bytes.  Out: for each
// a line of JSON, the requests that were read whole as [method, target, content in base64], and why no more were.
"use strict";
const http = require("node:http");
const { Duplex } = require("node:stream");

const AT_ONCE = 64;

function read(stream) {
  return new Promise((resolve) => {
    const requests = [];
    let refused = null;
    const socket = new Duplex({
      read() {},
      write(_data, _encoding, done) { done(); },
    });
    const server = http.createServer((request, response) => {
      const content = [];
      request.on("data", (data) => content.push(data));
      request.on("error", () => {});
      request.on("end", () => {
        requests.push([request.method, request.url, Buffer.concat(content).toString("base64")]);
        response.writeHead(204).end();
      });
    });
    server.on("clientError", (error) => {
      refused ??= error.code;
      // What was read before is still to be handed to its request.
      setImmediate(() => setImmediate(() => socket.destroy()));
    });
    server.on("checkExpectation", (_request, response) => {
      refused ??= "417";
      response.writeHead(417, { connection: "close" }).end();
    });
    server.on("connect", () => {
      refused ??= "CONNECT";
      socket.destroy();
    });
    server.on("dropRequest", () => { refused ??= "dropped"; });
    socket.on("error", () => {});
    socket.on("close", () => resolve(JSON.stringify({ requests, refused })));
    server.emit("connection", socket);
    socket.push(stream);
    socket.push(null);
  });
}

async function main() {
  const input = require("node:fs").readFileSync(0);
  const streams = [];
  for (let at = 0; at < input.length; ) {
    const size = input.readUInt32BE(at);
    streams.push(input.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  for (let at = 0; at < streams.length; at += AT_ONCE) {
    const lines = await Promise.all(streams.slice(at, at + AT_ONCE).map(read));
    process.stdout.write(lines.join("\n") + "\n");
  }
}

main();
