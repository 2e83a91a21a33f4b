import { expect, it } from "vitest";
import { agentLog } from "../../cli/actions/agent.ts";

const said = (errTty: boolean, env: Readonly<Record<string, string>>): string => {
  let text = "";
  agentLog({ err: (part) => void (text += part), env, errTty, now: () => Date.UTC(2030, 0, 2, 3, 4, 5, 6) })("connected");
  return text;
};

it("an agent's log in a file says when; on a terminal and in the journal it does not", () => {
  expect(said(false, {})).toBe("2030-01-02T03:04:05.006Z connected\n");
  expect(said(true, {})).toBe("connected\n");
  expect(said(false, { JOURNAL_STREAM: "8:1" })).toBe("connected\n");
});
