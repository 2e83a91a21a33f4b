import { expect, test } from "vitest";
import { places } from "../../node-agent/files.ts";
import { unitText } from "../../node-agent/systemd.ts";

test("folders with spaces, percent signs, dollars and quotes stay one word each in the unit", () => {
  const unit = unitText(places("/srv/my data", '/run/100%$HOME"x'), "/opt/isthmus");
  expect(unit).toContain('ExecStart=/opt/isthmus agent run --data "/srv/my data" --run "/run/100%%$$HOME\\"x"\n');
  expect(unitText(places("/var/lib/isthmus", "/run/isthmus"), "/opt/isthmus")).toContain(" --data /var/lib/isthmus --run /run/isthmus\n");
});
