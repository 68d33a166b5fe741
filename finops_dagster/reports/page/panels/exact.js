/* Is it exact: what was loaded, with all digits, to compare with the vendor's files. */

function exactPanel() {
  const versions = [...bill.versions].sort((a, b) => b.month - a.month || compare(a.export, b.export));
  panel(
    "Is it exact",
    exactSentence(versions),
    versions.length
      ? "Whole files, whatever the filters: sums keep all digits that the vendor writes. The tables above show them to the cent, so a column may differ from its total by one."
      : null,
    versions.length ? row(part(12, exactTable(versions.filter(isOfCurrency)))) : null,
    versions.length ? exactLine(versions) : null,
  );
}

function exactSentence(versions) {
  const count = (equal) => versions.filter((version) => version.equal === equal).length;
  const loads = counted(versions.length, "load");
  if (!versions.length) return "No load is recorded for these months";
  if (count(false))
    return `${count(false)} of ${loads} ${count(false) === 1 ? "differs" : "differ"} from the vendors' files`;
  if (count(null)) return `${count(true)} of ${loads} were compared with the vendors' files, and equal them`;
  return "Every month equals the vendors' files to the last digit";
}

function exactTotal(text) {
  if (text === undefined) return DASH;
  const [, sign, whole, rest] = /^(-?)(\d+)(?:\.(\d*))?$/.exec(text) ?? [null, "", text, ""];
  const digits = (rest ?? "").padEnd(2, "0");
  return el(
    "span",
    { class: "exact" },
    `${sign ? MINUS : ""}${grouped(whole)}.${digits.slice(0, 2)}`,
    el("span", { class: "second" }, digits.slice(2)),
  );
}

const equalText = (equal) =>
  equal === true
    ? el("span", { class: "fall" }, "\u2713 equal")
    : equal === false
      ? el("b", { class: "rise" }, "differs")
      : "not compared";

/** Return a version's state; a restated one is either final again or still open. */
const versionState = (version) =>
  version.state === "restated"
    ? el("div", {}, stateCell(version.state), el("small", {}, finalText([version])))
    : stateCell(version.state);

function exactTable(versions) {
  const currency = bill.currencies[choice.currency];
  let before = null;
  const rows = versions.map((version) => {
    const isNew = version.month !== before;
    before = version.month;
    const kind = `${version.month === choice.month ? "chosen" : ""} ${isNew ? "" : "same"}`.trim();
    return as(kind || null, [
      el("span", isNew ? {} : { class: "unseen" }, `${shortMonth(version.month)} ${year(version.month)}`),
      versionState(version),
      nameCell(named(version.export), named(version.vendor)),
      nameCell(named(version.version)),
      loadedText(version.loaded_at),
      rowsText(version),
      exactTotal(version.totals[currency]),
      equalText(version.equal),
    ]);
  });
  return table(
    `Loaded versions, totals in ${currencyName()}`,
    [
      ["Month", "text"],
      ["State", "text wide"],
      ["Export", "text export"],
      ["Version", "text version wide"],
      ["Loaded", "text wide"],
      ["Rows", "money wide"],
      ["Exact total", "money"],
      ["Vendor's files", "text wide last"],
    ],
    rows,
    { class: "exact-table" },
  );
}

/** Tell whether a version has the chosen currency, or something that is to be seen in any. */
const isOfCurrency = ({ totals, equal }) =>
  equal !== true || totals[bill.currencies[choice.currency]] !== undefined;
const rowsText = ({ rows }) => (rows === null ? DASH : grouped(String(rows)));
const loadedText = (moment) =>
  moment
    ? `${dayText(moment).replace(/([A-Z][a-z]{2})[a-z]*/, "$1")} ${moment.slice(0, 4)}, ${moment.slice(11, 16)}`
    : DASH;

/** Return the last line of the page, to compare with the vendor's files. */
function exactLine(versions) {
  const some = versions.filter(({ month }) => month === choice.month);
  const currency = bill.currencies[choice.currency];
  return el(
    "div",
    { class: "exact-lines" },
    some
      .filter(({ totals }) => totals[currency] !== undefined)
      .map((version) =>
        el(
          "p",
          {},
          mark(version.state),
          ` ${monthAndYear(version.month)} \u00b7 `,
          el("bdi", {}, named(version.export)),
          ` \u00b7 `,
          el("b", {}, `${rowsText(version)} rows`),
          " \u00b7 ",
          el("b", {}, exactTotal(version.totals[currency]), ` ${currencyName()}`),
          " \u00b7 version ",
          el("bdi", {}, named(version.version)),
          version.equal
            ? " \u00b7 equals the vendor's files"
            : version.equal === false
              ? " \u00b7 differs from the vendor's files"
              : "",
        ),
      ),
  );
}
