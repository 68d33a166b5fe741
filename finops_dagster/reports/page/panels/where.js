/* Where: services, accounts, regions; then from provider down to a resource. */

const TOP = 8;

function wherePanel(figures) {
  const { costs, services } = bill;
  const byService = monthsBy(costs, figures.rows, (n) => costs.service[n]);
  const byAccount = monthsBy(costs, figures.rows, (n) => costs.account[n]);
  const regionRows = chosenRows(bill.region_costs);
  const byRegion = monthsBy(bill.region_costs, regionRows, (n) => bill.region_costs.region[n]);
  const byCategory = sums(
    figures.rows.filter((n) => costs.month[n] === choice.month),
    costs[choice.cost],
    (n) => services[costs.service[n]].category ?? -1,
  );
  panel(
    "Where",
    whereSentence(figures, byService, byCategory),
    whereNote(byAccount, byRegion),
    row(
      part(4, topTable("Services", "Service", byService, serviceName)),
      part(4, topTable("Accounts", "Account", byAccount, accountName)),
      part(4, topTable("Regions", "Region", byRegion, regionName)),
    ),
    row(part(8, treeFigure(figures)), part(4, placeTable(figures))),
  );
}

function whereSentence(figures, byService, byCategory) {
  const costs = largestFirst(byService).filter(([, months]) => months[choice.month] > 0n);
  const sum = figures.months[choice.month];
  if (!costs.length) return `Nothing was charged for in ${monthName(choice.month)}`;
  const [first, second] = costs.map(([s]) => serviceName(s, IN_TITLE));
  if (!second) return `${first} is the only service that cost anything`;
  const lead = `${first} and ${second} lead`;
  const [[category, amount]] = [...byCategory].sort((a, b) => compare(b[1], a[1]));
  const tenths = perMille(amount, sum);
  if (tenths === null || tenths < 10 || tenths >= 1000) return lead;
  return `${categoryName(category, IN_TITLE)} is ${Math.round(tenths / 10)} % of ${isFiltered() ? "the selection" : "the bill"}; ${lead}`;
}

function whereNote(byAccount, byRegion) {
  const count = (map, word) => {
    const n = [...map.values()].filter((months) => months[choice.month] !== 0n).length;
    return counted(n, word);
  };
  const folded = Object.entries(bill.left_out)
    .filter(([name, n]) => n > 0 && name !== "resources")
    .map(([name, n]) => `${n} ${name}`);
  return `${count(byAccount, "account")}, ${count(byRegion, "region")}. Small columns are the whole months from zero, each row on its own scale.${
    folded.length ? ` The smallest ${listed(folded)} share lines, Other (n), that add up.` : ""
  } ${unequalNote()}`.trim();
}

function topTable(caption, head, byKey, name) {
  const { month, against } = choice;
  const all = largestFirst(byKey).filter(
    ([, months]) => months[month] !== 0n || (against >= 0 && months[against] !== 0n),
  );
  const [first, others] = cut(all, TOP);
  const whole = d3
    .range(bill.months.length)
    .filter((m) => bill.month_states[m] !== "in progress" || m === month);
  const line = (text, months, kind = null) =>
    as(kind, [
      text,
      tinyMonths(months, whole),
      money(months[month]),
      against < 0 ? DASH : change(months[month], months[against]),
    ]);
  const sumOf = (list) => bill.months.map((_, m) => total(list.map(([, months]) => months[m])));
  const rows = first.map(([key, months]) => line(nameCell(name(key)), months));
  if (others.length)
    rows.push(
      line(
        `Other (${grouped(String(d3.sum(others, ([key]) => linesIn(name(key)))))})`,
        sumOf(others),
        "other",
      ),
    );
  rows.push(line("Total", sumOf([...byKey]), "total"));
  return table(
    caption,
    [
      [head, "text grows"],
      ["Months", "text tiny wide"],
      [shortMonth(month), "money"],
      ["Change", "money"],
    ],
    rows,
  );
}

const regionName = (r) => (bill.regions[r].name === "(none)" ? "No region" : named(bill.regions[r].name));

/** Return the costs of the month as a tree: provider, category, service, account. */
function placeTree(figures) {
  const { costs, services } = bill;
  const root = new Map();
  for (const n of figures.rows) {
    if (costs.month[n] !== choice.month) continue;
    const service = services[costs.service[n]];
    const path = [
      providerName(service.provider ?? -1),
      categoryName(service.category ?? -1),
      serviceName(costs.service[n]),
      accountKey(costs.account[n]),
    ];
    let level = root;
    for (const [depth, key] of path.entries()) {
      if (!level.has(key)) {
        level.set(key, {
          key,
          amount: 0n,
          inside: new Map(),
          service: depth > 1 ? costs.service[n] : null,
          account: depth > 2 ? costs.account[n] : null,
          provider: service.provider ?? -1,
        });
      }
      level.get(key).amount += costs[choice.cost][n];
      level = level.get(key).inside;
    }
  }
  return { key: "All", amount: figures.months[choice.month], inside: root };
}

/** Return the place that the reader has chosen as the nodes on the way to it; else the largest. */
function placePath(root) {
  const path = [root];
  for (const key of choice.where) {
    const next = path.at(-1).inside.get(key);
    if (!next) break;
    path.push(next);
  }
  if (path.length === 1 && !choice.where.length) {
    for (let depth = 0; depth < 3; depth += 1) {
      const next = ordered(path.at(-1))[0];
      if (next) path.push(next);
    }
  }
  return path;
}

const ordered = (node) => [...node.inside.values()].sort((a, b) => compare(b.amount, a.amount));

function treeFigure(figures) {
  const root = placeTree(figures);
  const path = placePath(root);
  const least = drawn(root.amount > 0n ? root.amount : 0n) * 0.03;
  const cell = (node, where, depth) => {
    const inside = depth < 3 ? ordered(node).filter(({ amount }) => amount > 0n) : [];
    const common = { name: node.key, text: money(node.amount), where };
    if (depth === 3) return { ...common, value: drawn(node.amount) };
    const small = depth === 1 ? inside.filter(({ amount }) => drawn(amount) < least) : [];
    const large = inside.filter((child) => small.length < 2 || !small.includes(child));
    const children = large.map((child) => cell(child, [...where, child.key], depth + 1));
    if (small.length > 1) {
      children.push({
        name: "Other categories",
        text: money(total(small.map((c) => c.amount))),
        where,
        children: small.flatMap((c) =>
          ordered(c)
            .filter(({ amount }) => amount > 0n)
            .map((s) => cell(s, [...where, c.key, s.key], 3)),
        ),
      });
    }
    return { ...common, children };
  };
  const data = {
    name: "All",
    children: ordered(root)
      .filter(({ amount }) => amount > 0n)
      .map((node) => ({ ...cell(node, [node.key], 1), colour: providerColour(node.provider) })),
  };
  if (!data.children.length) return el("p", { class: "note" }, "No cost above zero to draw.");
  const chosen = path
    .slice(1, 4)
    .map(({ key }) => key)
    .join("\n");
  const makeTable = () => {
    const lines = ordered(root).flatMap((p) =>
      ordered(p).flatMap((c) =>
        ordered(c).map((s) => [nameCell(s.key, `${p.key}, ${c.key}`), money(s.amount)]),
      ),
    );
    return table(
      "Cost by service",
      [
        ["Service, provider, category", "text grows"],
        [shortMonth(choice.month), "money"],
      ],
      [...lines, as("total", ["Total", money(root.amount)])],
    );
  };
  const below = figures.rows.some(
    (n) => bill.costs.month[n] === choice.month && bill.costs[choice.cost][n] < 0n,
  );
  return figure(
    `${monthName(choice.month)}: provider, category, service (area = ${choice.cost} cost)`,
    "Cost by provider, category and service; each cell leads to its accounts",
    (width) => treeChart(width, data, (node) => node.data.where.join("\n") === chosen),
    { table: makeTable, under: below ? "Lines below zero have no area; they are in the tables." : null },
  );
}

function placeTable(figures) {
  const path = placePath(placeTree(figures));
  const place = path.at(-1);
  const where = path.slice(1).map(({ key }) => key);
  const heads = ["Provider", "Category", "Service", "Account", "Resource"];
  const captions = ["Providers", "Categories", "Services", "Accounts", "Resources"];
  const label = (node) =>
    node.account === null || node.account === undefined ? node.key : accountName(node.account);
  const crumbs = el(
    "nav",
    { class: "crumbs", "aria-label": "Place in the bill" },
    path.map((node, depth) => [
      depth ? el("span", { class: "second", "aria-hidden": "true" }, " \u203a ") : null,
      depth === path.length - 1
        ? el("b", { "aria-current": "true" }, el("bdi", {}, label(node)))
        : link(label(node), { where: depth ? where.slice(0, depth) : [""] }, `crumb-${depth}`),
    ]),
  );
  const lines = place.inside.size
    ? ordered(place).map((node) => ({
        name: link(label(node), { where: [...where, node.key] }, `into-${label(node)}`),
        amount: node.amount,
      }))
    : resourcesOf(place);
  if (!lines) {
    return [
      crumbs,
      el(
        "p",
        { class: "note" },
        `Resources are kept for ${monthAndYear(bill.month)} and the month before it.`,
      ),
    ];
  }
  const [first, others] = cut(lines, 9);
  const share = (amount) => percent(perMille(amount, place.amount));
  const rows = first.map(({ name, amount }) => [name, money(amount), share(amount)]);
  const rest = place.amount - total(first.map(({ amount }) => amount));
  if (others.length || rest !== 0n) {
    rows.push(as("other", [others.length ? `Other (${others.length})` : "Other", money(rest), share(rest)]));
  }
  rows.push(as("total", [nameCell(label(place)), money(place.amount), share(place.amount)]));
  return [
    crumbs,
    table(
      `${captions[path.length - 1]} of ${label(place)}`,
      [
        [heads[path.length - 1], "text grows"],
        [shortMonth(choice.month), "money"],
        ["Share", "money"],
      ],
      rows,
      { class: "unseen-caption" },
    ),
  ];
}

/** Return the resources of an account's service, or null where the month's are not in the page. */
function resourcesOf({ account, service }) {
  const { resources } = bill;
  if (!resources.month.includes(choice.month)) return null;
  return chosenRows(resources, choice.month)
    .filter(
      (n) => accountKey(resources.account[n]) === accountKey(account) && resources.service[n] === service,
    )
    .map((n) => ({
      name: stacked(
        named(shortId(resources.resource[n])),
        resources.detail[n] ? named(resources.detail[n]) : null,
        "second",
        named(resources.resource[n]),
      ),
      amount: resources[choice.cost][n],
    }))
    .sort((a, b) => compare(b.amount, a.amount));
}

/** Return a name with a second line; `whole` is shown when the name is pointed at. */
function stacked(name, second, kind = "second", whole = name) {
  return el(
    "span",
    { class: "stacked" },
    el("bdi", { class: "name", title: whole }, name),
    second ? el("bdi", { class: `name ${kind}`, title: second }, second) : null,
  );
}
