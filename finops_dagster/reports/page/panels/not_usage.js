/* What is not usage: support, marketplace, tax, purchases, and below zero refunds and credits. */

const KINDS = ["Support", "Marketplace", "Tax", "Purchase", "Adjustment", "Refund", "Credit"];
const KIND_NAMES = { Purchase: "Purchases", Adjustment: "Adjustments", Refund: "Refunds", Credit: "Credits" };

function notUsagePanel() {
  const { kinds } = bill;
  const rows = chosenRows(kinds).filter((n) => kinds.kind[n] !== "Usage");
  const byKind = monthsBy(kinds, rows, (n) => kinds.kind[n]);
  const shown = [
    ...KINDS.filter((kind) => byKind.has(kind)),
    ...[...byKind.keys()].filter((kind) => !KINDS.includes(kind)),
  ]
    .map((kind) => ({ kind, name: KIND_NAMES[kind] ?? named(kind), months: byKind.get(kind) }))
    .filter(({ months }) => months.some((amount) => cents(amount) !== 0n));
  const note = shown.length
    ? `One scale for all ${shown.length}, ${unitFor(shown.flatMap(({ months }) => months)).word}${currencyName()}. ${unequalNote()}`.trim()
    : null;
  panel(
    "What is not usage",
    notUsageSentence(shown),
    note,
    shown.length
      ? el(
          "div",
          {
            class: "multiples",
            style: `--columns: ${shown.length > 6 ? Math.ceil(shown.length / 2) : shown.length}`,
          },
          multiples(shown),
        )
      : null,
    shown.length ? notUsageTable(shown) : null,
  );
}

function notUsageSentence(shown) {
  const name = monthName(choice.month);
  const some = shown.filter(({ months }) => months[choice.month] !== 0n);
  if (!some.length) return `${name} has no tax, support, credits or anything else that is not usage`;
  const list = listed(some.map((kind) => kind.name.toLowerCase()));
  const sum = total(some.map(({ months }) => months[choice.month]));
  if (sum < 0n) return `${list[0].toUpperCase()}${list.slice(1)} take ${money(-sum)} off ${name}`;
  return `${money(sum)} of ${name} is ${list}`;
}

function multiples(shown) {
  const unit = unitFor(shown.flatMap(({ months }) => months));
  const y = domain(shown.flatMap(({ months }) => months.map(drawn)));
  return shown.map(({ name, months }) => {
    const moved = choice.against < 0 ? null : months[choice.month] - months[choice.against];
    return el(
      "div",
      {},
      el("h3", {}, name),
      el("p", { class: "small-number" }, money(months[choice.month])),
      moved === null
        ? null
        : el("p", { class: "second small" }, `${signed(moved)} against ${monthName(choice.against)}`),
      figure(
        "",
        `${name} by month: ${months.map((amount, m) => `${monthAndYear(m)} ${money(amount)}`).join(", ")}`,
        (width) => multipleChart(width, months, y, unit),
      ),
    );
  });
}

function notUsageTable(shown) {
  const title = "What is not usage, by month";
  const makeTable = () =>
    table(
      `${title}, ${currencyName()}`,
      [["Month", "text"], ...shown.map(({ name }) => [name, "money"])],
      bill.months
        .map((_, m) =>
          as(m === choice.month ? "chosen" : null, [
            monthAndYear(m),
            ...shown.map(({ months }) => money(months[m])),
          ]),
        )
        .reverse(),
    );
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, tableButton(title, makeTable)),
    choice.tables.has(title) ? makeTable() : null,
  );
}
