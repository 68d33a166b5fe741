/* What the reader has chosen. It is kept in the address, so that a view can be sent and kept. */

const choice = {
  cost: "billed",
  month: -1,
  against: -1,
  provider: null,
  account: null,
  owner: null,
  currency: 0,
  stack: "provider",
  payer: "owner",
  where: [],
  restatement: null,
  accounts: [],
  tables: new Set(),
};
const NO_OWNER = "-";

/** Read the choice from the address; what the bill does not have is left out. */
function readChoice() {
  const address = new URLSearchParams(location.hash.slice(1));
  const place = (list, name) => (address.has(name) ? indexOrNull(list, address.get(name)) : null);
  choice.cost = address.get("cost") === "effective" ? "effective" : "billed";
  choice.stack = address.get("by") === "category" ? "category" : "provider";
  choice.payer = address.get("payer") === "cost-centre" ? "cost-centre" : "owner";
  choice.month = place(bill.months, "month") ?? bill.month ?? -1;
  choice.against = place(bill.months, "against") ?? choice.month - 1;
  if (choice.against === choice.month) choice.against = choice.month - 1;
  choice.currency = place(bill.currencies, "currency") ?? 0;
  choice.provider = place(bill.providers, "provider");
  choice.account = place(
    bill.accounts.map((_, a) => accountKey(a)),
    "account",
  );
  choice.owner = address.get("owner") === NO_OWNER ? -1 : place(bill.owners, "owner");
  choice.where = address.getAll("where");
  choice.restatement = address.has("restatement") ? Number(address.get("restatement")) : null;
  choice.accounts = bill.accounts.map((_, a) => isChosen(a) && isAccount(a));
}

function indexOrNull(list, value) {
  const index = list.indexOf(value);
  return index < 0 ? null : index;
}

/** Tell whether an account is the chosen one, which may have several lines with names of their time. */
const isAccount = (a) => choice.account === null || accountKey(a) === accountKey(choice.account);

/** Tell whether an account is of the chosen provider and owner. */
function isChosen(a) {
  return (
    (choice.provider === null || providerOf(a) === choice.provider) &&
    (choice.owner === null || ownerOf(a) === choice.owner)
  );
}

const isFiltered = () => choice.accounts.includes(false);

/** Return the address of the choice with some of it changed; null takes a part back. */
function addressWith(changes) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const part of Array.isArray(value) ? value : [value]) {
      if (part !== null) parameters.append(name, part);
    }
  }
  return `#${parameters}`;
}

/** Return the choice as one sentence, for print. */
function choiceText() {
  const { provider, account, owner, month, against } = choice;
  const months =
    month < 0 ? "" : ` ${monthAndYear(month)}${against < 0 ? "" : ` against ${monthAndYear(against)}`}.`;
  const accounts =
    account === null ? `all ${bill.accounts.length} accounts` : `account ${accountName(account)}`;
  return `${choice.cost === "billed" ? "Billed" : "Effective"} cost in ${currencyName()}.${months} ${
    provider === null ? "All providers" : providerName(provider)
  }, ${accounts}, ${owner === null ? "all owners" : owner < 0 ? "no owner" : `owner ${ownerName(owner)}`}.`;
}

const currencyName = () => named(bill.currencies[choice.currency] ?? "", 12);

/** Return the filters, whose change changes the address. */
function filters() {
  const months = bill.months.map((month, m) => [month, monthAndYear(m)]).reverse();
  const accounts = [
    ...new Map(
      bill.accounts.flatMap((_, a) =>
        isChosen(a) || a === choice.account ? [[accountKey(a), accountName(a, 60)]] : [],
      ),
    ),
  ];
  const owners = bill.owners.map((owner, o) => [owner, ownerName(o, 60)]);
  if (bill.accounts.some((_, a) => ownerOf(a) < 0)) owners.push([NO_OWNER, "No owner"]);
  const id = (list, index) => (index === null ? null : list[index]);
  return [
    costFilter(),
    filter("month", "Month", months, bill.months[choice.month]),
    filter(
      "against",
      "Against",
      months.filter(([month]) => month !== bill.months[choice.month]),
      bill.months[choice.against],
      choice.against < 0 ? "None" : null,
    ),
    filter(
      "provider",
      "Provider",
      bill.providers.map((p, n) => [p, providerName(n, 60)]),
      id(bill.providers, choice.provider),
      "All",
    ),
    filter(
      "account",
      "Account",
      accounts,
      id(
        bill.accounts.map((_, a) => accountKey(a)),
        choice.account,
      ),
      `All ${accounts.length}`,
    ),
    filter(
      "owner",
      "Owner",
      owners,
      choice.owner === -1 ? NO_OWNER : id(bill.owners, choice.owner),
      `All ${bill.owners.length || ""}`,
    ),
    filter(
      "currency",
      "Currency",
      bill.currencies.map((c) => [c, named(c, 12)]),
      bill.currencies[choice.currency],
    ),
    el("a", { class: "clear", href: "#", "data-keep": "clear" }, "Clear"),
  ];
}

function costFilter() {
  const buttons = ["billed", "effective"].map((cost) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": String(choice.cost === cost),
        "data-keep": `cost-${cost}`,
        onclick: () => {
          location.hash = addressWith({ cost: cost === "billed" ? null : cost });
        },
      },
      cost === "billed" ? "Billed" : "Effective",
    ),
  );
  return el("div", { class: "switch", role: "group", "aria-label": "Cost" }, buttons);
}

function filter(name, label, options, chosen, all = null) {
  const select = el(
    "select",
    { id: `filter-${name}`, "data-keep": `filter-${name}` },
    all === null ? [] : el("option", { value: "" }, all.trim()),
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  select.addEventListener("change", () => {
    const without = name === "provider" || name === "owner" ? { account: null } : {};
    location.hash = addressWith({
      ...without,
      [name]: select.selectedIndex === 0 && all !== null ? null : select.value,
    });
  });
  return el("label", { class: "filter", for: select.id }, el("span", {}, label), select);
}
