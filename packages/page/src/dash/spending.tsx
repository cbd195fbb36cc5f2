/* Usage, money and budgets of everybody, for operators. */

import type { TokenwireError } from "@tokenwire/client";
import { useCallback, useEffect, useState, type ReactNode } from "react";
import { client } from "../server.js";
import { Ranks } from "./charts.js";
import { byLabel, type Reading } from "./metrics.js";
import {
  costText,
  leftText,
  nameOf,
  nearness,
  pressing,
  ranked,
  tokensText,
  whyUnknown,
  type BudgetLeft,
  type ModelUsage,
  type OwnerPage,
  type OwnerUsage,
} from "./usage.js";

const EVERY_MS = 15_000;
/** Pages that are read, and rows that are shown. */
const MOST_PAGES = 5;
const MOST_ROWS = 20;

interface Spending {
  principals: OwnerPage;
  tenants: OwnerPage;
}

async function readAll(kind: "principals" | "tenants", day: string): Promise<OwnerPage> {
  let page: OwnerPage | undefined;
  for (let count = 0; count < MOST_PAGES && (!page || page.next); count++) {
    const query = new URLSearchParams({ ...(day && { day }), ...(page?.next && { after: page.next }) });
    const more = (await client.json("GET", `/v1/usage/${kind}?${query}`)) as OwnerPage;
    page = page ? { ...more, owners: [...page.owners, ...more.owners] } : more;
  }
  return page!;
}

/** For a server that counts usage. */
export function SpendingView({ now }: { now: Reading }): ReactNode {
  const [day, setDay] = useState("");
  const [spending, setSpending] = useState<Spending>();
  const [problem, setProblem] = useState<TokenwireError>();
  const read = useCallback(async () => {
    try {
      const [principals, tenants] = [await readAll("principals", day), await readAll("tenants", day)];
      setSpending({ principals, tenants });
      setProblem(undefined);
    } catch (error) {
      setProblem(error as TokenwireError);
    }
  }, [day]);
  const isRefused = problem?.status === 403;
  useEffect(() => {
    if (isRefused) return undefined; // it would be again
    void read();
    const timer = setInterval(() => document.hidden || void read(), EVERY_MS);
    return () => clearInterval(timer);
  }, [read, isRefused]);
  const { principals, tenants } = spending ?? {};
  return (
    <section className="spending" aria-labelledby="spending">
      <header>
        <h2 id="spending">Usage and budgets</h2>
        {principals && (
          <label>
            Day{" "}
            <input type="date" max={principals.today} value={day || principals.today} onChange={(event) => setDay(event.target.value)} />
          </label>
        )}
        {principals && (
          <small>
            days of {principals.zone}; {principals.prices ? `prices: ${principals.prices}` : "no prices are installed: every cost is unknown"}
          </small>
        )}
      </header>
      {problem && (
        <p className="notice" role="alert">
          {isRefused ? "Everybody's usage and budgets are for operators." : problem.message}
        </p>
      )}
      {principals && tenants && (
        <>
          <Pressing owners={[...tenants.owners, ...principals.owners]} />
          {tenants.owners.length > 0 && <Owners title="Tenants" page={tenants} />}
          <Owners title="Principals" page={principals} />
        </>
      )}
      <div className="charts">
        <Ranks title="Starts refused, by budget" rows={byLabel(now, "tokenwire_budget_refused_total", "budget")} kind="errors" />
        <Ranks title="Answers stopped, by budget" rows={byLabel(now, "tokenwire_budget_stopped_total", "budget")} kind="errors" />
        <Ranks title="Tokens billed, by kind" rows={byLabel(now, "tokenwire_billed_tokens_total", "kind")} />
        <Ranks title="Tokens without a price, by model" rows={byLabel(now, "tokenwire_unpriced_tokens_total", "model")} />
      </div>
    </section>
  );
}

function Pressing({ owners }: { owners: OwnerUsage[] }): ReactNode {
  const list = pressing(owners);
  if (!list.length) return null;
  return (
    <ul className="pressing" aria-label="Budgets that are near or used up">
      {list.slice(0, MOST_ROWS).map(({ who, budget }) => (
        <li key={`${who} ${budget.name} ${budget.unit}`} className={nearness(budget)}>
          <b>{nearness(budget) === "over" ? "Used up" : "Near"}</b> <bdi>{who}</bdi>, {budget.name}: {leftText(budget)}
          {budget.resets && `, until ${momentOf(budget.resets)}`}
        </li>
      ))}
    </ul>
  );
}

function Owners({ title, page }: { title: string; page: OwnerPage }): ReactNode {
  const rows = ranked(page.owners);
  const more = rows.length - MOST_ROWS;
  return (
    <div className="owners">
      <table>
        <caption>
          {title} <small>{page.next ? `of the first ${rows.length}` : rows.length}</small>
        </caption>
        <thead>
          <tr>
            <th scope="col">Who</th>
            <th scope="col">{page.day === page.today ? "Today" : page.day}, tokens</th>
            <th scope="col">cost</th>
            <th scope="col">{page.day.slice(0, 7)}, tokens</th>
            <th scope="col">cost</th>
            <th scope="col">Budgets</th>
          </tr>
        </thead>
        <tbody>
          {!rows.length && (
            <tr>
              <td colSpan={6}>Nobody has used anything in this month.</td>
            </tr>
          )}
          {rows.slice(0, MOST_ROWS).map((owner) => (
            <tr key={nameOf(owner)}>
              <th scope="row">
                <bdi>{nameOf(owner)}</bdi>
              </th>
              <Amounts usage={owner.day} />
              <Amounts usage={owner.month} />
              <td>
                {(owner.budgets ?? []).map((budget) => (
                  <Meter key={`${budget.name} ${budget.unit}`} budget={budget} />
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {more > 0 && <p>and {more} more</p>}
    </div>
  );
}

function Amounts({ usage }: { usage: ModelUsage }): ReactNode {
  const why = whyUnknown(usage);
  return (
    <>
      <td>{tokensText(usage)}</td>
      <td>
        {costText(usage)}
        {why && <small>{why}</small>}
      </td>
    </>
  );
}

function Meter({ budget }: { budget: BudgetLeft }): ReactNode {
  const period = budget.name.split("/")[1] ?? budget.name;
  const used = budget.most ? Math.min(1, (budget.most - budget.left) / budget.most) : 1;
  const text = `${leftText(budget)}${budget.resets ? `, until ${momentOf(budget.resets)}` : ""}`;
  return (
    <div className={`meter ${nearness(budget)}`} title={text}>
      <span>{period}</span>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={`${period}: ${text}`}>
        <rect width="100" height="8" rx="1" className="whole" />
        <rect width={used * 100} height="8" rx="1" />
      </svg>
      <small>{leftText(budget)}</small>
    </div>
  );
}

function momentOf(seconds: number): string {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
