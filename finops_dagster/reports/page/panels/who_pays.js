/* Who pays: owners and their accounts, and what of the usage carries no tag. */

function whoPaysPanel(figures) {
  const { tags } = bill;
  const rows = chosenRows(tags, choice.month);
  const tagged = sums(rows, tags.tagged, (n) => tags.account[n]);
  const untagged = sums(rows, tags.untagged, (n) => tags.account[n]);
  const payers = payersOf(figures, tagged, untagged);
  panel(
    "Who pays",
    whoPaysSentence(payers, total(untagged.values()), total(tagged.values())),
    `${accountsNote(figures)} ${unequalNote()}`.trim(),
    row(
      part(8, payerSwitch(), payersTable(figures, payers)),
      part(
        4,
        coverageFigure(),
        tagKeysTable(total(tagged.values()) + total(untagged.values())),
        untaggedTable(total(untagged.values())),
      ),
    ),
  );
}

function whoPaysSentence(payers, untagged, tagged) {
  const all = tagged + untagged;
  const known = payers.filter(({ payer, months }) => payer !== null && months[choice.month] > 0n);
  if (all <= 0n) {
    return known.length
      ? `${payerName(known[0].payer, IN_TITLE)} pays most: ${money(known[0].months[choice.month])}`
      : `No account of this month has ${choice.payer === "owner" ? "an owner" : "a cost centre"}`;
  }
  if (untagged === 0n) return "All usage carries a tag";
  const tenths = perMille(untagged, all);
  if (tenths === null || tenths < 5 || tenths > 1000) return `Usage of ${money(untagged)} carries no tag`;
  return tagged === 0n
    ? `No usage carries a tag: ${money(untagged)}`
    : `${Math.round(tenths / 10)} % of usage, ${money(untagged)}, carries no tag`;
}

/** Say which accounts of the month have no line in the accounts file. */
function accountsNote(figures) {
  const { costs, accounts } = bill;
  if (!accounts.some(({ listed }) => listed))
    return "No account is in an accounts file: names are the vendor's, and no account has an owner.";
  const used = new Set(
    figures.rows.filter((n) => costs.month[n] === choice.month).map((n) => costs.account[n]),
  );
  const unknown = [...used].filter((a) => !accounts[a].listed);
  if (!unknown.length) return "Every account of the month has a line in the accounts file.";
  const names = unknown.slice(0, 3).map((a) => accountName(a, IN_TITLE));
  if (unknown.length > 3) names.push(`${unknown.length - 3} more`);
  return `${listed(names)} ${unknown.length === 1 ? "has" : "have"} no line in the accounts file.`;
}

/** Return who pays, by owner or by cost centre: the largest first, and last what has none. */
function payersOf(figures, tagged, untagged) {
  const { costs } = bill;
  const { month, against } = choice;
  const byAccount = [...monthsBy(costs, figures.rows, (n) => costs.account[n])].filter(
    ([, months]) => months[month] !== 0n || (against >= 0 && months[against] !== 0n),
  );
  const payers = d3
    .groups(largestFirst(byAccount), ([a]) => payerOf(a))
    .map(([payer, accounts]) => ({
      payer,
      accounts: accounts.map(([account, months]) => ({
        account,
        months,
        tagged: tagged.get(account) ?? 0n,
        untagged: untagged.get(account) ?? 0n,
      })),
    }));
  for (const line of payers) Object.assign(line, summed(line.accounts));
  return payers.sort(
    (a, b) => (a.payer === null) - (b.payer === null) || compare(b.months[month], a.months[month]),
  );
}

/** Return the name of the owner or the cost centre of an account, or null. */
function payerOf(a) {
  const name = choice.payer === "owner" ? bill.owners[ownerOf(a)] : bill.accounts[a].cost_centre;
  return name || null;
}

const payerName = (payer, longest) =>
  payer === null ? `No ${choice.payer === "owner" ? "owner" : "cost centre"}` : named(payer, longest);

/** Return what chooses between owners and cost centres, where accounts have both. */
function payerSwitch() {
  if (!bill.accounts.some((account) => account.cost_centre)) return null;
  const buttons = ["owner", "cost-centre"].map((by) =>
    el(
      "button",
      {
        type: "button",
        class: "link",
        "aria-pressed": String(choice.payer === by),
        "data-keep": `payer-${by}`,
        onclick: () => {
          location.hash = addressWith({ payer: by === "owner" ? null : by });
        },
      },
      by === "owner" ? "By owner" : "By cost centre",
    ),
  );
  return el("div", { class: "choices small", role: "group", "aria-label": "Who pays" }, buttons);
}

function summed(lines) {
  return {
    months: bill.months.map((_, m) => total(lines.map(({ months }) => months[m]))),
    tagged: total(lines.map((line) => line.tagged)),
    untagged: total(lines.map((line) => line.untagged)),
  };
}

function payersTable(figures, payers) {
  const { month, against } = choice;
  const line = (name, id, centre, { months, tagged, untagged }, kind, colour) => {
    const covered = perMille(tagged, tagged + untagged);
    return as(kind, [
      name,
      id,
      centre,
      money(months[month]),
      percent(perMille(months[month], figures.months[month])),
      against < 0 ? DASH : signed(months[month] - months[against]),
      covered === null ? "" : tinyShare(covered, colour),
      percent(covered),
    ]);
  };
  const isByOwner = choice.payer === "owner";
  const word = isByOwner ? "owner" : "cost centre";
  const second = (a) => named((isByOwner ? bill.accounts[a].cost_centre : bill.owners[ownerOf(a)]) || DASH);
  const most = Math.max(1, Math.floor(18 / Math.max(1, payers.length)));
  const [first, others] = cut(payers, 10);
  const rows = first.flatMap((payer) => {
    const [accounts, more] = cut(payer.accounts, most);
    const head = line(el("bdi", {}, payerName(payer.payer)), "", "", payer, "group", "var(--series-1)");
    const inside = accounts.map((a) => {
      const { id, listed, provider } = bill.accounts[a.account];
      return line(
        stacked(
          accountName(a.account),
          listed || !bill.accounts.some((other) => other.listed) ? null : "not in the accounts file",
        ),
        nameCell(`${provider === null ? "" : `${providerName(provider)} `}${id ? named(shortId(id)) : ""}`),
        second(a.account),
        a,
        "inside",
        "var(--past)",
      );
    });
    if (more.length)
      inside.push(line(`Other (${more.length})`, "", "", summed(more), "inside other", "var(--past)"));
    return [head, ...inside];
  });
  if (others.length)
    rows.push(line(`Other (${others.length})`, "", "", summed(others), "group", "var(--series-1)"));
  rows.push(line("Total", "", "", summed(payers), "total", "var(--series-1)"));
  return table(
    `By ${word} and account, ${monthName(month)}, ${currencyName()}`,
    [
      [`${word[0].toUpperCase()}${word.slice(1)}, account`, "text grows"],
      ["Id", "text id wide"],
      [isByOwner ? "Cost centre" : "Owner", isByOwner && !payerSwitch() ? "hidden" : "text wide"],
      [shortMonth(month), "money"],
      ["Share", "money wide"],
      ["Change", "money"],
      ["", "tiny wide"],
      ["Tagged", "money wide"],
    ],
    rows,
  );
}

function coverageFigure() {
  const { tags } = bill;
  const rows = chosenRows(tags);
  if (!rows.length)
    return el("p", { class: "note" }, "No usage with a resource, so nothing that could carry a tag.");
  const [tagged, untagged] = ["tagged", "untagged"].map((name) => {
    const byMonth = sums(rows, tags[name], (n) => tags.month[n]);
    return bill.months.map((_, m) => byMonth.get(m) ?? 0n);
  });
  const tenths = bill.months.map((_, m) => perMille(tagged[m], tagged[m] + untagged[m]));
  const makeTable = () =>
    table(
      "Usage that carries a tag, by month",
      [
        ["Month", "text"],
        ["Tagged", "money"],
        ["Untagged", "money"],
        ["Tagged, %", "money"],
      ],
      bill.months
        .map((_, m) => [monthAndYear(m), money(tagged[m]), money(untagged[m]), percent(tenths[m])])
        .reverse(),
    );
  return figure(
    "Usage that carries a tag, percent",
    bill.months.map((_, m) => `${monthAndYear(m)} ${percent(tenths[m])}`).join(", "),
    (width) => percentChart(width, tenths, 100),
    { table: makeTable, under: "Of usage that has a resource" },
  );
}

/** Return how much of the usage that has a resource carries each of the largest tag keys. */
function tagKeysTable(usage) {
  const { tag_keys: keys } = bill;
  if (choice.month !== bill.month || usage <= 0n) return null;
  const byKey = [...sums(chosenRows(keys), keys.tagged, (n) => keys.key[n])].filter(([, sum]) => sum !== 0n);
  if (!byKey.length) return null;
  return table(
    "Usage by tag key, effective cost",
    [
      ["Tag key", "text grows"],
      [shortMonth(choice.month), "money"],
      ["Tagged", "money"],
    ],
    byKey
      .sort((a, b) => compare(b[1], a[1]))
      .slice(0, 8)
      .map(([key, sum]) => [nameCell(named(key)), money(sum), percent(perMille(sum, usage))]),
  );
}

function untaggedTable(untagged) {
  const { untagged_resources: resources } = bill;
  if (choice.month !== bill.month) {
    return el(
      "p",
      { class: "note" },
      `The largest untagged resources are kept for ${monthAndYear(bill.month)}.`,
    );
  }
  const lines = d3
    .range(resources.rows)
    .filter((n) => resources.currency[n] === choice.currency && choice.accounts[resources.account[n]])
    .sort((a, b) => compare(resources.effective[b], resources.effective[a]))
    .slice(0, 6);
  if (!lines.length) return null;
  const rest = untagged - total(lines.map((n) => resources.effective[n]));
  const rows = lines.map((n) => [
    stacked(
      named(shortId(resources.resource[n])),
      `${serviceName(resources.service[n])}, ${accountName(resources.account[n])}`,
    ),
    money(resources.effective[n]),
  ]);
  if (rest !== 0n) rows.push(as("other", ["Other", money(rest)]));
  rows.push(as("total", ["Untagged", money(untagged)]));
  return table(
    "Largest without a tag, effective cost",
    [
      ["Resource", "text grows"],
      [shortMonth(choice.month), "money"],
    ],
    rows,
  );
}
