// All four gRPC kinds over one @grpc/grpc-js channel, checked message by message.
//
//   node grpc_client.js HOST:PORT [CALLS] [MESSAGES]
//
// Prints one JSON line {"unary": {endpoint: calls}, "messages": n}; on a wrong answer it exits with 1.
'use strict';
const assert = require('node:assert');
const grpc = require('@grpc/grpc-js');

const [target, calls = '100', messages = '200'] = process.argv.slice(2);
const count = Number(messages);

// EchoRequest and EchoReply by hand: payload = 1, count = 2; endpoint = 2, index = 3, received = 4.
function varint(number) {
  const out = [];
  while (number > 0x7f) {
    out.push((number & 0x7f) | 0x80);
    number = Math.floor(number / 128);
  }
  out.push(number);
  return Buffer.from(out);
}

function encode({ payload = Buffer.alloc(0), count = 0 }) {
  const parts = payload.length ? [Buffer.from([0x0a]), varint(payload.length), payload] : [];
  return Buffer.concat(count ? [...parts, Buffer.from([0x10]), varint(count)] : parts);
}

function decode(data) {
  const reply = { payload: Buffer.alloc(0), endpoint: '', index: 0, received: 0 };
  let at = 0;
  const read = () => {
    let number = 0, scale = 1, byte;
    do {
      byte = data[at++];
      number += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte > 0x7f);
    return number;
  };
  while (at < data.length) {
    const key = read();
    let value = read();
    if ((key & 7) === 2) {
      value = data.subarray(at, (at += value));
    }
    const name = { 1: 'payload', 2: 'endpoint', 3: 'index', 4: 'received' }[key >> 3];
    if (name) reply[name] = name === 'endpoint' ? value.toString() : value;
  }
  return reply;
}

const method = (name, requestStream, responseStream) => ({
  path: `/derny.test.v1.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: encode,
  requestDeserialize: (x) => x,
  responseSerialize: (x) => x,
  responseDeserialize: decode,
});
const Echo = grpc.makeGenericClientConstructor(
  {
    unary: method('Unary', false, false),
    serverStream: method('ServerStream', false, true),
    clientStream: method('ClientStream', true, false),
    bidi: method('Bidi', true, true),
  },
  'derny.test.v1.Echo',
);

async function main() {
  const client = new Echo(target, grpc.credentials.createInsecure());
  const deadline = () => ({ deadline: Date.now() + 20000 });
  const payload = Buffer.alloc(1000, 'x');

  const unary = {};
  for (let call = 0; call < Number(calls); call++) {
    const reply = await new Promise((resolve, reject) =>
      client.unary({ payload }, deadline(), (error, reply) => (error ? reject(error) : resolve(reply))),
    );
    assert.deepStrictEqual(reply.payload, payload);
    unary[reply.endpoint] = (unary[reply.endpoint] ?? 0) + 1;
  }

  let index = 0;
  for await (const reply of client.serverStream({ payload, count }, deadline())) {
    assert.strictEqual(reply.index, index++);
    assert.deepStrictEqual(reply.payload, payload);
  }
  assert.strictEqual(index, count);

  const collected = await new Promise((resolve, reject) => {
    const stream = client.clientStream(deadline(), (error, reply) => (error ? reject(error) : resolve(reply)));
    for (let sent = 0; sent < count; sent++) stream.write({ payload });
    stream.end();
  });
  assert.strictEqual(collected.index, count);
  assert.strictEqual(collected.received, count * payload.length);

  // Each message is sent only when the answer to the one before has come.
  const stream = client.bidi(deadline());
  let answered = 0;
  stream.write({ payload: Buffer.from('0') });
  for await (const reply of stream) {
    assert.strictEqual(reply.payload.toString(), String(answered++));
    if (answered < count) stream.write({ payload: Buffer.from(String(answered)) });
    else stream.end();
  }
  assert.strictEqual(answered, count);

  client.close();
  console.log(JSON.stringify({ unary, messages: count }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
