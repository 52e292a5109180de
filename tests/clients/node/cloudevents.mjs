// URL COUNT: so many events, by turns binary and structured, and then a batch of two, as the SDK writes them.
import { CloudEvent, HTTP, emitterFor, httpTransport, Mode } from "cloudevents";

const [url, count] = process.argv.slice(2);
const event = (n) => new CloudEvent({ id: `${n}`, source: "/node", type: "test", data: { n }, partitionkey: "k" });
for (let n = 0; n < Number(count); n++) {
  const mode = n % 2 ? Mode.BINARY : Mode.STRUCTURED;
  const { headers, body } = mode === Mode.BINARY ? HTTP.binary(event(n)) : HTTP.structured(event(n));
  const answer = await fetch(url, { method: "POST", headers, body });
  if (answer.status !== 200) throw new Error(`answered ${answer.status}: ${await answer.text()}`);
}
await emitterFor(httpTransport(url))(event(count));
