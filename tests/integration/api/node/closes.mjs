// What the client graphql-ws meets, by what it does, one line of JSON: node closes.mjs URL KEY
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, key] = process.argv.slice(2);
const ASK = "{ symbols(first: 1) { name } }";
const LIVE = "subscription { signals { symbol } }";
const right = { authorization: `Bearer ${key}` };

class Unspoken extends WebSocket {
  constructor(address) {
    super(address); // offers no protocol
  }
}

// The code of the first close, and whether the client would try again.
function close(options, act = () => {}, query = LIVE, times = 1) {
  return new Promise((resolve) => {
    let code = null;
    let retried = false;
    const client = createClient({
      url,
      webSocketImpl: WebSocket,
      connectionParams: right,
      retryAttempts: 1,
      // Asked only where the client itself does not hold the code for final.
      shouldRetry: () => {
        retried = true;
        return false;
      },
      ...options,
      on: {
        ...act,
        closed: (event) => {
          code ??= event.code;
        },
      },
    });
    let left = times;
    const done = () => {
      left -= 1;
      if (left === 0) setTimeout(() => resolve({ code, retried }), 50);
    };
    for (let place = 0; place < times; place += 1) {
      client.subscribe({ query }, { next: () => {}, error: done, complete: done });
    }
  });
}

const init = JSON.stringify({ type: "connection_init", payload: right });
const early = JSON.stringify({ id: "1", type: "subscribe", payload: { query: ASK } });
const cases = {
  4400: () => close({}, { connected: (socket) => socket.send("not JSON") }),
  4401: () => close({}, { opened: (socket) => socket.send(early) }),
  4403: () => close({ connectionParams: { authorization: "Bearer wrong" } }),
  4406: () => close({ webSocketImpl: Unspoken }),
  4408: () => close({ connectionParams: () => new Promise(() => {}) }),
  4409: () => close({ generateID: () => "same" }, {}, LIVE, 2),
  4429: () => close({}, { connected: (socket) => socket.send(init) }),
};

const client = createClient({ url, webSocketImpl: WebSocket, connectionParams: right });
const answers = [];
for await (const answer of client.iterate({ query: ASK })) answers.push(answer);
await client.dispose();

const found = await Promise.all(
  Object.entries(cases).map(async ([code, run]) => [code, await run()]),
);
console.log(JSON.stringify({ answers, closes: Object.fromEntries(found) }));
process.exit(0);
