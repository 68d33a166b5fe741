/* How much: the number, whether it is final, the months, the running total of the newest. */

const AMPLE = 100n;

/** Return the figures that other panels need too: the months' totals of the chosen rows. */
function readFigures() {
  const rows = chosenRows(bill.costs);
  const of = (column) => {
    const months = bill.months.map(() => 0n);
    for (const n of rows) months[bill.costs.month[n]] += column[n];
    return months;
  };
  const costs = { billed: of(bill.costs.billed), effective: of(bill.costs.effective) };
  return { rows, costs, months: costs[choice.cost] };
}

/** Say how a month's cost stands to another's; a percentage only of a base that bears one. */
function comparison(after, before, name) {
  if (after === before) return `the same as ${name}`;
  const tenths = perMille(absolute(after - before), before);
  const isAmple = before >= AMPLE * 10n ** BigInt(scale) && after > 0n && tenths >= 1 && tenths <= 9999;
  const size = isAmple ? percent(tenths) : `${money(absolute(after - before))} ${currencyName()}`;
  return `${size} ${after > before ? "more" : "less"} than ${name}`;
}

function howMuchSentence(figures, days) {
  const { month } = choice;
  const [cost, name] = [figures.months[month], monthName(month)];
  if (!figures.rows.some((n) => bill.costs.month[n] === month)) {
    return isFiltered() ? `No charges in ${name} for this selection` : `No charges yet in ${name}`;
  }
  if (isInProgress(month)) {
    return days?.front.m === month
      ? runningSentence(days)
      : `${name} stands at ${money(cost)} ${currencyName()} so far`;
  }
  const other = comparedMonth(figures, days);
  const compared = other ? comparison(cost, other.before, other.name) : `${money(cost)} ${currencyName()}`;
  if (!days?.back || days.back.m !== month) return `${name} cost ${compared}`;
  const sign = compare(days.front.totals.at(-1), days.same);
  return `${name} cost ${compared}, and ${days.front.name} ${
    sign > 0 ? "runs ahead of" : sign < 0 ? "runs behind" : "runs level with"
  } ${days.back.name}`;
}

/** Return what the chosen month is compared with: like with like, or null.
 *
 * A month in progress is compared with the same days of the month before, and never with a whole one.
 */
function comparedMonth(figures, days) {
  const { month, against } = choice;
  if (isInProgress(month)) {
    if (days?.front.m !== month || !days.back) return null;
    const { front, back, same } = days;
    return { after: front.totals.at(-1), before: same, name: `${back.name} on day ${front.totals.length}` };
  }
  if (against < 0 || isInProgress(against)) return null;
  return { after: figures.months[month], before: figures.months[against], name: monthName(against) };
}

function runningSentence({ front, back, same }) {
  const cost = `${money(front.totals.at(-1))} ${currencyName()}`;
  const stands = `${front.name} ${isInProgress(front.m) ? "stands at" : "was"} ${cost} after ${counted(front.totals.length, "day")}`;
  if (!back) return stands;
  const moved = front.totals.at(-1) - same;
  return `${stands}, ${
    moved === 0n ? "level with" : `${money(absolute(moved))} ${moved > 0n ? "above" : "below"}`
  } ${back.name} on the same day`;
}

/** Return the running totals of the newest month that the choice is about, and of the one before. */
function runningDays() {
  const { month } = choice;
  const next = month + 1;
  const newest = isInProgress(next) ? next : month;
  const front = runningMonth(newest, lastDay(newest));
  if (!front) return null;
  const back = newest > 0 ? runningMonth(newest - 1, daysOf(newest - 1)) : null;
  const same = back?.totals[Math.min(front.totals.length, back.totals.length) - 1];
  return { front, back, same };
}

/** Return the last day of a month that every chosen provider with charges in it has sent. */
function lastDay(m) {
  return isInProgress(m) ? (d3.min(lastDays(m).values()) ?? 0) : daysOf(m);
}

/** Return the last day of a month by chosen provider: providers do not send their days at the same time. */
function lastDays(m) {
  const { account, day } = bill.day_costs;
  return d3.rollup(
    chosenRows(bill.day_costs, m),
    (rows) => d3.max(rows, (n) => day[n]),
    (n) => providerOf(account[n]),
  );
}

/** Say that the running total stops before the last day of some provider; null if it does not. */
function unsharedDays({ front: { m, name, totals } }) {
  return isInProgress(m) && d3.max(lastDays(m).values()) > totals.length
    ? `Days of ${name} after day ${totals.length} are left out of it: not every provider has sent them.`
    : null;
}

function runningMonth(m, days) {
  if (!days || !bill.day_costs.month.includes(m)) return null;
  const byDay = sums(
    chosenRows(bill.day_costs, m),
    bill.day_costs[choice.cost],
    (n) => bill.day_costs.day[n],
  );
  let sum = 0n;
  const totals = d3.range(1, days + 1).map((day) => (sum += byDay.get(day) ?? 0n));
  return { m, name: monthName(m), totals };
}

function howMuchPanel(figures) {
  const days = runningDays();
  const sentence = howMuchSentence(figures, days);
  const isOther = days && days.front.m !== choice.month;
  const note = [isOther ? `${runningSentence(days)}.` : null, days && unsharedDays(days), otherCurrencies()]
    .filter(Boolean)
    .join(" ");
  panel(
    "How much",
    sentence,
    note,
    row(part(4, theNumber(figures, days)), part(8, monthsFigure(figures))),
    row(part(6, runningFigure(days)), part(6, monthsTable(figures))),
  );
}

/** Say which currencies of the bill are not in the figures. */
function otherCurrencies() {
  const others = bill.currencies
    .filter((_, c) => c !== choice.currency)
    .map((currency) => named(currency, 12));
  return others.length
    ? `This is what is billed in ${currencyName()}; the bill in ${listed(others)} is apart.`
    : null;
}

function theNumber(figures, days) {
  const { month } = choice;
  return el(
    "div",
    { class: "headline" },
    el("p", { class: "second" }, `${monthAndYear(month)}, ${choice.cost}`),
    el(
      "p",
      { class: "number" },
      el("span", { class: "amount" }, money(figures.months[month])),
      " ",
      el("span", { class: "unit" }, currencyName()),
    ),
    el(
      "p",
      { class: "fact" },
      stateCell(bill.month_states[month]),
      el("span", { class: "second" }, stateText(month)),
    ),
    changeFact(comparedMonth(figures, days)),
    keyFigures(figures, days),
  );
}

/** Return how the number stands to what it is compared with; null if that is nothing. */
function changeFact(compared) {
  if (!compared) return null;
  const { after, before, name } = compared;
  const [moved, tenths] = [after - before, perMille(after - before, before)];
  const hasPercentage = tenths !== null && tenths <= 9999 && after > 0n;
  const kind = moved > 0n ? "rise" : moved < 0n ? "fall" : "second";
  return el(
    "p",
    { class: "fact" },
    el("span", { class: kind, "aria-hidden": "true" }, moved > 0n ? "\u25b2" : moved < 0n ? "\u25bc" : "="),
    el("b", {}, signed(moved)),
    el("span", { class: "second" }, `${hasPercentage ? `(${change(after, before)}) ` : ""}against ${name}`),
  );
}

function stateText(month) {
  const versions = bill.versions.filter((version) => version.month === month);
  const loaded = d3.max(versions, (version) => version.loaded_at);
  const restated = bill.restatements.find((restatement) => restatement.month === month && restatement.late);
  if (bill.month_states[month] === "restated") {
    const now = finalText(versions);
    return restated ? `on ${dayNear(restated.restated_at, month)}, ${now}` : now;
  }
  return loaded ? `loaded ${dayNear(loaded, month)}` : "";
}

function keyFigures(figures, days) {
  const { month, against } = choice;
  const other = choice.cost === "billed" ? "effective" : "billed";
  const lines = [[other === "billed" ? "Billed cost" : "Effective cost", money(figures.costs[other][month])]];
  const isComparable = against >= 0 && !isInProgress(month) && choice.cost === "billed";
  const restated = isComparable ? restatementsOf(against).filter(({ late }) => late) : [];
  if (restated.length) {
    const added = total(restated.map(({ moved }) => moved));
    lines.push([
      el(
        "span",
        {},
        `Against ${monthName(against)} before it was restated`,
        el("small", {}, `restated by ${signed(added)} on ${dayNear(restated[0].restated_at, against)}`),
      ),
      signed(figures.months[month] - figures.months[against] + added),
    ]);
  }
  const saved = savedIn(month);
  if (saved.list > 0n) lines.push(["Saved against list price", money(saved.list - saved.effective)]);
  if (days && days.front.m !== month) {
    lines.push([
      el(
        "span",
        { class: "state" },
        mark("in progress"),
        `${days.front.name}, ${days.front.totals.length} of ${daysOf(days.front.m)} days`,
      ),
      money(days.front.totals.at(-1)),
    ]);
  }
  return el(
    "dl",
    { class: "key-figures" },
    lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

const colourOrders = new Map();

/** Return the keys of the bill by their cost in all months, whatever is filtered: the order of colours. */
function colourOrder(what, keyOf) {
  const kept = `${what} ${choice.currency}`;
  if (!colourOrders.has(kept)) {
    const rows = d3.range(bill.costs.rows).filter((n) => bill.costs.currency[n] === choice.currency);
    const byKey = [...sums(rows, bill.costs.billed, keyOf)].sort((a, b) => compare(b[1], a[1]));
    colourOrders.set(
      kept,
      byKey.map(([key]) => key),
    );
  }
  return colourOrders.get(kept);
}

const providerColour = (p) =>
  Math.min(5, Math.max(0, colourOrder("provider", (n) => providerOf(bill.costs.account[n])).indexOf(p)));

/** Return the series of the months' chart: at most six, the rest as "Other". */
function monthSeries(figures) {
  const { costs, services } = bill;
  const byCategory = choice.stack === "category";
  const keyOf = byCategory
    ? (n) => services[costs.service[n]].category ?? -1
    : (n) => providerOf(costs.account[n]);
  const name = byCategory ? categoryName : providerName;
  const byKey = monthsBy(costs, figures.rows, keyOf);
  const order = colourOrder(choice.stack, keyOf);
  const [first, others] = cut(
    order.filter((key) => byKey.has(key)).map((key) => [key, byKey.get(key)]),
    5,
  );
  const series = first.map(([key, months], s) => ({
    name: name(key, 18),
    months,
    colour: first.every(([other]) => order.indexOf(other) < 6) ? order.indexOf(key) : s,
  }));
  if (others.length) {
    series.push({
      name: "Other",
      colour: 5,
      months: bill.months.map((_, m) => total(others.map(([, months]) => months[m]))),
    });
  }
  return series;
}

function monthsFigure(figures) {
  const series = monthSeries(figures);
  const unit = unitFor(figures.months);
  const word = choice.cost === "billed" ? "Billed" : "Effective";
  const makeTable = () =>
    table(
      `${word} cost by month and ${choice.stack}, ${currencyName()}`,
      [["Month", "text"], ...series.map(({ name }) => [name, "money"]), ["Total", "money"]],
      bill.months
        .map((_, m) => [
          monthAndYear(m),
          ...series.map(({ months }) => money(months[m])),
          money(figures.months[m]),
        ])
        .reverse(),
    );
  const label = `${word} cost by month, ${bill.months
    .map((_, m) => `${monthAndYear(m)} ${money(figures.months[m])}`)
    .join(", ")}`;
  const buttons = ["provider", "category"].map((by) =>
    el(
      "button",
      {
        type: "button",
        class: "link",
        "aria-pressed": String(choice.stack === by),
        "data-keep": `by-${by}`,
        onclick: () => {
          location.hash = addressWith({ by: by === "provider" ? null : by });
        },
      },
      `By ${by}`,
    ),
  );
  return figure(
    `${word} cost by month, ${unit.word}${currencyName()}`,
    label,
    (width) => monthsChart(width, series, unit),
    {
      key: stateKey(),
      table: makeTable,
      switch: el("span", { class: "choices", role: "group", "aria-label": "Stacked" }, buttons),
    },
  );
}

function runningFigure(days) {
  if (!days) {
    return [
      el("h3", {}, "Running total by day of month"),
      el(
        "p",
        { class: "note" },
        choice.month < bill.months.length - 3
          ? `Days are kept for the newest three months; ${monthName(choice.month)} is older.`
          : `No charges by day in ${monthName(choice.month)}.`,
      ),
    ];
  }
  const lines = [days.front, days.back].filter(Boolean);
  const unit = unitFor(lines.flatMap(({ totals }) => totals));
  const makeTable = () =>
    table(
      `Running total by day, ${currencyName()}`,
      [["Day", "text"], ...lines.map(({ name }) => [name, "money"])],
      d3
        .range(Math.max(...lines.map(({ totals }) => totals.length)))
        .map((d) => [
          String(d + 1),
          ...lines.map(({ totals }) => (d < totals.length ? money(totals[d]) : DASH)),
        ]),
    );
  return figure(
    `Running total by day of month, ${unit.word}${currencyName()}`,
    runningSentence(days),
    (width) => runningChart(width, days.front, days.back, unit),
    { table: makeTable },
  );
}

function monthsTable(figures) {
  const { billed, effective } = figures.costs;
  const rows = bill.months.map((_, m) => {
    const isComparable = m > 0 && !isInProgress(m);
    return as(m === choice.month ? "chosen" : null, [
      `${shortMonth(m)} ${year(m)}`,
      stateCell(bill.month_states[m]),
      money(billed[m]),
      money(effective[m]),
      isComparable ? change(figures.months[m], figures.months[m - 1]) : DASH,
    ]);
  });
  const kind = (cost) => (choice.cost === cost ? "money" : "money wide");
  return table(
    "Months",
    [
      ["Month", "text"],
      ["State", "text"],
      ["Billed", kind("billed")],
      ["Effective", kind("effective")],
      ["Change", "money"],
    ],
    rows.reverse(),
  );
}
