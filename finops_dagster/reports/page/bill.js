/* The document: its tables with exact amounts, and sums over the rows that the reader has chosen. */

const MONTH_NAMES = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const STATES = {
  final: "Final",
  "in progress": "In progress",
  restated: "Restated",
  open: "Open",
};
const AMOUNTS = [
  "billed",
  "effective",
  "list",
  "contracted",
  "used",
  "unused",
  "tagged",
  "untagged",
  "before",
  "after",
];
let bill = null;

/** Take the document in: amounts become BigInt, names lose what could disturb the text around. */
function readBill(text) {
  bill = JSON.parse(text);
  scale = bill.scale;
  for (const table of [
    "costs",
    "region_costs",
    "day_costs",
    "kinds",
    "savings",
    "commitments",
    "tags",
    "tag_keys",
    "untagged_resources",
    "resources",
  ])
    bill[table] = readTable(bill[table]);
  for (const restatement of bill.restatements) {
    restatement.before = BigInt(restatement.before);
    restatement.after = BigInt(restatement.after);
    restatement.by_service = readTable(restatement.by_service);
  }
  for (const budget of bill.budgets) {
    [budget.amount, budget.spent] = [BigInt(budget.amount), BigInt(budget.spent)];
  }
  for (const anomaly of bill.anomalies) {
    [anomaly.cost, anomaly.expected] = [BigInt(anomaly.cost), BigInt(anomaly.expected)];
  }
}

function readTable(table) {
  for (const name of AMOUNTS) if (table[name]) table[name] = table[name].map(BigInt);
  if (table.effective_less_billed) {
    table.effective = table.effective_less_billed.map((less, n) => table.billed[n] + BigInt(less));
  }
  table.rows = Object.values(table)[0].length;
  return table;
}

/** Return a name as one line of text: no control characters, no change of direction outside it. */
function named(name, longest = 300) {
  const clean = String(name ?? "")
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+/g, " ")
    .trim();
  const letters = Array.from(clean || "(no name)");
  const cut = letters.length > longest ? `${letters.slice(0, longest - 1).join("")}\u2026` : letters.join("");
  return /[\u0590-\u08ff\ufb1d-\ufefc]/.test(cut) ? `\u2068${cut}\u2069` : cut;
}

const counted = (count, word) => `${grouped(String(count))} ${word}${count === 1 ? "" : "s"}`;

/** Return names as a phrase: "a, b and c". */
function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

const IN_TITLE = 40;
const monthNumber = (m) => Number(bill.months[m].slice(5));
const year = (m) => bill.months[m].slice(0, 4);
const monthAndYear = (m) => `${MONTH_NAMES[monthNumber(m) - 1]} ${year(m)}`;
const shortMonth = (m) => MONTH_NAMES[monthNumber(m) - 1].slice(0, 3);
const daysOf = (m) => new Date(Date.UTC(Number(year(m)), monthNumber(m), 0)).getUTCDate();

/** Say whether a restated month is final again; a bill may not tell. */
function finalText(versions) {
  if (versions.every(({ final }) => final)) return "final now";
  return versions.some(({ final }) => final === false) ? "not final yet" : "unknown whether final";
}

const isInProgress = (m) => bill.month_states[m] === "in progress";

/** Say that a panel compares a month in progress with a whole one; nothing where it does not. */
function unequalNote() {
  const { month, against } = choice;
  if (against < 0 || isInProgress(month) === isInProgress(against)) return "";
  const [unfinished, whole] = isInProgress(month) ? [month, against] : [against, month];
  return `${monthName(unfinished)} is in progress: its days so far stand beside the whole of ${monthName(whole)}.`;
}

/** Return a month's name, with the year where it is far from the chosen month. */
function monthName(m) {
  return Math.abs(m - choice.month) > 6 ? monthAndYear(m) : MONTH_NAMES[monthNumber(m) - 1];
}

/** Return a name without the path in front of it, such as that of a resource in a cloud's notation. */
function shortId(id) {
  const text = String(id);
  return text.startsWith("arn:")
    ? text.split(":").slice(5).join(":") || text
    : text.startsWith("/")
      ? text.split("/").at(-1) || text
      : text;
}

/** Return a moment as a day that a month's panel names: with the year where it is another. */
const dayNear = (moment, m) => dayText(moment, moment.slice(0, 4) !== year(m));

/** Return a date or moment as "3 February", or with its year. */
function dayText(moment, withYear = false) {
  const [y, m, d] = moment.slice(0, 10).split("-").map(Number);
  return `${d} ${MONTH_NAMES[m - 1]}${withYear ? ` ${y}` : ""}`;
}

/** Return what stands for an account in an address: its id, or for a line of others its place. */
const accountKey = (a) => bill.accounts[a].id ?? `other-${a}`;

/** Return how many names a line stands for: that of the smallest is "Other (12)". */
const linesIn = (name) => Number(/^Other \(([\d,]+)\)$/.exec(name)?.[1].replaceAll(",", "") ?? 1);

const accountName = (a, longest) => named(bill.accounts[a].name ?? bill.accounts[a].id, longest);
const serviceName = (s, longest) => named(bill.services[s].name, longest);
const ownerName = (o, longest) => (o < 0 ? "No owner" : named(bill.owners[o], longest));
const providerName = (p, longest) => (p < 0 ? "No provider" : named(bill.providers[p], longest));
const categoryName = (c, longest) => (c < 0 ? "No category" : named(bill.categories[c], longest));
const ownerOf = (a) => bill.accounts[a].owner ?? -1;
const providerOf = (a) => bill.accounts[a].provider ?? -1;

/** Return the numbers of a table's rows in the chosen currency and accounts. */
function chosenRows(table, month = null) {
  const rows = [];
  for (let n = 0; n < table.rows; n += 1) {
    if (
      table.currency[n] === choice.currency &&
      choice.accounts[table.account[n]] &&
      (month === null || table.month[n] === month)
    )
      rows.push(n);
  }
  return rows;
}

/** Return the sum of a column by key: a Map. */
function sums(rows, column, keyOf) {
  const found = new Map();
  for (const n of rows) {
    const key = keyOf(n);
    found.set(key, (found.get(key) ?? 0n) + column[n]);
  }
  return found;
}

/** Return the sum of a column by key and month: a Map of arrays, one amount a month. */
function monthsBy(table, rows, keyOf, column = table[choice.cost]) {
  const found = new Map();
  for (const n of rows) {
    const key = keyOf(n);
    let months = found.get(key);
    if (!months) found.set(key, (months = bill.months.map(() => 0n)));
    months[table.month[n]] += column[n];
  }
  return found;
}

const total = (amounts) => [...amounts].reduce((sum, amount) => sum + amount, 0n);

/** Sort [key, months] by the size of the chosen month, then of all months, the largest first. */
function largestFirst(byKey, size = (months) => months[choice.month]) {
  return [...byKey]
    .map((entry) => [entry, size(entry[1]), total(entry[1])])
    .sort((a, b) => compare(b[1], a[1]) || compare(b[2], a[2]))
    .map(([entry]) => entry);
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
