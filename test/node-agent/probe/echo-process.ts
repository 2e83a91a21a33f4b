/** Stands in for the gateways' kernel echo: a process of its own, so that a blocked test does not block the answers. */
import { createSocket } from "node:dgram";

const [, , port, ...addresses] = process.argv;
/** Milliseconds until the answer; undefined for none. */
const delays = new Map<string, number | undefined>(addresses.map((address) => [address, 0]));
let open = 0;
for (const address of addresses) {
  const socket = createSocket("udp4");
  socket.on("message", (message, from) => {
    const delay = delays.get(address);
    if (delay === undefined) return;
    const answer = (): void => socket.send(message, from.port, from.address);
    if (delay === 0) answer();
    else setTimeout(answer, delay);
  });
  socket.bind(Number(port), address, () => {
    if (++open === addresses.length) process.send?.("ready");
  });
}
process.on("message", ({ address, delay }: { address: string; delay?: number }) => delays.set(address, delay));
process.on("disconnect", () => process.exit());
