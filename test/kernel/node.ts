/**
 * A virtual machine as a node of a lab that runs in network namespaces of the same machine. Its own network is plugged in where
 * the lab has a host without an agent, which becomes a switch.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { netnsName, REPOSITORY } from "../../lab/names.ts";
import { hostNamed } from "../../lab/topology.ts";
import { parseTopology } from "../../lab/topology-file.ts";
import { machineImage, makeDisk, TREE } from "../../tools/vm/image.ts";
import { type Machine, startMachine } from "../../tools/vm/machine.ts";

const LAB = "v";
const TOPOLOGY_FILE = "/root/lab.yaml";
/** The machine's end of the cable; systemd gives it a name as a network card would have. */
export const UPLINK = "enp1s0";

export type Manager = "systemd-networkd" | "NetworkManager";

export interface VirtualNode extends AsyncDisposable {
  readonly sh: Machine["sh"];
  /** What a script prints, without the newline at its end. */
  readonly out: (script: string) => Promise<string>;
  readonly ok: (script: string) => Promise<boolean>;
  /** Waits until the script succeeds, by the guest's own clock. @param say what is to be known when it does not */
  readonly until: (what: string, script: string, options?: { readonly seconds?: number; readonly say?: string }) => Promise<void>;
  /** `isthmus lab WORDS` for the lab around the node. */
  readonly lab: (words: string) => Promise<string>;
  /** Cuts the power; the lab around it is up again afterwards, without the hosts named. */
  readonly powerCycle: (...off: readonly string[]) => Promise<void>;
  readonly reboot: (...off: readonly string[]) => Promise<void>;
  /** Who manages the uplink from now on, also after a reboot. */
  readonly manage: (by: Manager) => Promise<void>;
}

/** Boots the machine, builds the lab in it, and gives its one interface the host's address by systemd-networkd. */
export async function startNode(topologyText: string, host: string): Promise<VirtualNode> {
  const folder = mkdtempSync(join(tmpdir(), "isthmus-node-"));
  const { nics, gateway } = hostNamed(parseTopology(topologyText), host);
  const address = `${nics[0]?.address}/${nics[0]?.bits}`;
  const tree = join(folder, "tree.img");
  await makeDisk(REPOSITORY, tree, "3G");
  const machine = await startMachine({ image: await machineImage((line) => console.log(line)), tree, folder, memoryMb: 3072 });
  const sh: Machine["sh"] = (script, options) =>
    machine.sh(`export HOME=/root NO_COLOR=1 PATH=${TREE}:${TREE}/node_modules/.bin:$PATH; ${script}`, options);
  const out = async (script: string): Promise<string> => (await sh(script)).out.trimEnd();
  const plug = `
ip link add ${UPLINK} type veth peer name port netns ${netnsName(LAB, host)}
ip netns exec ${netnsName(LAB, host)} sh -ec 'ip addr flush dev eth0; ip route flush table main
ip link add br0 type bridge forward_delay 0 stp_state 0
for dev in eth0 port; do ip link set $dev master br0 up; done; ip link set br0 up'`;
  const resume = async (off: readonly string[]): Promise<void> => {
    await sh(`set -e; node ${TREE}/test/kernel/resume.ts ${LAB} ${TOPOLOGY_FILE} ${off.join(" ")}; ${plug}`);
  };
  const manage: VirtualNode["manage"] = async (by) => {
    const other = by === "NetworkManager" ? "systemd-networkd.socket systemd-networkd" : "NetworkManager";
    await sh(`systemctl disable --now ${other}; systemctl enable --now ${by}`);
  };
  // Hosts of the lab end by power only: a reboot need not wait for them.
  await sh(
    'mkdir -p /etc/systemd/system.conf.d; printf "[Manager]\\nDefaultTimeoutStopSec=10s\\n" >/etc/systemd/system.conf.d/lab.conf; systemctl daemon-reload',
  );
  await sh(`cat >${TOPOLOGY_FILE} <<'END'\n${topologyText}\nEND`);
  await sh(`${uplinkFiles(address, gateway ?? "")}\nset -e; isthmus lab up --name ${LAB} -f ${TOPOLOGY_FILE}; ${plug}`);
  await manage("systemd-networkd");
  return {
    sh,
    out,
    ok: async (script) => (await sh(script, { mayFail: true })).code === 0,
    async until(what, script, { seconds = 60, say = ":" } = {}) {
      const loop = `end=$(($(date +%s) + ${seconds})); until ${script}; do [ $(date +%s) -lt $end ] || exit 1; sleep 0.3; done`;
      const { code } = await sh(`{ ${loop}; } >/dev/null 2>&1`, { mayFail: true });
      if (code !== 0) throw new Error(`${what}: not within ${seconds} s of the machine's time\n${(await sh(say, { mayFail: true })).out}`);
    },
    lab: (words) => out(`isthmus lab ${words.replace(" ", ` --name ${LAB} `)}`),
    async powerCycle(...off) {
      await machine.powerCycle();
      await resume(off);
    },
    async reboot(...off) {
      await machine.reboot();
      await resume(off);
    },
    manage,
    async [Symbol.asyncDispose]() {
      await machine[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** What an installation has in /etc for its uplink, for either manager. */
function uplinkFiles(address: string, gateway: string): string {
  return `
cat >/etc/systemd/network/20-uplink.network <<'END'
[Match]
Name=${UPLINK}
[Network]
Address=${address}
Gateway=${gateway}
END
mkdir -p /etc/NetworkManager/system-connections /etc/NetworkManager/conf.d
# Debian has it leave veth devices alone; this one stands for a network card.
printf '[device-uplink]\\nmatch-device=interface-name:${UPLINK}\\nmanaged=1\\n' >/etc/NetworkManager/conf.d/10-uplink.conf
cat >/etc/NetworkManager/system-connections/uplink.nmconnection <<'END'
[connection]
id=uplink
uuid=6f5ae9f2-6a3e-4f0e-9d4c-2f4f1f1f0001
type=ethernet
interface-name=${UPLINK}
[ipv4]
method=manual
address1=${address},${gateway}
[ipv6]
method=link-local
END
chmod 600 /etc/NetworkManager/system-connections/uplink.nmconnection`;
}
