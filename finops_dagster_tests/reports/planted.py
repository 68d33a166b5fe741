"""Invented daily costs of a company, in which unusual days are planted to be found.

A bill has twelve accounts with up to twenty services, thirteen months of days, and what makes real
bills hard to judge: quiet weekends, noise that carries over to the next day, growth, jobs at the
end of each month, fees on the first, services that are used on some days only, holidays, credits,
commitments, regions, a month in progress whose last day is not complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from finops_dagster.reports.daily_costs import DailyCosts, Series

Array = npt.NDArray[np.float64]

DAYS, ACCOUNTS, SERVICES = 396, 12, 20
FACTORS = (1.3, 2.0, 5.0)
KINDS = (
    "spike",
    "step",
    "ramp",
    "new service",
    "new account",
    "region moved",
    "commitment ended",
    "credit ended",
    "price change",
    "vanished service",
    "weekend work",
    "slow leak",
)
# What is planted is worth an alarm: a day that costs twice as much is of a service with at least
# this share of the bill. A change that stays is worth it in smaller services too.
_LARGE, _MEDIUM = 0.012, 0.003


@dataclass(frozen=True)
class Planted:
    """An unusual time of one account, or of one of its services."""

    kind: str
    account: str
    service: str | None
    first_day: date
    last_day: date


@dataclass
class Bill:
    """Daily costs before they are put together: usage, prices, and how the cost is covered."""

    random: np.random.Generator
    first_day: date
    series: list[Series]
    usage: Array  # at the prices of the first day, without commitments
    prices: Array
    covered: Array  # the share of each series that commitments cover
    credited: Array  # the share that is credited
    shares: list[Array]  # of each region, by series
    steady: npt.NDArray[np.bool_]
    parts: Array  # of each series in the bill of an ordinary day, before anything is planted
    planted: list[Planted] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    def cost(self) -> Array:
        return self.usage * self.prices

    def choose(self, least_part: float, parts: Array | None = None) -> int:
        """Choose a series by chance, with at least this part of the bill, and mark it as taken.

        Only steady series that are not taken count. `parts` are the parts of the series, 0 where
        they are not suitable. The largest series is chosen if none is as large.
        """
        parts = (self.parts if parts is None else parts) * self.steady
        parts[list(self.taken)] = 0
        fits = parts >= min(least_part, parts.max())
        number = int(self.random.choice(np.flatnonzero(fits)))
        self.taken.add(number)
        return number

    def choose_day(self, first: int = 120, days_after: int = 21) -> int:
        """Return a random day from `first`, as a number; at least `days_after` days follow it."""
        return int(self.random.integers(first, DAYS - days_after))

    def plant(self, kind: str, number: int, first: int, days: int) -> None:
        """Record that a series is unusual on these days; its costs are changed elsewhere."""
        series, last = self.series[number], min(first + days, DAYS) - 1
        self.planted.append(
            Planted(kind, series.account, series.service, self.day(first), self.day(last))
        )

    def day(self, number: int) -> date:
        return self.first_day + timedelta(days=number)

    def daily_costs(self) -> DailyCosts:
        """Return what the bill's charges add up to, by day."""
        cost = self.cost()
        cost[:, -1] = np.nan  # the last day is not complete
        rows = [
            ((number, f"region-{region}"), share * cost[number])
            for number, shares in enumerate(self.shares)
            for region, share in enumerate(shares)
        ]
        return DailyCosts(
            self.first_day,
            self.series,
            cost,
            self.usage * self._previous_prices() * self._mix(),
            cost * self.covered,
            np.nan_to_num(cost * self.credited),
            [key for key, _ in rows],
            np.array([costs for _, costs in rows]),
        )

    def _previous_prices(self) -> Array:
        months = np.array([self.day(n).year * 12 + self.day(n).month for n in range(DAYS)])
        previous = np.ones_like(self.prices)
        for month in range(months[0] + 1, months[-1] + 1):
            days = months == month - 1
            usage = np.maximum(self.usage[:, days], 1e-9)
            average = (usage * self.prices[:, days]).sum(1) / usage.sum(1)
            previous[:, months == month] = average[:, None]
        return previous

    def _mix(self) -> Array:
        """Return the noise of prices: a tier of a price, or another hour of the day."""
        count = len(self.series)
        noise = np.where(self.random.random(count) < 0.15, self.random.uniform(0, 0.2, count), 0.01)
        return np.exp(self.random.normal(0, 1, self.usage.shape) * noise[:, None])


def bill(seed: int) -> Bill:
    """Return the bill of a seed, in which nothing is planted."""
    random = np.random.default_rng(seed)
    first_day = date(2025, 1, 1) + timedelta(days=int(random.integers(0, 365)))
    days = [first_day + timedelta(days=n) for n in range(DAYS)]
    account_size = random.lognormal(0, 1, ACCOUNTS)
    service_size = random.lognormal(0, 1.3, SERVICES)
    scale = random.lognormal(np.log(50), 1)
    rows = [
        (a, s, account_size[a] * service_size[s] * scale * random.lognormal(0, 0.5))
        for a in range(ACCOUNTS)
        for s in range(SERVICES)
        if random.random() < 0.85
    ]
    series = [Series("USD", "AWS", f"{a:012}", f"account {a}", f"service {s}") for a, s, _ in rows]
    count = len(rows)
    steady = random.random(count) < 0.9
    usage = np.array([size for *_, size in rows])[:, None] * _pattern(random, days, count)
    usage[~steady] *= _some_days(random, int((~steady).sum()))
    sizes = np.median(usage, axis=1)
    return Bill(
        random,
        first_day,
        series,
        usage,
        np.ones((count, DAYS)),
        _constant(random, count, 0.15, 0.4, 0.9),
        _constant(random, count, 0.08, 0.1, 0.5),
        [_region_shares(random) for _ in rows],
        steady,
        sizes / sizes.sum(),
    )


def _pattern(random: np.random.Generator, days: list[date], count: int) -> Array:
    """Return weekdays, growth, noise, holidays and month ends, as factors of the usual cost."""
    kind = random.random(count)
    weekend = np.where(
        kind < 0.4,
        1,
        np.where(kind < 0.7, random.uniform(0.7, 0.95, count), random.uniform(0.15, 0.6, count)),
    )
    free = np.array([d.weekday() >= 5 or (d.month, d.day) in _HOLIDAYS for d in days])
    growth = random.normal(0.01, 0.012, count) + random.normal(0.005, 0.01)
    pattern = np.where(free, weekend[:, None], 1) * (1 + growth[:, None]) ** (
        np.arange(DAYS) / 30.4
    )
    pattern *= np.exp(_noise(random, count))
    pattern *= np.exp(np.cumsum(random.normal(0, 0.003, (count, DAYS)), axis=1))
    month_end = np.array([(d + timedelta(days=1)).day == 1 for d in days])
    month_start = np.array([d.day == 1 for d in days])
    for n in np.flatnonzero(random.random(count) < 0.08):
        pattern[n, month_end] += random.uniform(0.5, 3) * random.lognormal(0, 0.1, month_end.sum())
    for n in np.flatnonzero(random.random(count) < 0.04):
        pattern[n, month_start] += random.uniform(2, 9)
    return pattern


_HOLIDAYS = {*((12, day) for day in range(24, 32)), (1, 1), (1, 2), (1, 3), (5, 1)}


def _noise(random: np.random.Generator, count: int) -> Array:
    """Return noise of 5 to 15 %, for a third of the series carried over to the next day."""
    sigma = random.uniform(0.05, 0.15, count)
    carried = np.where(random.random(count) < 1 / 3, random.uniform(0.2, 0.6, count), 0)
    noise = random.normal(0, 1, (count, DAYS))
    # One series in twenty has bursts, as traffic has.
    bursty = random.random(count) < 0.05
    noise[bursty] = random.standard_t(4, (int(bursty.sum()), DAYS))
    for n in range(1, DAYS):
        noise[:, n] = carried * noise[:, n - 1] + np.sqrt(1 - carried**2) * noise[:, n]
    return noise * sigma[:, None]


def _some_days(random: np.random.Generator, count: int) -> Array:
    """Return factors of services that are used on some days only, and very differently."""
    used = random.random((count, DAYS)) < random.uniform(0.2, 0.8, count)[:, None]
    return used * random.lognormal(0, 0.5, (count, DAYS))


def _constant(
    random: np.random.Generator, count: int, frequency: float, low: float, high: float
) -> Array:
    values = np.where(random.random(count) < frequency, random.uniform(low, high, count), 0)
    noise = random.lognormal(0, 0.03, (count, DAYS))
    return np.minimum(values[:, None] * noise, 1.0)


def _region_shares(random: np.random.Generator) -> Array:
    """Return the shares of one to three regions by day: steady, or wherever jobs happen to run."""
    count = int(random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    noise = 0.05 if random.random() < 0.7 else random.uniform(0.2, 2)
    sizes = random.dirichlet(np.full(count, 2.0))[:, None]
    shares = sizes * random.lognormal(0, noise, (count, DAYS))
    return np.asarray(shares / shares.sum(0))


def plant_all(bill: Bill, factor: float) -> None:
    """Plant each of the twelve kinds once, each in another series."""
    # A new account takes all its services: it has to be chosen before they are.
    for kind in sorted(KINDS, key=lambda kind: kind != "new account"):
        _PLANTERS[kind](bill, factor)


def _spike(bill: Bill, factor: float) -> None:
    number, day = bill.choose(_LARGE), bill.choose_day()
    bill.usage[number, day] *= factor
    bill.plant("spike", number, day, 1)


def _step(bill: Bill, factor: float) -> None:
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.usage[number, day:] *= factor
    bill.plant("step", number, day, 14)


def _ramp(bill: Bill, factor: float) -> None:
    """Let the cost rise for two to four weeks, and stay."""
    number, day = bill.choose(_MEDIUM), bill.choose_day(days_after=35)
    length = int(bill.random.integers(14, 29))
    rise = np.clip(np.arange(DAYS - day) / length, 0, 1)
    bill.usage[number, day:] *= 1 + (factor - 1) * rise
    bill.plant("ramp", number, day, length + 14)


def _new_service(bill: Bill, factor: float) -> None:
    """Let a service begin that costs as much as this factor adds to another one."""
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.usage[number] *= factor - 1
    bill.usage[number, :day] = 0
    bill.plant("new service", number, day, 14)


def _new_account(bill: Bill, factor: float) -> None:
    day, number = bill.choose_day(), bill.choose(_MEDIUM)
    account = bill.series[number].account
    for n in (n for n, series in enumerate(bill.series) if series.account == account):
        bill.usage[n] *= factor - 1
        bill.usage[n, :day] = 0
        bill.taken.add(n)
    last = bill.day(min(day + 14, DAYS) - 1)
    bill.planted.append(Planted("new account", account, None, bill.day(day), last))


def _region_moved(bill: Bill, factor: float) -> None:
    """Let the largest region lose what is above one part in `factor` to another region."""
    steady = [len(shares) > 1 and shares.std(axis=1).max() < 0.05 for shares in bill.shares]
    number = bill.choose(_MEDIUM, bill.parts * steady)
    day, shares = bill.choose_day(), bill.shares[number]
    origin = int(np.argmax(shares[:, 0]))
    moved = shares[origin, day:] * (1 - 1 / factor)
    shares[origin, day:] -= moved
    shares[(origin + 1) % len(shares), day:] += moved
    bill.plant("region moved", number, day, 14)


def _commitment_ended(bill: Bill, factor: float) -> None:
    """Let the price rise by the factor when nothing is covered any longer."""
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.covered[number, :day] = 0.8
    bill.covered[number, day:] = 0
    bill.prices[number, day:] *= factor
    bill.plant("commitment ended", number, day, 14)


def _credit_ended(bill: Bill, factor: float) -> None:
    """Let what remains to be paid rise by the factor when nothing is credited any longer."""
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.credited[number, :day] = 1 - 1 / factor
    bill.credited[number, day:] = 0
    bill.plant("credit ended", number, day, 14)


def _price_change(bill: Bill, factor: float) -> None:
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.prices[number, day:] *= factor
    bill.plant("price change", number, day, 14)


def _vanished_service(bill: Bill, factor: float) -> None:
    """Let a service end that costs as much as this factor adds to another one."""
    number, day = bill.choose(_MEDIUM), bill.choose_day()
    bill.usage[number] *= factor - 1
    bill.usage[number, day:] = 0
    bill.plant("vanished service", number, day, 14)


def _weekend_work(bill: Bill, factor: float) -> None:
    """Let one weekend cost more, in a service that rests at weekends."""
    weekend = np.array([bill.day(n).weekday() >= 5 for n in range(DAYS)])
    rest = bill.cost()[:, weekend].mean(1) / np.maximum(bill.cost()[:, ~weekend].mean(1), 1e-9)
    number = bill.choose(_LARGE / 3, np.where(rest < 0.75, bill.parts * rest, 0))
    day = bill.choose_day()
    day += (5 - bill.day(day).weekday()) % 7
    bill.usage[number, day : day + 2] *= factor
    bill.plant("weekend work", number, day, 2)


def _slow_leak(bill: Bill, factor: float) -> None:
    """Let the cost grow a little each day for a hundred days, and stay."""
    number, day = bill.choose(_MEDIUM), bill.choose_day(days_after=120)
    bill.usage[number, day:] *= factor ** np.clip(np.arange(DAYS - day) / 100, 0, 1)
    bill.plant("slow leak", number, day, 130)


_PLANTERS: dict[str, Callable[[Bill, float], None]] = {
    "spike": _spike,
    "step": _step,
    "ramp": _ramp,
    "new service": _new_service,
    "new account": _new_account,
    "region moved": _region_moved,
    "commitment ended": _commitment_ended,
    "credit ended": _credit_ended,
    "price change": _price_change,
    "vanished service": _vanished_service,
    "weekend work": _weekend_work,
    "slow leak": _slow_leak,
}
