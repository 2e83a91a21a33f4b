/**
 * A node with systemd as its first process and a network manager of its own: a virtual machine, beside gateways of a lab. What
 * `join` installs, and what neither restarts of units nor managers nor reboots may harm. Runs by `isthmus test kernel`; needs root.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { patient } from "../../lab/patience.ts";
import { startNode, UPLINK, type VirtualNode } from "./node.ts";

const INTERNET = "34.160.111.145";
const [DO1, DO2, ROUTER] = ["203.0.113.10", "198.51.100.66", "192.0.2.10"];
const TOPOLOGY = `
internet: [{ name: inet, address: ${INTERNET} }]
controller: { name: ctl, address: 198.51.100.10 }
sites:
  - name: dc1
    kind: onprem
    lan: { subnet: 192.168.88.0/24, router: { name: dc-router, address: ${ROUTER} } }
    machines: [{ name: vm, address: 192.168.88.20 }]
  - { name: do1, kind: cloud, priority: 200, nodes: [{ name: do1, address: ${DO1}, labels: { egress: "true" } }] }
  - { name: do2, kind: cloud, nodes: [{ name: do2, address: ${DO2}, labels: { egress: "true" } }] }
manifests: [manifests/examples/egress-internet.yaml]
`;
const UNIT = "isthmus-agent.service";
const STATUS = "curl -s --max-time 20 --unix-socket /run/isthmus/agent.sock http://agent/status";

let vm: VirtualNode;

beforeAll(async () => {
  vm = await startNode(TOPOLOGY, "vm");
  await seenAs(ROUTER);
}, patient(60_000));

afterAll(async () => vm?.[Symbol.asyncDispose]());

afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  const said = await vm?.sh(`journalctl -b -n 40 --no-pager -u ${UNIT} -u 'isthmus-wg@*'; isthmus status; ip -br addr; ip rule`, { mayFail: true });
  console.error(`--- the machine after "${task.name}"\n${said?.out}`);
});

/** The internet sees the machine as one of these. */
async function seenAs(...addresses: readonly (string | undefined)[]): Promise<void> {
  const ask = `curl -s --max-time 5 http://${INTERNET}`;
  await vm.until(`the internet sees ${addresses.join(" or ")}`, `${ask} | grep -qxE '${addresses.join("|")}'`, { say: `${ask}; isthmus status` });
}

async function join(name: string): Promise<string> {
  const create = "umask 077; isthmus create token --site dc1 --uses 5 --expires 24h | grep -o 'ist1[.][^ ]*' >/root/token";
  await vm.sh(`[ -s /root/token ] || { ${create}; }`);
  return vm.out(`isthmus join --token-file /root/token --name ${name} 2>&1`);
}

/** It runs, and its plan is in the kernel. */
async function agentWorks(): Promise<void> {
  const works = `${STATUS} >/run/status && grep -q '"applied":{' /run/status && ! grep -q '"type":"Starting"' /run/status`;
  await vm.until("the agent works", `{ ${works}; }`, { say: "isthmus status" });
}

async function uses(wireguard: "kernel" | "userspace"): Promise<void> {
  expect(await vm.out(STATUS)).toContain(`"wireguard":"${wireguard}"`);
}

/** Everything that a restart must leave alone: interfaces by number, keys, ports, processes behind them, routes, rules, nexthops, nft. */
const FOOTPRINT = `{
ip -o link | sed -nE 's/^([0-9]+: ism[^:]*):.*/\\1/p'
wg show all public-key; wg show all listen-port; wg show all allowed-ips; pgrep -ax wireguard-go
for family in -4 -6; do ip $family rule | grep 157; ip $family route show table all proto 157; done
ip nexthop; ip -br addr show dev lo; nft -s list table inet isthmus
}`;

/** The footprint is the one kept in /run/before, or becomes that again. */
async function isAsBefore(): Promise<void> {
  await vm.until("all is as it was", `{ ${FOOTPRINT} >/run/after; cmp -s /run/before /run/after; }`, { say: "diff /run/before /run/after" });
}

/**
 * The work harms nothing: the footprint stays, no rule, route, nexthop or interface of ours went in between, and no packet was lost.
 * @param underlay the work may take the uplink away for a moment, with its address and the rule that goes with that
 */
async function harmsNothing(work: () => Promise<void>, { underlay = false } = {}): Promise<void> {
  await agentWorks();
  await seenAs(DO1, DO2);
  await vm.sh(`${FOOTPRINT} >/run/before
ip monitor route rule nexthop link >/run/monitor 2>&1 & echo $! >/run/monitor.pid
ping -q -i 0.1 ${INTERNET} >/run/ping 2>&1 & echo $! >/run/ping.pid`);
  await work();
  await agentWorks();
  await isAsBefore();
  const gone = await vm
    .out("kill -INT $(cat /run/ping.pid); sleep 2; kill $(cat /run/monitor.pid); grep -E '^Deleted.*(proto 157|: ism| group )' /run/monitor")
    .catch(() => "");
  // A new agent asks the kernel for WireGuard by an interface that carries nothing.
  const passing = (line: string): boolean => line.includes(": ismprobe:") || (underlay && line.includes("from 192.168.88.20"));
  expect(gone.split("\n").filter((line) => line !== "" && !passing(line))).toEqual([]);
  if (underlay) await seenAs(DO1, DO2);
  else expect(await vm.out("cat /run/ping")).toMatch(/ 0% packet loss/);
}

describe("a machine with systemd", () => {
  test("joins by one command, which installs and starts the unit; the kernel's WireGuard carries it", async () => {
    const said = await join("vm1");
    expect(said).toContain("isthmus-agent.service is enabled and runs");
    expect(await vm.out(`systemctl is-enabled ${UNIT}; systemctl is-active ${UNIT}`)).toBe("enabled\nactive");
    await agentWorks();
    await seenAs(DO1);
    await uses("kernel");
    expect(await vm.out("ip -o -d link show type wireguard")).toContain("ism0");
    expect(await vm.out("systemctl --failed --no-legend")).toBe("");
  });

  test.each([
    `systemctl restart ${UNIT}`,
    `systemctl kill -s KILL ${UNIT}`,
    `systemctl kill -s KILL --kill-whom=all ${UNIT}`,
    `systemctl stop ${UNIT}; sleep 5; systemctl start ${UNIT}`,
  ])("loses nothing by: %s", async (command) => {
    const pid = `systemctl show -p MainPID --value ${UNIT}`;
    await vm.sh(`${pid} >/run/main`);
    await harmsNothing(async () => {
      await vm.sh(command);
      await vm.until("another process answers", `{ ${STATUS} >/dev/null && [ $(${pid}) != $(cat /run/main) ]; }`);
    });
  });

  test("loses nothing by a restart of systemd-networkd, which was told at the join", async () => {
    expect(await vm.out("runuser -u systemd-network -- cat /etc/systemd/networkd.conf.d/50-isthmus.conf")).toContain("ManageForeignRoutes=no");
    expect(await vm.out("networkctl --no-legend --no-pager list | grep ism | grep -v unmanaged || :")).toBe("");
    const restarted = async (command: string): Promise<void> => {
      await vm.sh(`${command}; sleep 2`);
      await vm.until("the uplink is configured", `networkctl status ${UPLINK} | grep -q '(configured)'`);
    };
    for (const command of ["systemctl restart systemd-networkd", `networkctl reload; networkctl reconfigure ${UPLINK}`])
      await harmsNothing(async () => restarted(command), { underlay: true });
    // Nobody puts it back while the agent is away: it was not taken.
    await vm.sh(`systemctl stop ${UNIT}; ${FOOTPRINT} >/run/before`);
    await restarted("systemctl restart systemd-networkd");
    expect(await vm.out(`${FOOTPRINT} >/run/after; diff /run/before /run/after || :`)).toBe("");
    await vm.sh(`systemctl start ${UNIT}`);
    await agentWorks();
  });

  test("comes back from a power failure and from a reboot with the controller dead, and still fails over", async () => {
    await vm.powerCycle("ctl");
    await agentWorks();
    await seenAs(DO1);
    // A network that never gets complete keeps nothing from starting.
    const never = "/etc/systemd/system/systemd-networkd-wait-online.service.d";
    await vm.sh(`mkdir ${never}; printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep infinity\\n' >${never}/never.conf`);
    await vm.reboot("ctl");
    await agentWorks();
    await seenAs(DO1);
    expect(await vm.ok("systemctl is-active network-online.target")).toBe(false);
    await vm.sh(`rm -r ${never}; systemctl daemon-reload`);
    await vm.lab("fail node do1");
    await seenAs(DO2);
    expect(await vm.out(STATUS)).toContain('"connected":false');
    await vm.lab("heal ctl");
    await vm.lab("heal do1");
  });

  test("without WireGuard in its kernel, has wireguard-go under units of its own, which outlive the agent", async () => {
    await vm.sh("echo 'install wireguard /bin/false' >/etc/modprobe.d/no-wireguard.conf");
    await vm.reboot();
    await agentWorks();
    await seenAs(DO1, DO2);
    await uses("userspace");
    const units = await vm.out("systemctl list-units --no-legend --plain 'isthmus-wg@*' | awk '{print $1, $3}' | sort");
    expect(units).toMatch(/^isthmus-wg@ism0.service active$/m);
    expect(units).toMatch(/^isthmus-wg@ismg1.service active$/m);
    for (const command of ["restart", "kill -s KILL", "kill -s KILL --kill-whom=all"])
      await harmsNothing(async () => void (await vm.sh(`systemctl ${command} ${UNIT}; sleep 3`)));
    await vm.sh("systemctl stop isthmus-wg@ism0.service");
    await vm.until("ism0 is back", "wg show ism0");
    await vm.sh("rm /etc/modprobe.d/no-wireguard.conf");
    await vm.reboot();
    await agentWorks();
    await seenAs(DO1, DO2);
    await uses("kernel");
  });

  test("leaves without a trace, and can be cleaned up with the controller dead", async () => {
    await vm.until("the controller is heard", `${STATUS} | grep -q '"connected":true'`);
    const traces = `{
ls -d /etc/systemd/system/isthmus* /etc/systemd/system/*/isthmus* /etc/systemd/networkd.conf.d/*isthmus* /etc/systemd/network/*isthmus* \
  /etc/NetworkManager/conf.d/*isthmus* /var/lib/isthmus /run/isthmus 2>/dev/null
systemctl list-units --all --no-legend --plain 'isthmus*'
ip -o link | grep ism; ip rule | grep 157; ip route show table all proto 157; ip nexthop; nft list tables | grep isthmus
grep -i isthmus /etc/hosts; ip -o addr show dev lo | grep -vE ' (127.0.0.1|::1)/'; :; }`;
    await vm.sh("isthmus leave 2>&1");
    await vm.until("every trace is gone", `[ -z "$(${traces})" ]`, { say: traces });
    await seenAs(ROUTER);
    await join("vm1");
    await agentWorks();
    await seenAs(DO1, DO2);
    await vm.lab("fail controller");
    await vm.sh("isthmus cleanup 2>&1");
    expect(await vm.out(traces)).toBe("");
    await seenAs(ROUTER);
  });

  test("under NetworkManager, which is told at the join and until it is left, keeps its interfaces and addresses to itself", async () => {
    await vm.lab("heal ctl");
    await vm.manage("NetworkManager");
    const states = "nmcli -t -f DEVICE,STATE device";
    const managed = async (): Promise<void> => vm.until("the uplink is connected", `${states} | grep -qx ${UPLINK}:connected`, { say: states });
    await managed();
    await join("vm2");
    await agentWorks();
    await seenAs(DO1, DO2);
    const left = `${states} | grep ^ism | grep -v ':unmanaged$'`;
    const leftAlone = async (): Promise<void> => {
      const said = (await vm.out(states)).split("\n");
      expect(said).toEqual(expect.arrayContaining(["ism0:unmanaged", "lo:unmanaged"]));
      expect(await vm.out(`${left} || :`)).toBe("");
    };
    await vm.until("its interfaces are left alone", `! ${left}`, { say: states });
    await leftAlone();
    expect(await vm.out("ip -br addr show dev lo")).toMatch(/ 127[.]0[.]0[.]1[/]8 .* ::1[/]128/);
    await harmsNothing(async () => {
      await vm.sh("systemctl restart NetworkManager; nmcli general reload; sleep 3");
      await managed();
    });
    await leftAlone();
    // Nobody puts it back while the agent is away: it was not taken.
    const ours = `ip -br addr | grep -E '^(lo|ism)'; wg show all listen-port; ip nexthop | grep ism
ip rule | grep 157; ip route show table all proto 157 | grep -v ${UPLINK}`;
    await vm.sh(`${FOOTPRINT} >/run/before; systemctl stop ${UNIT}; { ${ours}; } >/run/ours`);
    expect(await vm.out(`nmcli networking off; sleep 3; ip -br addr show dev ${UPLINK}`)).not.toContain("192.168.88.20");
    expect(await vm.out(`{ ${ours}; } | diff /run/ours - || :`)).toBe("");
    await vm.sh("nmcli networking on");
    await managed();
    await leftAlone();
    expect(await vm.out(`{ ${ours}; } | diff /run/ours - || :`)).toBe("");
    await vm.sh(`systemctl start ${UNIT}`);
    await agentWorks();
    await seenAs(DO1, DO2);
    await isAsBefore();
    await vm.reboot();
    await agentWorks();
    await seenAs(DO1, DO2);
    await leftAlone();
    await vm.until("the controller is heard", `${STATUS} | grep -q '"connected":true'`);
    expect(await vm.ok("grep -rq ism /etc/NetworkManager")).toBe(true);
    await vm.sh("isthmus leave 2>&1");
    await vm.until("what it was told is taken back", "! grep -rq ism /etc/NetworkManager");
    await vm.sh("systemctl restart NetworkManager");
    await vm.until("it has lo again", `${states} | grep -qx 'lo:connected (externally)'`, { say: states });
    await managed();
    await seenAs(ROUTER);
  });
});
