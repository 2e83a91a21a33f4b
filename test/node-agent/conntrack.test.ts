import { expect, test } from "vitest";
import { liveFlows } from "../../node-agent/drivers/conntrack.ts";

const LISTED = `tcp      6 431998 ESTABLISHED src=10.101.0.2 dst=34.160.111.145 sport=45560 dport=7 src=34.160.111.145 dst=203.0.113.10 sport=7 dport=45560 [ASSURED] mark=1073741824 use=1
tcp      6 110 TIME_WAIT src=10.101.0.2 dst=34.160.111.145 sport=45561 dport=7 src=34.160.111.145 dst=203.0.113.10 sport=7 dport=45561 [ASSURED] mark=1073741824 use=1
udp      17 119 src=10.102.0.2 dst=10.103.0.3 sport=51818 dport=51818 src=10.103.0.3 dst=10.102.0.2 sport=51818 dport=51818 [ASSURED] mark=1073741824 use=1
icmp     1 27 src=10.101.0.2 dst=34.160.112.1 type=8 code=0 id=164 src=34.160.112.1 dst=203.0.113.10 type=0 code=0 id=164 mark=1073741824 use=1
`;

test("flows that live count; closed connections and what ends at the gateway itself do not", () => {
  expect(liveFlows(LISTED, new Set(["10.103.0.3"]))).toBe(2);
  expect(liveFlows("", new Set())).toBe(0);
});
