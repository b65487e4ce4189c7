// The audits of GraphQL over HTTP, one line of JSON: node audits.mjs URL KEY
import { serverAudits } from "graphql-http";

const [url, key] = process.argv.slice(2);
const fetchFn = (address, options = {}) =>
  fetch(address, {
    ...options,
    headers: { ...options.headers, authorization: `Bearer ${key}` },
  });

const found = [];
for (const audit of serverAudits({ url, fetchFn })) {
  const result = await audit.fn();
  found.push({ name: result.name, status: result.status, reason: result.reason ?? "" });
}
console.log(JSON.stringify(found));
