/* What was saved: usage at list, contracted and effective prices; commitments and what of them went unused. */

/** Return a month's usage at the three prices, of the chosen rows. */
function savedIn(month) {
  const { savings } = bill;
  const rows = chosenRows(savings, month);
  const sum = (column) => total(rows.map((n) => column[n]));
  return { list: sum(savings.list), contracted: sum(savings.contracted), effective: sum(savings.effective) };
}

function savedPanel() {
  const { month } = choice;
  const saved = savedIn(month);
  const commitments = commitmentsIn(month);
  panel(
    "What was saved",
    savedSentence(saved),
    savedNote(commitments),
    saved.list > 0n || commitments.length
      ? row(
          saved.list > 0n ? part(5, pricesFigure(saved), bill.months.length > 1 ? rateFigure() : null) : null,
          commitments.length ? part(7, commitmentsTable(commitments)) : null,
        )
      : null,
  );
}

function savedSentence({ list, effective }) {
  const name = monthName(choice.month);
  const saved = list - effective;
  if (list <= 0n) return `${name} has no usage with a list price`;
  if (saved === 0n) return `Usage cost its list price in ${name}: nothing was saved`;
  if (saved < 0n) return `Usage cost ${money(-saved)} more than its list price in ${name}`;
  return `${money(saved)} less than list price: an effective savings rate of ${percent(perMille(saved, list))}`;
}

function savedNote(commitments) {
  if (!commitments.length) return `No commitment was used in ${monthName(choice.month)}.`;
  const unused = total(commitments.map((commitment) => commitment.unused));
  const made = bill.made_at.slice(0, 10);
  const soon = commitments.filter(
    ({ ends }) => ends && daysBetween(made, ends) >= 0 && daysBetween(made, ends) <= 60,
  );
  return `${unused === 0n ? "No commitment went unused." : `Commitments of ${money(unused)} went unused.`}${soon
    .slice(0, 2)
    .map(({ id, ends }) => ` ${named(shortId(id), IN_TITLE)} ends on ${dayText(ends)}.`)
    .join("")}`;
}

const daysBetween = (from, to) =>
  Math.round((Date.parse(to.slice(0, 10)) - Date.parse(from.slice(0, 10))) / 864e5);

function pricesFigure(saved) {
  const { list, contracted, effective } = saved;
  const piece = (text, amount, colour) =>
    amount > 0n ? [{ text: `${text} ${MINUS}${money(amount)}`, amount, colour }] : [];
  const prices = [
    { name: "List", amount: list, saved: [] },
    {
      name: "Contracted",
      amount: contracted,
      saved: piece("negotiated", list - contracted, "var(--on-past)"),
    },
    {
      name: "Effective",
      amount: effective,
      kind: "now",
      saved: piece("commitments", contracted - effective, "var(--on-series-1)"),
    },
  ];
  const makeTable = () =>
    table(
      "Usage at three prices",
      [
        ["Price", "text"],
        ["Amount", "money"],
        ["Below list", "money"],
      ],
      prices.map(({ name, amount }) => [name, money(amount), money(list - amount)]),
    );
  return figure(
    `Usage in ${monthName(choice.month)} at three prices, ${currencyName()}`,
    prices.map(({ name, amount }) => `${name} ${money(amount)}`).join(", "),
    (width) => pricesChart(width, prices),
    { table: makeTable },
  );
}

function rateFigure() {
  const months = bill.months.map((_, m) => savedIn(m));
  const tenths = months.map(({ list, effective }) => perMille(list - effective, list));
  const makeTable = () =>
    table(
      "Effective savings rate by month",
      [
        ["Month", "text"],
        ["List", "money"],
        ["Effective", "money"],
        ["Rate", "money"],
      ],
      months
        .map(({ list, effective }, m) => [
          monthAndYear(m),
          money(list),
          money(effective),
          `${tenths[m] < 0 ? MINUS : ""}${percent(tenths[m])}`,
        ])
        .reverse(),
    );
  return figure(
    "Effective savings rate, percent of list price",
    months.map((_, m) => `${monthAndYear(m)} ${percent(tenths[m])}`).join(", "),
    (width) => percentChart(width, tenths),
    { table: makeTable },
  );
}

function commitmentsIn(month) {
  const { commitments } = bill;
  const byId = d3.groups(chosenRows(commitments, month), (n) => commitments.id[n]);
  return byId
    .map(([id, rows]) => ({
      id,
      type: commitments.type[rows[0]],
      ends: commitments.ends[rows[0]],
      used: total(rows.map((n) => commitments.used[n])),
      unused: total(rows.map((n) => commitments.unused[n])),
      accounts: rows.map((n) => commitments.account[n]),
    }))
    .sort((a, b) => compare(b.used + b.unused, a.used + a.unused));
}

function commitmentCell({ id, type, accounts }) {
  const users = accounts.length === 1 ? accountName(accounts[0]) : counted(accounts.length, "account");
  return stacked(named(shortId(id)), type ? `${named(type)}, ${users}` : users, "second", named(id));
}

function commitmentsTable(commitments) {
  const [first, others] = cut(commitments, 8);
  const share = (used, unused) => percent(perMille(used, used + unused));
  const sum = (list, key) => total(list.map((commitment) => commitment[key]));
  const made = bill.made_at.slice(0, 10);
  const ends = (date) => {
    if (!date) return DASH;
    const days = daysBetween(made, date);
    return stacked(
      dayText(date, true),
      days >= 0 && days <= 60 ? `in ${counted(days, "day")}` : days < 0 ? "ended" : null,
      days >= 0 && days <= 60 ? "rise" : "second",
    );
  };
  const line = (name, end, list, kind = null) => {
    const [used, unused] = [sum(list, "used"), sum(list, "unused")];
    return as(kind, [
      name,
      end,
      money(used + unused),
      tinyShare(perMille(used, used + unused), "var(--series-1)", true),
      money(unused),
      share(used, unused),
    ]);
  };
  const rows = first.map((c) => line(commitmentCell(c), ends(c.ends), [c]));
  if (others.length) rows.push(line(`Other (${others.length})`, "", others, "other"));
  rows.push(line("Total", "", commitments, "total"));
  return table(
    `Commitments in ${monthName(choice.month)}, ${currencyName()}`,
    [
      ["Commitment", "text grows"],
      ["Ends", commitments.some(({ ends: date }) => date) ? "text wide" : "hidden"],
      ["Committed", "money"],
      ["Used", "tiny wide"],
      ["Unused", "money"],
      ["Used, %", "money wide"],
    ],
    rows,
  );
}
