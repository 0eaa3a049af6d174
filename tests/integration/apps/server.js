// SPDX-License-Identifier: Apache-2.0
// The line server of apps.py for node: epoll, eventfd, worker threads, a timer.
const net = require('net');
const { Worker } = require('worker_threads');

let count = 0, ticks = 0;
setInterval(() => ticks++, 10);
const worker = new Worker('const { parentPort } = require("worker_threads"); parentPort.on("message", n => parentPort.postMessage(n));', { eval: true });
const waiting = [];
worker.on('message', n => waiting.shift().write(`${n} ${ticks}\n`));
net.createServer(socket => {
  let text = '';
  socket.on('data', data => {
    const lines = (text + data).split('\n');
    text = lines.pop();
    for (const line of lines)
      if (line === 'inc') {
        waiting.push(socket);
        worker.postMessage(++count);
      }
  });
  socket.on('error', () => {});
}).listen(Number(process.argv[2]), '0.0.0.0');
