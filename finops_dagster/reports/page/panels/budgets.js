/* Budgets, and days that cost more or less than was to be expected. Only shown where there are any. */

function budgetsPanel() {
  const all = bill.budgets.filter(({ currency }) => currency === choice.currency);
  if (!all.length) return;
  const budgets = all
    .filter(({ month }) => month === choice.month)
    .sort((a, b) => compare(b.spent - b.amount, a.spent - a.amount));
  const name = monthName(choice.month);
  const over = budgets.filter(({ amount, spent }) => spent > amount);
  const share = ({ amount, spent }) => perMille(spent, amount);
  const rows = budgets.map((budget) => [
    stacked(named(budget.name), budget.filter ? named(budget.filter) : null),
    money(budget.amount),
    money(budget.spent),
    money(budget.amount - budget.spent),
    percent(share(budget)),
    tinyShare(share(budget), budget.spent > budget.amount ? "var(--rise)" : "var(--series-1)"),
  ]);
  panel(
    "Budgets",
    !budgets.length
      ? `No budget is set for ${name}`
      : !over.length
        ? `${budgets.length === 1 ? `${named(budgets[0].name, IN_TITLE)} is` : `All ${budgets.length} budgets are`} within ${
            budgets.length === 1 ? "its budget" : "their amounts"
          } in ${name}`
        : over.length === 1
          ? `${named(over[0].name, IN_TITLE)} is ${money(over[0].spent - over[0].amount)} over its budget`
          : `${over.length} of ${budgets.length} budgets are exceeded in ${name}`,
    `Each budget has its own filter; the filters above do not change it.${
      bill.month_states[choice.month] === "in progress" ? ` ${name} is in progress.` : ""
    }`,
    budgets.length
      ? row(
          part(
            12,
            table(
              `Budgets in ${monthAndYear(choice.month)}, ${currencyName()}`,
              [
                ["Budget", "text grows"],
                ["Amount", "money"],
                ["Spent", "money"],
                ["Left", "money wide"],
                ["Spent, %", "money"],
                ["", "tiny wide"],
              ],
              rows,
            ),
          ),
        )
      : null,
  );
}

function anomaliesPanel() {
  const all = bill.anomalies.filter(({ currency }) => currency === choice.currency);
  if (!all.length) return;
  const month = bill.months[choice.month];
  const days = all
    .filter(({ day, account }) => day.startsWith(month) && (account === null || choice.accounts[account]))
    .sort((a, b) => compare(absolute(b.cost - b.expected), absolute(a.cost - a.expected)));
  const [first, others] = cut(days, 12);
  const most = days.length ? absolute(days[0].cost - days[0].expected) : 0n;
  const rows = first.map(({ day, service, account, kind, cost, expected }) => [
    dayText(day),
    nameCell(
      service === null ? "All services" : serviceName(service),
      account === null ? "all accounts" : accountName(account),
    ),
    named(kind),
    money(expected),
    money(cost),
    signed(cost - expected),
    tinyChange(cost - expected, most),
  ]);
  if (others.length) rows.push(as("other", [`Other (${others.length})`, "", "", "", "", "", ""]));
  const name = monthName(choice.month);
  panel(
    "Unusual days",
    !days.length
      ? `No unusual day in ${name}`
      : days.length === 1
        ? `One unusual day in ${name}: ${signed(days[0].cost - days[0].expected)} against what was expected`
        : `${days.length} lines with an unusual day in ${name}, the largest ${signed(days[0].cost - days[0].expected)}`,
    "Expected is computed from the days before, by weekday. Of a change that stays, a week at most is counted.",
    days.length
      ? row(
          part(
            12,
            table(
              `Unusual days in ${monthAndYear(choice.month)}, ${currencyName()}`,
              [
                ["Day", "text"],
                ["Service, account", "text grows"],
                ["Kind", "text wide"],
                ["Expected", "money wide"],
                ["Cost", "money wide"],
                ["Change", "money"],
                ["Fall | rise", "tiny middle"],
              ],
              rows,
            ),
          ),
        )
      : null,
  );
}
