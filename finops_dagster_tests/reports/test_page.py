"""The page of a bill: what it shows is the document's figures, and nothing in a bill breaks it."""

import re
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from finops_dagster.reports.document import TABLES, empty_document
from finops_dagster.reports.page import page_html
from finops_dagster_tests.reports.bills import Shape, invented_bill
from finops_dagster_tests.reports.browser import (
    Opener,
    chromium,
    go,
    rows,
    small_bill,
    wait_for_choice,
)
from finops_dagster_tests.reports.months import Months, charge

Bill = dict[str, Any]
HOSTILE = (
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "\u05d7\u05e9\u05d1\u05d5\u05df \u202eexe.gpj",
    "\U0001f4b8\U0001f468\u200d\U0001f469\u200d\U0001f467 costs & \"more\" 'yet' ${x} `y` {{z}}",
    "long " * 60,
    "zero\x00one\nline\ttab",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_bill(browser: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Open bills as pages; none may complain in the console, or ask for anything."""
    opener = Opener(browser, tmp_path)
    yield opener
    for context in browser.contexts:
        context.close()
    assert opener.complaints == []


def money(bill: Bill, amount: int) -> str:
    exact = Decimal(amount).scaleb(-bill["scale"])
    text = f"{exact.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    return text.replace("-", "\u2212") if text.strip("-0.") else "0.00"


def cost(
    bill: Bill, month: str, where: Callable[[Bill], bool] = lambda _: True, **choice: Any
) -> int:
    """Return the exact cost of a month: of accounts, services, a currency, billed or effective."""
    table = bill[choice.get("table", "costs")]
    found = 0
    for n, m in enumerate(table["month"]):
        row = {name: column[n] for name, column in table.items()}
        if bill["months"][m] == month and row["currency"] == choice.get("currency", 0):
            account = bill["accounts"][row["account"]]
            if where({**row, **account, "account": row["account"]}):
                found += int(row[choice.get("column", "billed")])
    return found


def shown(page: Page) -> str:
    return page.inner_text(".number .amount")


def titles(page: Page) -> dict[str, str]:
    """Return the sentences of the panels by their topics."""
    return {
        panel.query_selector(".topic").inner_text().split(" ", 1)[1].strip(): panel.query_selector(  # type: ignore[union-attr]
            "h2"
        ).inner_text()  # type: ignore[union-attr]
        for panel in page.query_selector_all(".panel")
    }


# What needs no browser.


def test_the_tables_of_the_small_bill_add_up_to_the_same_months() -> None:
    bill = small_bill()
    for month in bill["months"]:
        for column in ("billed", "effective"):
            sums = {
                table: cost(bill, month, table=table, column=column)
                for table in ("costs", "region_costs", "kinds")
            }
            assert len(set(sums.values())) == 1, sums


def test_the_small_bill_has_the_form_of_a_document() -> None:
    bill, empty = small_bill(), empty_document()
    assert bill.keys() == empty.keys()
    for table, columns in TABLES.items():
        assert bill[table].keys() == set(columns)


def test_a_page_is_one_file_that_names_no_other() -> None:
    html = page_html(small_bill())
    assert len(html) < 400_000
    assert not re.search(r'(src|href|action)=|url\((?!"data:)|@import', html.split("<body>")[0])
    assert "default-src 'none'" in html


def test_a_name_cannot_become_markup() -> None:
    bill = small_bill()
    bill["accounts"][0]["name"] = HOSTILE[1]
    assert "hacked" not in page_html(bill)


def test_the_same_bill_gives_the_same_page() -> None:
    assert page_html(small_bill()) == page_html(small_bill())


# What the browser shows.


@pytest.mark.thorough
def test_every_panel_is_drawn(open_bill: Opener) -> None:
    page = open_bill(small_bill())
    assert list(titles(page)) == [
        "How much", "Where", "What moved", "Budgets", "Unusual days", "What was restated",
        "What was saved", "Who pays", "What is not usage", "Is it exact",
    ]  # fmt: skip
    charts = page.query_selector_all("figure .drawing")
    assert len(charts) >= 12
    for chart in charts:
        svg = chart.query_selector("svg")
        assert svg is not None
        assert svg.get_attribute("aria-label")
        assert svg.query_selector("path, rect")


@pytest.mark.thorough
def test_every_chart_has_its_table(open_bill: Opener) -> None:
    page = open_bill(small_bill())
    for button in page.query_selector_all("figcaption button[aria-expanded]"):
        assert button.get_attribute("aria-expanded") == "false"
        button.click()
        assert button.get_attribute("aria-expanded") == "true"
    without = page.evaluate(
        """() => [...document.querySelectorAll("figure.chart")].filter((figure) =>
          !figure.querySelector("table") && !figure.closest(".multiples")).length"""
    )
    assert without == 0


FILTERS: list[tuple[str, Callable[[Bill], bool], dict[str, Any]]] = [
    ("", lambda _: True, {}),
    ("#provider=Azure", lambda row: row["provider"] == 1, {}),
    ("#account=318860042217", lambda row: row["id"] == "318860042217", {}),
    ("#owner=Storefront", lambda row: row["owner"] == 3, {}),
    ("#owner=-", lambda row: row["owner"] is None, {}),
    ("#provider=AWS&owner=Data", lambda row: row["provider"] == 0 and row["owner"] == 0, {}),
    ("#currency=EUR", lambda _: True, {"currency": 1}),
    ("#cost=effective", lambda _: True, {"column": "effective"}),
]


@pytest.mark.thorough
def test_figure_table_and_chart_follow_every_filter(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill)
    seen = set()
    for address, where, choice in FILTERS:
        go(page, address or "#")
        for month in ("2024-01", "2023-11"):
            go(page, f"{address or '#'}&month={month}")
            expected = money(bill, cost(bill, month, where, **choice))
            label = {"2024-01": "Jan 2024", "2023-11": "Nov 2023"}[month]
            column = 3 if choice.get("column") == "effective" else 2
            assert shown(page) == expected
            assert {row[0]: row[column] for row in rows(page, "Months")}[label] == expected
            assert rows(page, "Services")[-1][2] == expected
            assert rows(page, "Accounts")[-1][2] == expected
            assert rows(page, "Regions")[-1][2] == expected
            assert rows(page, "By owner")[-1][3] == expected
            chart = page.get_attribute("figure svg[aria-label*='by month']", "aria-label") or ""
            assert (
                f"{'January 2024' if month == '2024-01' else 'November 2023'} {expected}" in chart
            )
            seen.add(expected)
    assert len(seen) == 2 * len(FILTERS)


@pytest.mark.thorough
def test_rows_are_the_sums_of_their_service_account_and_region(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill)
    for caption, table, column in (
        ("Services", "costs", "service"), ("Accounts", "costs", "account"),
        ("Regions", "region_costs", "region"),
    ):  # fmt: skip
        lines = [row for row in rows(page, caption)[:-1] if not row[0].startswith("Other (")]
        assert lines
        for name, _, amount, _ in lines:
            keys = {n for n, item in enumerate(bill[f"{column}s"]) if item["name"] == name}
            exact = cost(bill, "2024-01", lambda row: row[column] in keys, table=table)  # noqa: B023
            assert amount == money(bill, exact), name


@pytest.mark.thorough
def test_what_moved_is_split_and_adds_up(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill, "#month=2024-01&against=2023-10")
    lines: dict[tuple[int, int], list[int]] = {}
    for n, m in enumerate(bill["costs"]["month"]):
        month = bill["months"][m]
        if bill["costs"]["currency"][n] == 0 and month in ("2024-01", "2023-10"):
            key = (bill["costs"]["service"][n], bill["costs"]["account"][n])
            line = lines.setdefault(key, [0, 0])
            line[month == "2024-01"] += int(bill["costs"]["billed"][n])
    moved = [after - before for before, after in lines.values()]
    rises, falls = sum(m for m in moved if m > 0), -sum(m for m in moved if m < 0)
    sentence = f"Rises of {money(bill, rises)} against falls of {money(bill, falls)}"
    assert titles(page)["What moved"] == sentence
    page.click("button[aria-label^='Table: From October']")
    steps = {row[0]: row[1:] for row in rows(page, "Steps")}
    assert steps["New"][0] == str(sum(before == 0 for before, _ in lines.values()))
    assert steps["Gone"][0] == str(sum(after == 0 for _, after in lines.values()))
    assert steps["Net"][1].lstrip("+") == money(bill, rises - falls)


@pytest.mark.thorough
def test_a_reader_filters_with_the_controls_and_finds_the_choice_in_the_address(
    open_bill: Opener,
) -> None:
    bill = small_bill()
    page = open_bill(bill)
    page.select_option("#filter-provider", "AWS")
    page.select_option("#filter-month", "2023-12")
    page.get_by_role("button", name="Effective", exact=True).click()
    aws = cost(bill, "2023-12", lambda row: row["provider"] == 0, column="effective")
    wait_for_choice(page, "cost=effective")
    assert shown(page) == money(bill, aws)
    again = open_bill(bill, page.evaluate("location.hash"))
    assert shown(again) == money(bill, aws)
    assert again.input_value("#filter-provider") == "AWS"
    again.get_by_role("link", name="Clear").click()
    again.wait_for_function("document.querySelector('#filter-provider').value === ''")
    assert shown(again) == money(bill, cost(bill, "2024-01"))


@pytest.mark.thorough
def test_a_reader_drills_from_the_provider_to_a_resource(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill, "#where=")
    path = [("AWS", "Category"), ("Compute", "Service"), ("AmazonEC2", "Account"),
            ("shop-production", "Resource")]  # fmt: skip
    for name, head in path:
        page.locator(".where table.unseen-caption").get_by_role("link", name=name).click()
        page.wait_for_function(
            "(head) => document.querySelector('.where .unseen-caption th').textContent === head",
            arg=head,
        )
    lines = page.locator(".where table.unseen-caption tbody tr").all_inner_texts()
    exact = cost(bill, "2024-01", lambda row: row["account"] == 0 and row["service"] == 0)
    assert lines[-1].split("\t")[1] == money(bill, exact)
    assert len(lines) > 2


@pytest.mark.thorough
def test_the_keyboard_is_enough(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_choice(page, "cost=effective")
    assert shown(page) == money(bill, cost(bill, "2024-01", column="effective"))
    assert page.evaluate("document.activeElement.textContent") == "Effective"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    wait_for_choice(page, "month=")
    assert page.evaluate("document.activeElement.id") == "filter-month"
    page.focus("figure svg a")
    page.keyboard.press("Enter")
    wait_for_choice(page, "where=")


@pytest.mark.thorough
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_hostile_names_are_text(open_bill: Opener, width: int) -> None:
    bill = small_bill()
    for n, name in enumerate(HOSTILE):
        for table in ("accounts", "services", "regions"):
            bill[table][n % len(bill[table])]["name"] = name
        for names in ("owners", "providers", "categories"):
            if n < len(bill[names]):
                bill[names][n] = name
    for version in bill["versions"]:
        version |= {"export": HOSTILE[0] + version["export"], "version": HOSTILE[4]}
    bill["restatements"][0] |= {"export": bill["versions"][0]["export"], "from": HOSTILE[1]}
    bill["resources"]["resource"] = [HOSTILE[n % 6] for n in range(len(bill["resources"]["month"]))]
    bill["budgets"][0]["name"] = HOSTILE[3]
    bill["services"][3]["category"] = None
    bill["project"] = HOSTILE[1]
    page = open_bill(bill, width=width)
    text = page.inner_text("body")
    assert HOSTILE[0] in text
    assert HOSTILE[3] in text
    assert page.query_selector("img, body script script") is None
    assert "hacked" not in page.title().replace(HOSTILE[1][:40], "")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "\u202e" not in text


@pytest.mark.thorough
def test_a_bill_without_a_month_says_so(open_bill: Opener) -> None:
    page = open_bill(empty_document())
    assert titles(page) == {"How much": "No charges yet"}


@pytest.mark.thorough
def test_a_selection_without_charges_says_so(open_bill: Opener) -> None:
    page = open_bill(small_bill(), "#provider=Azure&owner=Data")
    assert shown(page) == "0.00"
    assert titles(page)["How much"] == "No charges in January for this selection"
    assert titles(page)["Where"] == "Nothing was charged for in January"
    assert titles(page)["What moved"] == "Nothing moved between December and January"


@pytest.mark.thorough
def test_one_month_is_compared_with_none(open_bill: Opener) -> None:
    bill = invented_bill(Shape(months=1))
    bill["month_states"] = ["final"]
    page = open_bill(bill)
    sentences = titles(page)
    total = money(bill, cost(bill, "2024-02"))
    assert shown(page) == total
    bar = page.query_selector("figure [aria-label^='Billed'] rect")
    assert bar is not None
    assert float(bar.get_attribute("width") or 0) > 20
    assert sentences["How much"] == f"February cost {total} USD"
    assert sentences["What moved"] == "There is no month to compare February with"
    assert sentences["What was restated"] == "No month was restated"


@pytest.mark.thorough
def test_equal_months_are_the_same(open_bill: Opener) -> None:
    bill = invented_bill(Shape(months=1))
    for table in ("costs", "region_costs", "day_costs", "kinds", "savings", "commitments", "tags"):
        before = bill[table]
        bill[table] = {
            name: ([0] * len(column) + [1] * len(column)) if name == "month" else column * 2
            for name, column in before.items()
        }
    bill |= {"months": ["2024-01", "2024-02"], "month": 1, "month_states": ["final", "final"]}
    page = open_bill(bill)
    assert titles(page)["How much"] == "February cost the same as January"
    assert titles(page)["What moved"] == "Nothing moved between January and February"


@pytest.mark.thorough
def test_negative_and_zero_months_have_true_sentences(open_bill: Opener) -> None:
    bill = small_bill()
    for table in ("costs", "region_costs", "day_costs", "kinds"):
        for column in ("billed", "effective"):
            bill[table][column] = [
                -int(amount) if month == 4 else 0 if month == 3 else amount
                for month, amount in zip(bill[table]["month"], bill[table][column], strict=True)
            ]
    page = open_bill(bill)
    total = cost(bill, "2024-01")
    assert shown(page) == money(bill, total)
    assert shown(page).startswith("\u2212")
    less = f"January cost {money(bill, -total)} USD less than December"
    assert titles(page)["How much"].startswith(less)
    assert "%" not in titles(page)["How much"]
    assert "%" not in titles(page)["Where"]


def by_day(bill: Bill, month: str, last: int, provider: int | None = None) -> int:
    """Return the billed cost of a month up to a day, in the first currency."""
    return cost(
        bill,
        month,
        lambda row: row["day"] <= last and provider in (None, row["provider"]),
        table="day_costs",
    )


@pytest.mark.thorough
def test_a_month_in_progress_is_not_compared_with_a_whole_one(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill, "#month=2024-02")
    stands = f"February stands at {money(bill, cost(bill, '2024-02'))} USD after 16 days"
    assert titles(page)["How much"].startswith(stands)
    assert "on the same day" in titles(page)["How much"]
    moved = money(bill, cost(bill, "2024-02") - by_day(bill, "2024-01", 16))
    fact = page.inner_text(".headline .fact:nth-of-type(4)")
    assert moved.lstrip("\u2212") in fact
    assert fact.endswith("against January on day 16")
    for panel in ("where", "what-moved", "who-pays", "what-is-not-usage"):
        assert "beside the whole of January" in page.inner_text(f".{panel} .note")
    go(page, "#month=2024-01&against=2024-02")
    assert titles(page)["How much"].startswith(
        f"January cost {money(bill, cost(bill, '2024-01'))} USD, and February runs"
    )


@pytest.mark.thorough
def test_days_that_one_provider_has_not_sent_yet_are_not_compared(open_bill: Opener) -> None:
    bill = small_bill()
    days = bill["day_costs"]
    is_late = [
        bill["months"][month] == "2024-02" and day > 14 and bill["accounts"][account]["provider"]
        for month, account, day in zip(days["month"], days["account"], days["day"], strict=True)
    ]
    bill["day_costs"] = {
        name: [cell for cell, late in zip(column, is_late, strict=True) if not late]
        for name, column in days.items()
    }
    page = open_bill(bill)
    now, before = (by_day(bill, month, 14) for month in ("2024-02", "2024-01"))
    word = "above" if now > before else "below"
    assert page.inner_text(".how-much .note").startswith(
        f"February stands at {money(bill, now)} USD after 14 days, {money(bill, abs(now - before))}"
        f" {word} January on the same day. Days of February after day 14 are left out of it"
    )
    go(page, "#provider=AWS")
    aws = money(bill, by_day(bill, "2024-02", 16, provider=0))
    note = page.inner_text(".how-much .note")
    assert note.startswith(f"February stands at {aws} USD after 16 days")
    assert "left out" not in note


@pytest.mark.thorough
def test_what_does_not_equal_the_vendors_files_is_in_the_sentence(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill)
    assert titles(page)["Is it exact"] == "Every month equals the vendors' files to the last digit"
    exact = next(v for v in bill["versions"] if v["month"] == 4 and v["vendor"] == "aws")
    digits = exact["totals"]["USD"].replace(".", "")
    assert digits in re.sub(r"[,.]", "", page.inner_text(".exact-lines"))
    bill["versions"][0]["equal"] = False
    sentence = titles(open_bill(bill))["Is it exact"]
    assert sentence == f"1 of {len(bill['versions'])} loads differs from the vendors' files"


@pytest.mark.thorough
def test_a_restatement_of_a_closed_month_comes_before_a_load_of_a_month_in_progress(
    open_bill: Opener,
) -> None:
    bill = small_bill()
    closed = bill["restatements"][0]
    daily = {**closed, "month": 5, "restated_at": "2024-02-16T05:00:00Z", "late": False}
    bill["restatements"] = [daily, closed]
    moved = money(bill, int(closed["after"]) - int(closed["before"]))
    page = open_bill(bill)
    assert titles(page)["What was restated"] == (
        f"aws-main raised December by {moved} on 14 February 2024, after it had closed"
    )
    assert f"+{moved}" in page.inner_text(".key-figures small")
    page.get_by_role("link", name="16 February 2024").click()
    wait_for_choice(page, "restatement=0")
    assert titles(page)["What was restated"] == (
        f"aws-main raised February by {moved} on 16 February, before it had closed"
    )


@pytest.mark.thorough
def test_the_page_says_whether_a_restated_month_is_final_now(open_bill: Opener) -> None:
    bill = small_bill()
    for is_final, words in (
        (True, "final now"),
        (False, "not final yet"),
        (None, "unknown whether final"),
    ):
        for version in bill["versions"]:
            version["final"] = is_final
        page = open_bill(bill, "#month=2023-12")
        assert f"on 14 February 2024, {words}" in page.inner_text(".headline")
        restated = [row[1] for row in rows(page, "Loaded versions") if "Restated" in row[1]]
        assert restated == [f"Restated{words}"]


@pytest.mark.thorough
def test_restated_lines_follow_the_filter(open_bill: Opener) -> None:
    bill = small_bill()
    changes = bill["restatements"][0]["by_service"]
    own = [
        int(after) - int(before)
        for account, before, after in zip(
            changes["account"], changes["before"], changes["after"], strict=True
        )
        if bill["accounts"][account]["id"] == "318860042217"
    ]
    page = open_bill(bill, "#account=318860042217")
    change = rows(page, "What version")[-1][3].replace("+", "")
    assert change == money(bill, sum(own))
    go(page, "#provider=Azure")
    assert titles(page)["What was restated"] == "No restatement touches this selection"


@pytest.mark.thorough
def test_who_pays_is_summed_by_owner_and_by_cost_centre(open_bill: Opener) -> None:
    bill = small_bill()
    page = open_bill(bill)
    for choose, caption, name, value in (
        ("By owner", "By owner", "Data", lambda row: row["owner"] == 0),
        (
            "By cost centre",
            "By cost centre",
            "CC-4100",
            lambda row: row["cost_centre"] == "CC-4100",
        ),
        ("By cost centre", "By cost centre", "No cost centre", lambda row: not row["cost_centre"]),
    ):
        page.get_by_role("button", name=choose).click()
        page.wait_for_selector(f"caption:has-text('{caption} and account')")
        lines = {row[0]: row for row in rows(page, caption)}
        assert lines[name][3] == money(bill, cost(bill, "2024-01", value))
        assert lines["Total"][3] == shown(page)


@pytest.mark.thorough
def test_an_account_may_have_several_lines_and_a_line_several_accounts(open_bill: Opener) -> None:
    bill = small_bill()
    first, other = bill["accounts"][0], bill["accounts"][1]
    other |= {"id": first["id"], "name": "shop before the move"}
    bill["accounts"][2] |= {"id": None, "name": "Other (12)"}
    page = open_bill(bill, f"#account={first['id']}")
    both = cost(bill, "2024-01", lambda row: row["account"] in (0, 1))
    assert shown(page) == money(bill, both)
    go(page, "#account=other-2")
    folded = cost(bill, "2024-01", lambda row: row["account"] == 2)
    assert shown(page) == money(bill, folded)


@pytest.mark.thorough
def test_the_sums_are_those_of_a_query(open_bill: Opener, tmp_path: Path) -> None:
    months = Months(tmp_path / "lake")
    for number, month in enumerate(("2025-01", "2025-02", "2025-03")):
        charges = [
            charge(
                f"{(n * 37 + number) % 101}.{n:018}",
                f"{n % 53}.005",
                SubAccountId=f"{n % 7:03}",
                SubAccountName=f"team {n % 7}",
                ServiceName=f"Service {n % 5}",
            )
            for n in range(400)
        ]
        months.write(month, charges)
    page = open_bill(months.document(), "#month=2025-02&against=2025-01")
    query = """
        SELECT {key}, CAST(sum(BilledCost) AS DECIMAL(38, 2))
        FROM read_parquet('{folder}/**/*.parquet') WHERE x_billing_month = DATE '{month}'
        GROUP BY ALL
    """

    def sums(key: str, month: str = "2025-02-01") -> dict[str, str]:
        sql = query.format(key=key, folder=tmp_path / "lake", month=month)
        return {name: f"{amount:,}" for name, amount in duckdb.sql(sql).fetchall()}

    assert {row[0]: row[2] for row in rows(page, "Services")[:-1]} == sums("ServiceName")
    assert {row[0]: row[2] for row in rows(page, "Accounts")[:-1]} == sums("SubAccountName")
    assert shown(page) == sums("'all'")["all"]
    assert rows(page, "Months")[-1][2] == sums("'all'", "2025-01-01")["all"]


@pytest.mark.thorough
def test_amounts_beyond_a_double_are_exact(open_bill: Opener) -> None:
    bill = small_bill()
    bill["costs"]["billed"][-1] = str(9_007_199_254_740_993 * 10 ** bill["scale"] + 3)
    month = bill["months"][bill["costs"]["month"][-1]]
    currency = bill["costs"]["currency"][-1]
    page = open_bill(bill, f"#month={month}&currency={bill['currencies'][currency]}")
    assert shown(page) == money(bill, cost(bill, month, currency=currency))


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_to_mend(open_bill: Opener, scheme: str, width: int) -> None:
    page = open_bill(small_bill(), width=width, scheme=scheme)
    for button in page.query_selector_all("figcaption button[aria-expanded]"):
        button.click()
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found] == []


@pytest.mark.thorough
def test_paper_is_white_and_a4(open_bill: Opener, tmp_path: Path) -> None:
    page = open_bill(small_bill(), scheme="dark")
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert re.search(rb"/MediaBox\s*\[0 0 59[45](\.\d+)? 84[12](\.\d+)?\]", pdf)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 9
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.is_visible("#selection")
    assert "December 2023" in page.inner_text("#selection")


@pytest.mark.thorough
def test_a_large_bill_opens_and_is_exact(open_bill: Opener) -> None:
    bill = invented_bill(Shape(months=13, accounts=300, services=60, per_account=20))
    page = open_bill(bill)
    assert shown(page) == money(bill, cost(bill, "2024-01"))
    go(page, "#account=900000000042")
    only = cost(bill, "2024-01", lambda row: row["id"] == "900000000042")
    assert shown(page) == money(bill, only)
    services = rows(page, "Services")
    assert services[-1][2] == money(bill, only)
