// A server on the socket that it is handed (descriptor 3): ready by a newline on descriptor 4, ended in order by SIGTERM.
'use strict';
const fs = require('fs');
const http = require('http');

const server = http.createServer((request, response) => {
  console.log(`${request.method} ${request.url}`);
  response.end(`node, process ${process.pid}\n`);
});

server.listen({ fd: 3 }, () => {
  fs.writeSync(4, '\n');
  fs.closeSync(4);
});

process.on('SIGTERM', () => {
  server.close(() => console.log('ended in order')); // answers what has come, takes no more, and nothing is left to do
  server.closeIdleConnections();
});
