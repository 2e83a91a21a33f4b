/**
 * The disk of the virtual machine: Debian's userland with Debian's kernel, systemd and both network managers, made once and kept
 * in a cache. Nothing of it is installed on this machine. The working tree is a second disk, made anew for each run.
 */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { ownFolder, removeFolder, start } from "./scratch.ts";

const RELEASE = "bookworm";
const PACKAGES = [
  "linux-image-amd64",
  "initramfs-tools",
  "zstd",
  "systemd-sysv",
  "dbus",
  "udev",
  "kmod",
  "qemu-guest-agent",
  "network-manager",
  "iproute2",
  "iptables",
  "wireguard-tools",
  "wireguard-go",
  "nftables",
  "conntrack",
  "iputils-ping",
  "curl",
  "procps",
  "python3-minimal",
  "ca-certificates",
];
/** Where the working tree is found in the machine. */
export const TREE = "/opt/isthmus";
/** What an installation from Debian's media would have, and nothing that manages networks before a test asks for it. */
const HOOKS = [
  `mkdir -p "$1${TREE}" && echo "/dev/vdb ${TREE} ext4 defaults 0 0" >"$1/etc/fstab"`,
  'chroot "$1" systemctl disable NetworkManager.service NetworkManager-wait-online.service systemd-networkd.service',
  'chroot "$1" systemctl mask serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer systemd-firstboot.service',
  'echo vm >"$1/etc/hostname" && printf "127.0.0.1 localhost\\n127.0.1.1 vm\\n::1 localhost\\n" >"$1/etc/hosts"',
];

export interface Image {
  readonly kernel: string;
  readonly initrd: string;
  readonly disk: string;
}

/** The cached image; makes it when there is none of this recipe. Takes two minutes and 1 GB then. */
export async function machineImage(say: (line: string) => void): Promise<Image> {
  const cache = process.env["ISTHMUS_VM_CACHE"] ?? "/var/cache/isthmus-vm";
  const recipe = createHash("sha256")
    .update(JSON.stringify([RELEASE, PACKAGES, HOOKS]))
    .digest("hex")
    .slice(0, 12);
  const home = join(cache, `${RELEASE}-${recipe}`);
  if (!existsSync(home)) {
    say(`making a Debian machine (${RELEASE}) of packages from this machine's mirror: 1 GB in ${home}, kept for the next run`);
    const making = ownFolder(cache, ".making-");
    try {
      await makeImage(making);
      // Whole or not at all; who made the same one meanwhile was first.
      if (!existsSync(home)) renameSync(join(making, "image"), home);
    } finally {
      removeFolder(making);
    }
  }
  return { kernel: join(home, "vmlinuz"), initrd: join(home, "initrd.img"), disk: join(home, "root.img") };
}

async function makeImage(folder: string): Promise<void> {
  const [root, image] = [join(folder, "root"), join(folder, "image")];
  mkdirSync(image);
  const hooks = HOOKS.map((hook) => `--customize-hook=${hook}`);
  // Namespaces of its own: whatever it started and mounted goes with it.
  const apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  await must([...apart, "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", `--include=${PACKAGES.join(",")}`, ...hooks, RELEASE, root]);
  copyFileSync(join(root, "vmlinuz"), join(image, "vmlinuz"));
  copyFileSync(join(root, "initrd.img"), join(image, "initrd.img"));
  await makeDisk(root, join(image, "root.img"), "4G");
}

/** A sparse ext4 file system with all that a folder holds. */
export async function makeDisk(from: string, file: string, size: string): Promise<void> {
  await must(["mke2fs", "-q", "-t", "ext4", "-d", from, file, size]);
}

async function must(argv: readonly string[]): Promise<void> {
  const child = start(argv, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (said += text));
  const code = await new Promise<number | null>((done, failed) => child.once("error", failed).once("close", done));
  if (code !== 0) throw new Error(`${argv.join(" ")} failed: ${said.trim().split("\n").slice(-10).join("\n")}`);
}
