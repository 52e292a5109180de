// URL COUNT: so many records by undici's own request(), with keep-alive, pipelined; every answer is read.
import { Pool } from "undici";

const [url, count] = process.argv.slice(2);
const { origin, pathname } = new URL(url);
const pool = new Pool(origin, { connections: 4, pipelining: 8 });
const send = async (n) => {
  const { statusCode, body } = await pool.request({
    path: pathname,
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ n }),
  });
  await body.json();
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`);
};
await Promise.all(Array.from({ length: Number(count) }, (_, n) => send(n)));
await pool.close();
