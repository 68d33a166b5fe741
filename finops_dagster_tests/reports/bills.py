"""Invented bills for the page: every table adds up to the same totals, as a real bill does."""

import calendar
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SCALE = 10
# Provider, category, and what it is used for. The first of a provider are used by every account.
SERVICES = (
    ("AWS", "AmazonEC2", "Compute", "Usage", 3200),
    ("AWS", "Amazon RDS", "Databases", "Usage", 1500),
    ("AWS", "Amazon S3", "Storage", "Usage", 1100),
    ("AWS", "Amazon CloudFront", "Networking", "Usage", 700),
    ("AWS", "Amazon Redshift", "Analytics", "Usage", 600),
    ("AWS", "Amazon CloudWatch", "Management and Governance", "Usage", 420),
    ("AWS", "Amazon SageMaker", "AI and Machine Learning", "Usage", 300),
    ("AWS", "Compute Savings Plan", "Compute", "Purchase", 900),
    ("AWS", "AWS Support", "Other", "Support", 400),
    ("AWS", "AWS Marketplace", "Other", "Marketplace", 260),
    ("AWS", "AWS Tax", "Other", "Tax", 380),
    ("AWS", "AWS Credits", "Other", "Credit", -330),
    ("Azure", "Virtual Machines", "Compute", "Usage", 2600),
    ("Azure", "Azure SQL Database", "Databases", "Usage", 900),
    ("Azure", "Azure Storage", "Storage", "Usage", 600),
    ("Azure", "Azure Databricks", "Analytics", "Usage", 500),
    ("Azure", "Azure Refunds", "Other", "Refund", -60),
)
REGIONS = {
    "AWS": ("eu-west-1", "us-east-1", "eu-central-1", "No region"),
    "Azure": ("westeurope", "northeurope"),
}
ACCOUNTS = (
    ("104829551873", "shop-production", "AWS", "Storefront", "production", "CC-4100"),
    ("318860042217", "data-platform", "AWS", "Data", "production", "CC-4200"),
    ("559203318470", "shared-services", "AWS", "Platform", "production", "CC-4000"),
    ("220417736905", "shop-staging", "AWS", "Storefront", "test", "CC-4100"),
    ("047715290336", "data-sandbox", "AWS", "Data", "sandbox", "CC-4200"),
    ("7c1e52d0-91f4", "crm-production", "Azure", "Sales systems", "production", "CC-4300"),
    ("b35d19aa-c6f2", "legacy-import", "Azure", None, None, None),
    ("e08b6a3f-27cd", "crm-europe", "Azure", "Sales systems", "production", "CC-4310"),
)


@dataclass(frozen=True)
class Shape:
    """How large an invented bill is; the last month is in progress."""

    months: int = 6
    accounts: int = 8
    services: int = len(SERVICES)
    last: str = "2024-02"
    days: int = 16
    seed: int = 7
    per_account: int = 5


def number(amount: int) -> int | str:
    """Return an amount as the document has it, in units of the last of `SCALE` decimals.

    It is text if a double would lose digits.
    """
    return amount if abs(amount) < 2**53 else str(amount)


def decimal(amount: int) -> str:
    """Return an amount in units of the last decimal as text with all `SCALE` decimals."""
    sign, digits = "-" if amount < 0 else "", str(abs(amount)).rjust(SCALE + 1, "0")
    return f"{sign}{digits[:-SCALE]}.{digits[-SCALE:]}"


def invented_bill(shape: Shape | None = None) -> dict[str, Any]:
    """Return a bill document whose every table is a sum of the same cells."""
    return _Bill(shape or Shape()).document()


def _months(shape: Shape) -> list[str]:
    year, month = map(int, shape.last.split("-"))
    count = year * 12 + month - 1
    return [f"{n // 12}-{n % 12 + 1:02}" for n in range(count - shape.months + 1, count + 1)]


def _table(names: str, rows: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
    columns = list(zip(*rows, strict=True)) or [()] * len(names.split())
    return {name: list(column) for name, column in zip(names.split(), columns, strict=True)}


class _Bill:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.random = random.Random(shape.seed)
        self.months = _months(shape)
        self.accounts = self._accounts()
        self.owners = sorted({a[3] for a in self.accounts if a[3]})
        self.services = self._services()
        self.regions = [(r, p) for p, names in REGIONS.items() for r in names]
        self.cells = list(self._cells())

    def _accounts(self) -> list[tuple[Any, ...]]:
        accounts = list(ACCOUNTS[: self.shape.accounts])
        for n in range(len(accounts), self.shape.accounts):
            provider = "AWS" if n % 3 else "Azure"
            owner = f"Team {n % 17}" if n % 11 else None
            accounts.append((f"9{n:011}", f"team-{n % 17}-{n}", provider, owner, "production", ""))
        return accounts

    def _services(self) -> list[tuple[Any, ...]]:
        more = [
            ("AWS" if n % 3 else "Azure", f"Service {n}", SERVICES[n % 7][2], "Usage", 90 + n)
            for n in range(len(SERVICES), self.shape.services)
        ]
        return [*SERVICES[: self.shape.services], *more]

    def _used(self, provider: str) -> list[int]:
        own = [s for s, service in enumerate(self.services) if service[0] == provider]
        few = min(len(own), self.shape.per_account)
        return sorted({own[0], *self.random.sample(own, few)})

    def _cells(self) -> Iterable[tuple[Any, ...]]:
        """Yield (month, currency, account, service, region, billed, effective)."""
        for a, account in enumerate(self.accounts):
            currency = 1 if account[1] == "crm-europe" else 0
            for s in self._used(account[2]):
                regions = [r for r, region in enumerate(self.regions) if region[1] == account[2]]
                region = self.random.choice(regions)
                size = self.services[s][4] * self.random.uniform(0.05, 1.2)
                first = self.random.choice([0] * 8 + [len(self.months) - 2])
                gone = self.random.choice([99] * 9 + [len(self.months) - 2])
                for m in range(len(self.months)):
                    if first <= m < gone:
                        yield self._cell(m, currency, a, s, region, size)

    def _cell(self, m: int, currency: int, a: int, s: int, region: int, size: float) -> Any:
        part = self.shape.days / 29 if m == len(self.months) - 1 else 1
        growth = (1.02**m) * self.random.uniform(0.94, 1.08)
        billed = int(size * growth * part * 10**SCALE) + self.random.randrange(10**6)
        kind = self.services[s][3]
        effective = 0 if kind == "Purchase" else billed
        if self.services[s][2] == "Compute" and kind == "Usage":
            effective = billed * 11 // 10
        return m, currency, a, s, region, billed, effective

    def _sum(self, names: str, key: Any) -> dict[str, list[Any]]:
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for cell in self.cells:
            total = sums[key(cell)]
            total[0] += cell[5]
            total[1] += cell[6]
        rows = [(*k, number(b), number(e)) for k, (b, e) in sorted(sums.items())]
        return _table(f"{names} billed effective", rows)

    def _days(self) -> dict[str, list[Any]]:
        rows = []
        totals = self._sum("month currency account", lambda c: c[:3])
        for m, currency, a, billed, effective in zip(*totals.values(), strict=True):
            if m < len(self.months) - 3:
                continue
            year, month = map(int, self.months[m].split("-"))
            last = m == len(self.months) - 1
            days = self.shape.days if last else calendar.monthrange(year, month)[1]
            for day in range(1, days + 1):
                share = [
                    int(x) // days + (int(x) % days if day == days else 0)
                    for x in (billed, effective)
                ]
                rows.append((m, currency, a, day, *map(number, share)))
        return _table("month currency account day billed effective", rows)

    def _savings(self) -> dict[str, list[Any]]:
        usage: dict[tuple[Any, ...], int] = defaultdict(int)
        for cell in self.cells:
            if self.services[cell[3]][3] == "Usage":
                usage[cell[:3]] += cell[6]
        rows = [
            (*k, number(e * 125 // 100), number(e * 118 // 100), number(e))
            for k, e in sorted(usage.items())
        ]
        return _table("month currency account list contracted effective", rows)

    def _tags(self) -> dict[str, list[Any]]:
        savings = self._savings()
        rows = []
        for m, c, a, *_, effective in zip(*savings.values(), strict=True):
            untagged = int(effective) * (79 if self.accounts[a][3] is None else 6) // 100
            rows.append((m, c, a, number(int(effective) - untagged), number(untagged)))
        return _table("month currency account tagged untagged", rows)

    def _commitments(self) -> dict[str, list[Any]]:
        kept = (
            ("sp-1f3a", "Savings Plan", 2200, 90, "2024-06-30"),
            ("ri-77c0", "Reservation", 590, 83, "2024-03-02"),
            ("ri-08ee", "Reservation", 810, 0, None),
        )
        unit = 10**SCALE
        rows = [
            (
                m,
                0,
                i % min(3, len(self.accounts)),
                name,
                kind,
                number(used * unit + m * 7),
                number(unused * unit),
                ends,
            )
            for m in range(len(self.months))
            for i, (name, kind, used, unused, ends) in enumerate(kept)
        ]
        return _table("month currency account id type used unused ends", rows)

    def _resources(self) -> dict[str, list[Any]]:
        first = max(len(self.months) - 3, 0)
        cells = [c for c in self.cells if first <= c[0] < max(len(self.months) - 1, 1)]
        rows = []
        for m, currency, a, s, _, billed, effective in sorted(cells, key=lambda c: -c[5])[:600]:
            for n, share in enumerate((40, 21, 9)):
                name = f"{self.services[s][1].split()[-1].lower()}-{a:02}{s:02}{n}"
                rows.append(
                    (
                        m,
                        currency,
                        a,
                        s,
                        name,
                        "m6i.xlarge" if n else "",
                        number(billed * share // 100),
                        number(effective * share // 100),
                    )
                )
        return _table("month currency account service resource detail billed effective", rows)

    def _restatements(self) -> list[dict[str, Any]]:
        if len(self.months) < 3:
            return []
        month = len(self.months) - 3
        sums: dict[tuple[int, int], int] = defaultdict(int)
        for m, currency, a, s, _, billed, _ in self.cells:
            if m == month and currency == 0 and self.accounts[a][2] == "AWS":
                sums[s, a] += billed
        rows = [
            (s, a, number(after * (97 + n % 5) // 100), number(after))
            for n, ((s, a), after) in enumerate(sorted(sums.items()))
            if n % 5 != 3 and n < 9
        ]
        changed = sum(int(after) - int(before) for _, _, before, after in rows)
        after = sum(sums.values())
        return [{
            "export": "aws-main", "month": month, "restated_at": "2024-02-14T05:00:12Z",
            "late": True,
            "currency": 0, "before": number(after - changed), "after": number(after),
            "from": "20240108T050640Z", "to": "20240214T045101Z",
            "by_service": _table("service account before after", rows),
        }]  # fmt: skip

    def _versions(self) -> list[dict[str, Any]]:
        versions = []
        for m, month in enumerate(self.months):
            for export, vendor, provider in (
                ("aws-main", "aws", "AWS"),
                ("azure-main", "azure", "Azure"),
            ):
                totals: dict[str, int] = defaultdict(int)
                rows = 0
                for cell in self.cells:
                    if cell[0] == m and self.accounts[cell[2]][2] == provider:
                        totals[("USD", "EUR")[cell[1]]] += cell[5]
                        rows += 11
                versions.append(
                    {
                        "export": export,
                        "vendor": vendor,
                        "month": m,
                        "version": f"{month.replace('-', '')}28T045101Z",
                        "rows": rows,
                        "charges": rows,
                        "loaded_at": f"{month}-28T05:12:30Z",
                        "state": self._state(m, provider),
                        "final": m < len(self.months) - 1,
                        "totals": {c: decimal(t) for c, t in totals.items()},
                        "equal": True,
                    }
                )
        return versions

    def _state(self, m: int, provider: str = "AWS") -> str:
        if m == len(self.months) - 1:
            return "in progress"
        return "restated" if m == len(self.months) - 3 and provider == "AWS" else "final"

    def _tag_keys(self) -> dict[str, list[Any]]:
        month, tags = max(len(self.months) - 2, 0), self._tags()
        of_tags = [tags[name] for name in ("month", "currency", "account", "tagged")]
        rows = [
            (currency, account, key, number(int(tagged) // part))
            for key, part in (("application", 2), ("team", 1))
            for m, currency, account, tagged in zip(*of_tags, strict=True)
            if m == month
        ]
        return _table("currency account key tagged", rows)

    def _untagged(self) -> dict[str, list[Any]]:
        month = max(len(self.months) - 2, 0)
        cells = sorted((c for c in self.cells if c[0] == month), key=lambda c: -c[6])
        rows = [
            (a, s, f"untagged-{n}", number(e // 9), currency)
            for n, (_, currency, a, s, _, _, e) in enumerate(cells[:20])
        ]
        return _table("account service resource effective currency", rows)

    def document(self) -> dict[str, Any]:
        shown = max(len(self.months) - 2, 0)
        spent = sum(c[5] for c in self.cells if c[0] == shown and c[1] == 0)
        unit = 10**SCALE
        kinds = [service[3] for service in self.services]
        categories = sorted({s[2] for s in self.services})
        providers = ["AWS", "Azure"]
        return {
            "project": "Northwind Stores", "made_at": "2024-02-17T05:12:00Z", "scale": SCALE,
            "currencies": ["USD", "EUR"], "months": self.months, "month": shown,
            "providers": providers, "categories": categories, "owners": self.owners,
            "accounts": [
                {"id": i, "name": name, "provider": providers.index(p),
                 "owner": None if owner is None else self.owners.index(owner),
                 "environment": env, "cost_centre": centre, "listed": owner is not None}
                for i, name, p, owner, env, centre in self.accounts],
            "services": [{"name": name, "provider": providers.index(p),
                          "category": categories.index(category)}
                         for p, name, category, _, _ in self.services],
            "regions": [{"name": r, "provider": providers.index(p)} for r, p in self.regions],
            "costs": self._sum("month currency account service", lambda c: c[:4]),
            "region_costs": self._sum("month currency account region",
                                      lambda c: (*c[:3], c[4])),
            "day_costs": self._days(),
            "kinds": self._sum("month currency account kind", lambda c: (*c[:3], kinds[c[3]])),
            "savings": self._savings(), "commitments": self._commitments(), "tags": self._tags(),
            "tag_keys": self._tag_keys(),
            "untagged_resources": self._untagged(), "resources": self._resources(),
            "restatements": self._restatements(), "versions": self._versions(),
            "month_states": [self._state(m) for m in range(len(self.months))],
            "budgets": [
                {"name": "Everything", "currency": 0, "month": shown,
                 "amount": number(spent * 9 // 10), "spent": number(spent), "filter": ""},
                {"name": "Data", "currency": 0, "month": shown, "amount": number(5000 * unit),
                 "spent": number(3210 * unit), "filter": "owner = Data"}],
            "anomalies": [
                {"day": f"{self.months[shown]}-14", "currency": 0, "service": 0, "account": 0,
                 "cost": number(412 * unit), "expected": number(120 * unit), "kind": "spike"}],
            "left_out": {"accounts": 0, "services": 0, "regions": 0, "resources": 0},
        }  # fmt: skip
