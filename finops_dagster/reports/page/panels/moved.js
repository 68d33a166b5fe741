/* What moved: the lines, service by account, that are new, rose, fell, or are gone. */

function movedPanel(figures) {
  const { month, against } = choice;
  if (against < 0) {
    panel("What moved", `There is no month to compare ${monthName(month)} with`, null);
    return;
  }
  const lines = movedLines(figures);
  const steps = ["New", "Risen", "Fallen", "Gone"].map((name) => {
    const some = lines.filter((line) => line.step === name);
    return { name, count: some.length, amount: total(some.map(({ moved }) => moved)) };
  });
  for (const step of steps) step.kind = step.amount > 0n ? "rise" : "fall";
  const net = figures.months[month] - figures.months[against];
  panel(
    "What moved",
    movedSentence(lines),
    `${monthAndYear(against)} against ${monthAndYear(month)}, by service and account. ${unequalNote()}`.trim(),
    lines.length ? row(part(4, stepsFigure(steps, net)), part(8, movedTable(figures, lines, net))) : null,
  );
}

function movedLines(figures) {
  const { costs } = bill;
  const { month, against } = choice;
  const byLine = new Map();
  for (const n of figures.rows) {
    if (costs.month[n] !== month && costs.month[n] !== against) continue;
    const key = costs.service[n] * bill.accounts.length + costs.account[n];
    const line = byLine.get(key) ?? {
      service: costs.service[n],
      account: costs.account[n],
      after: 0n,
      before: 0n,
    };
    line[costs.month[n] === month ? "after" : "before"] += costs[choice.cost][n];
    byLine.set(key, line);
  }
  const lines = [...byLine.values()].filter(({ after, before }) => after !== before);
  for (const line of lines) {
    line.moved = line.after - line.before;
    line.step =
      line.before === 0n ? "New" : line.after === 0n ? "Gone" : line.moved > 0n ? "Risen" : "Fallen";
  }
  return lines.sort((a, b) => compare(b.moved, a.moved));
}

function movedSentence(lines) {
  const rises = total(lines.filter(({ moved }) => moved > 0n).map(({ moved }) => moved));
  const falls = total(lines.filter(({ moved }) => moved < 0n).map(({ moved }) => moved));
  const months = `between ${monthName(choice.against)} and ${monthName(choice.month)}`;
  if (!lines.length) return `Nothing moved ${months}`;
  if (falls === 0n) return `Rises of ${money(rises)}, and nothing fell`;
  if (rises === 0n) return `Falls of ${money(-falls)}, and nothing rose`;
  return `Rises of ${money(rises)} against falls of ${money(-falls)}`;
}

function stepsFigure(steps, net) {
  const shown = steps.filter(({ count }) => count);
  const makeTable = () =>
    table(
      "Steps",
      [
        ["Kind", "text"],
        ["Lines", "money"],
        ["Change", "money"],
      ],
      [
        ...shown.map(({ name, count, amount }) => [name, String(count), signed(amount)]),
        as("total", ["Net", String(d3.sum(shown, ({ count }) => count)), signed(net)]),
      ],
    );
  const label = `${shown.map(({ name, amount }) => `${name} ${signed(amount)}`).join(", ")}, net ${signed(net)}`;
  return figure(
    `From ${monthName(choice.against)} to ${monthName(choice.month)}, ${currencyName()}`,
    label,
    (width) => stepsChart(width, shown, net),
    { table: makeTable },
  );
}

function movedTable(figures, lines, net) {
  const bySize = [...lines].sort((a, b) => compare(absolute(b.moved), absolute(a.moved)));
  const [largest, others] = cut(bySize, 12);
  const first = largest.sort((a, b) => compare(b.moved, a.moved));
  const rest = total(others.map(({ moved }) => moved));
  const most = [...first.map(({ moved }) => absolute(moved)), absolute(rest)].reduce(
    (a, b) => (a > b ? a : b),
    0n,
  );
  const rows = first.map((line) => [
    nameCell(serviceName(line.service), accountName(line.account)),
    line.step === "New" || line.step === "Gone" ? el("b", {}, line.step) : "Changed",
    line.before === 0n ? DASH : money(line.before),
    line.after === 0n ? DASH : money(line.after),
    signed(line.moved),
    tinyChange(line.moved, most),
  ]);
  if (others.length) {
    rows.push(
      as("other", [
        `Other (${others.length})`,
        "",
        money(total(others.map(({ before }) => before))),
        money(total(others.map(({ after }) => after))),
        signed(rest),
        tinyChange(rest, most),
      ]),
    );
  }
  const same = figures.months[choice.month] - total(lines.map(({ after }) => after));
  if (same !== 0n) rows.push(as("other", ["Unchanged", "", money(same), money(same), money(0n), ""]));
  rows.push(
    as("total", [
      "Total",
      "",
      money(figures.months[choice.against]),
      money(figures.months[choice.month]),
      signed(net),
      "",
    ]),
  );
  return table(
    "Largest rises and falls, by service and account",
    [
      ["Service, account", "text grows"],
      ["Kind", "text wide"],
      [shortMonth(choice.against), "money wide"],
      [shortMonth(choice.month), "money wide"],
      ["Change", "money"],
      ["Fall | rise", "tiny middle"],
    ],
    rows,
  );
}
