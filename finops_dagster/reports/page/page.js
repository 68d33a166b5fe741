/* The page: read the document, then draw every panel anew for each choice. */

/** Draw the patterns of months in progress, one a series. */
function drawPatterns() {
  const defs = d3.select("#patterns");
  SERIES.forEach((colour, s) => {
    const pattern = defs
      .append("pattern")
      .attr("id", `hatch-${s + 1}`)
      .attr("width", 5)
      .attr("height", 5)
      .attr("patternUnits", "userSpaceOnUse")
      .attr("patternTransform", "rotate(45)");
    pattern.append("line").attr("y2", 5).attr("stroke-width", 4).style("stroke", colour);
  });
}

function drawHead() {
  const exports = new Set(bill.versions.map((version) => version.export)).size;
  document.getElementById("project").textContent = named(bill.project);
  const made = bill.made_at
    ? [`Made ${dayText(bill.made_at, true)}, ${bill.made_at.slice(11, 16)} UTC`, el("br")]
    : [];
  document
    .getElementById("made")
    .replaceChildren(
      ...made,
      `${counted(exports, "export")}, ${counted(
        bill.months.length,
        "month",
      )}${bill.currencies.length ? `, amounts in ${currencyName()}` : ""}`,
    );
  document.getElementById("foot").textContent =
    "Drawn with d3 and Observable Plot (ISC licence), set in Inter (SIL Open Font License).";
  document.title = `Cloud bill, ${named(bill.project, 60)}`;
}

/** Draw all panels for the choice that the address holds. */
function drawPage() {
  readChoice();
  const kept = document.activeElement?.dataset?.keep;
  drawHead();
  document.getElementById("panels").replaceChildren();
  document.getElementById("filters").replaceChildren(...filters());
  document.getElementById("selection").textContent = choiceText();
  if (choice.month < 0) {
    panel("How much", "No charges yet", "As soon as a month is loaded, its charges are here.");
    return;
  }
  drawPanels();
  drawCharts();
  if (kept) document.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus({ preventScroll: true });
}

function drawPanels() {
  const figures = readFigures();
  howMuchPanel(figures);
  wherePanel(figures);
  movedPanel(figures);
  budgetsPanel();
  anomaliesPanel();
  restatedPanel();
  savedPanel();
  whoPaysPanel(figures);
  notUsagePanel();
  exactPanel();
  document.getElementById("announcement").textContent =
    `${choiceText()} ${monthAndYear(choice.month)}: ${money(figures.months[choice.month])} ${currencyName()}.`;
}

/** Draw all charts anew; all are measured first, as each drawing changes the layout. */
function drawCharts() {
  const charts = [...document.querySelectorAll("figure.chart")].filter((chart) => chart.draw);
  const widths = charts.map((chart) => chart.width());
  charts.forEach((chart, n) => {
    if (widths[n] > 0) chart.draw(widths[n]);
  });
}

/** Lay the page out for paper while it is printed, so that charts are drawn for its width. */
function printed(isPaper) {
  document.documentElement.classList.toggle("paper", isPaper);
  drawCharts();
}

async function openBill() {
  readBill(await unpacked("bill"));
  drawPatterns();
  drawPage();
  document.documentElement.dataset.ready = "true";
  window.addEventListener("hashchange", () => {
    drawPage();
    document.documentElement.dataset.address = location.hash;
  });
  window.addEventListener("beforeprint", () => printed(true));
  window.addEventListener("afterprint", () => printed(false));
  let width = document.documentElement.clientWidth;
  new ResizeObserver(() => {
    if (document.documentElement.clientWidth !== width) drawCharts();
    width = document.documentElement.clientWidth;
  }).observe(document.documentElement);
  document.fonts?.ready.then(drawCharts);
}

openBill().catch((error) => {
  document.getElementById("panels").textContent = `The bill cannot be shown: ${error.message}`;
  throw error;
});
