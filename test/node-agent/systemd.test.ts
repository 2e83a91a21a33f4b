import { expect, test } from "vitest";
import { places } from "../../node-agent/files.ts";
import { unitIn, unitText } from "../../node-agent/systemd.ts";

test("folders with spaces, percent signs, dollars and quotes stay one word each in the unit", () => {
  const unit = unitText(places("/srv/my data", '/run/100%$HOME"x'), "/opt/isthmus");
  expect(unit).toContain('ExecStart=/opt/isthmus agent run --data "/srv/my data" --run "/run/100%%$$HOME\\"x"\n');
  expect(unitText(places("/var/lib/isthmus", "/run/isthmus"), "/opt/isthmus")).toContain(" --data /var/lib/isthmus --run /run/isthmus\n");
});

test("a process that belongs to a unit of ours is told by its control group, and one that somebody else's unit started is not", () => {
  expect(unitIn("0::/system.slice/isthmus-agent.service\n")).toBe("isthmus-agent.service");
  expect(unitIn("12:pids:/system.slice/isthmus-agent.service\n1:name=systemd:/system.slice/isthmus-agent.service\n0::/\n")).toBe(
    "isthmus-agent.service",
  );
  // Stopping these would end more than the agent.
  for (const other of ["system.slice/ssh.service", "system.slice/cron.service", "user.slice/user-0.slice/session-3.scope", ""])
    expect(unitIn(`0::/${other}\n`)).toBeUndefined();
});
