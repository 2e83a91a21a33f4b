/**
 * A lab after its machine was rebooted: the hosts boot from the disks that they have. `node resume.ts LAB FILE [HOST…]`: the
 * hosts named stay powered off, until `isthmus lab heal`.
 */
import { worldScript } from "../../lab/blueprint.ts";
import { boot, plugIn } from "../../lab/machine.ts";
import { netnsName, WORLD } from "../../lab/names.ts";
import { identify } from "../../lab/process.ts";
import { each, ipBatch, netnsScript } from "../../lab/shell.ts";
import { addFault, writeState } from "../../lab/state.ts";
import { loadTopology } from "../../lab/topology-file.ts";

const [name = "", file = "", ...off] = process.argv.slice(2);
const topology = await loadTopology(file);
await writeState({ name, phase: "up", builder: identify(process.pid)!, createdAt: new Date().toISOString(), topology, joined: true });
for (const host of off) await addFault(name, { kind: "node", host });
await ipBatch([`netns add ${netnsName(name, WORLD)}`]);
await netnsScript(netnsName(name, WORLD), worldScript(topology));
const hosts = topology.hosts.filter((host) => !off.includes(host.name));
await plugIn(name, topology, hosts);
await each(hosts, 8, (host) => boot(name, host));
