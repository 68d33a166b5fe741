/* What was restated: what a newer version of a month changed after an older one had been loaded. */

/** Return the restatements of a month in the chosen currency and accounts, newest first.
 *
 * `moved` is what changed in the chosen accounts. Lines without an account belong to no choice of some.
 */
function restatementsOf(month = null) {
  return bill.restatements
    .filter(({ currency, month: m }) => currency === choice.currency && (month === null || m === month))
    .map((restatement) => ({ ...restatement, ...restatedLines(restatement) }))
    .filter(({ lines }) => lines.length || !isFiltered());
}

function restatedLines({
  by_service: { service, account, before, after, rows },
  before: whole,
  after: newest,
}) {
  const lines = d3
    .range(rows)
    .filter((n) => (account[n] === null ? !isFiltered() : choice.accounts[account[n]]))
    .map((n) => ({
      service: service[n],
      account: account[n],
      before: before[n],
      after: after[n],
      moved: after[n] - before[n],
    }))
    .filter(({ moved }) => moved !== 0n);
  const moved = isFiltered() ? total(lines.map((line) => line.moved)) : newest - whole;
  return { lines: lines.sort((a, b) => compare(absolute(b.moved), absolute(a.moved))), moved };
}

function restatedPanel() {
  const all = restatementsOf();
  if (!all.length) {
    panel(
      "What was restated",
      isFiltered() && bill.restatements.length
        ? "No restatement touches this selection"
        : "No month was restated",
      "A restatement is a newer version of a month that the vendor sent after an older one was loaded.",
    );
    return;
  }
  const chosen = all[choice.restatement] ?? all.find(({ late }) => late) ?? all[0];
  panel(
    "What was restated",
    restatedSentence(chosen),
    `${counted(all.length, "restatement")} in ${currencyName()}. The vendor's cost, before and after.${
      isFiltered() && chosen.by_service.account.includes(null)
        ? " The smaller changes are not kept by account, and are not in the selection."
        : ""
    }`,
    row(part(5, versionsFigure(chosen)), part(7, restatedTable(chosen))),
    all.length > 1 ? row(part(12, restatementsTable(all, chosen))) : null,
  );
}

function restatedSentence(restatement) {
  const { export: name, month, restated_at: at, after, moved } = restatement;
  const day = `${dayNear(at, month)}, ${restatement.late ? "after" : "before"} it had closed`;
  const when = `${monthName(month)} on ${day}`;
  const some = isFiltered() ? ` of this selection` : "";
  if (moved === 0n) {
    return isFiltered()
      ? `${named(name, IN_TITLE)} restated ${when}; the selection's sum did not change`
      : `${named(name, IN_TITLE)} restated ${when}; its total stayed ${money(after)}`;
  }
  return `${named(name, IN_TITLE)} ${moved > 0n ? "raised" : "lowered"} ${monthName(month)}${some} by ${money(
    absolute(moved),
  )} on ${day}`;
}

/** Draw the whole month's total by version, from the first that was replaced. */
function versionsFigure(chosen) {
  const chain = bill.restatements
    .filter(
      (other) =>
        other.export === chosen.export && other.month === chosen.month && other.currency === chosen.currency,
    )
    .reverse();
  const points = [
    { text: "before", amount: chain[0].before },
    ...chain.map(({ restated_at: at, after }) => ({ text: dayText(at), amount: after })),
  ].slice(-6);
  const unit = unitFor(points.map(({ amount }) => amount));
  const versions = [chain[0].from, ...chain.map(({ to }) => to)].slice(-6);
  const makeTable = () =>
    table(
      "Total by version",
      [
        ["Version", "text grows"],
        ["Loaded", "text"],
        ["Total", "money"],
      ],
      points.map(({ text, amount }, n) => [nameCell(named(versions[n])), text, money(amount)]),
    );
  return figure(
    `${monthName(chosen.month)}'s whole total in ${named(chosen.export, 24)}, by version, ${unit.word}${currencyName()}`,
    points.map(({ text, amount }) => `${text} ${money(amount)}`).join(", "),
    (width) => versionsChart(width, points, unit),
    { under: "The axis does not start at zero", table: makeTable },
  );
}

function restatedTable(chosen) {
  const visible = chosen.lines.filter(({ moved }) => cents(moved) !== 0n);
  const first = cut(visible, 10)[0];
  const others = chosen.lines.filter((line) => !first.includes(line));
  const most = first.length ? absolute(first[0].moved) : 0n;
  const sum = (list, key) => total(list.map((line) => line[key]));
  const line = (name, before, after, kind = null, drawing = "") =>
    as(kind, [name, money(before), money(after), signed(after - before), drawing]);
  const rows = first.map((l) =>
    line(
      nameCell(
        l.service === null ? "Other" : serviceName(l.service),
        l.account === null ? null : accountName(l.account),
      ),
      l.before,
      l.after,
      null,
      tinyChange(l.moved, most),
    ),
  );
  if (others.length)
    rows.push(line(`Other (${others.length})`, sum(others, "before"), sum(others, "after"), "other"));
  if (isFiltered()) {
    rows.push(
      line(
        "Changed lines of the selection",
        sum(chosen.lines, "before"),
        sum(chosen.lines, "after"),
        "total",
      ),
    );
  } else {
    const [before, after] = [
      chosen.before - sum(chosen.lines, "before"),
      chosen.after - sum(chosen.lines, "after"),
    ];
    if (before !== 0n || after !== 0n)
      rows.push(line(before === after ? "All other, unchanged" : "All other", before, after, "other"));
    rows.push(line(monthAndYear(chosen.month), chosen.before, chosen.after, "total"));
  }
  return table(
    `What version ${named(chosen.to, 18)} changed against ${named(chosen.from, 18)}`,
    [
      ["Service, account", "text grows"],
      ["Before", "money wide"],
      [dayText(chosen.restated_at), "money wide"],
      ["Change", "money"],
      ["Fall | rise", "tiny middle"],
    ],
    rows,
  );
}

function restatementsTable(all, chosen) {
  return table(
    "Restatements, newest first",
    [
      ["Restated", "text"],
      ["Month", "text"],
      ["Export", "text grows"],
      ["When", "text wide"],
      ["Before", "money wide"],
      ["After", "money wide"],
      ["Change", "money"],
    ],
    all.map((restatement, n) =>
      as(restatement === chosen ? "chosen" : null, [
        link(dayText(restatement.restated_at, true), { restatement: String(n) }, `restatement-${n}`),
        monthAndYear(restatement.month),
        nameCell(named(restatement.export)),
        restatement.late ? "after it had closed" : "before it had closed",
        money(restatement.before),
        money(restatement.after),
        signed(restatement.after - restatement.before),
      ]),
    ),
  );
}
