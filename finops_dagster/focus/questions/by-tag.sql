-- What does each team cost, by its tag?
-- Write the key of your own tag for team. Keys are compared without capitals.
WITH charges AS (
    SELECT *, list_filter(map_entries(Tags), lambda tag: lower(tag.key) = 'team')[1].value AS team
    FROM focus
)
SELECT BillingCurrency, ProviderName, coalesce(team, '(none)') AS team,
       round(sum(BilledCost), 2) AS billed, round(sum(EffectiveCost), 2) AS effective,
       round(sum(EffectiveCost) FILTER (
           x_billing_month = (SELECT max(x_billing_month) FROM focus)
       ), 2) AS last_month
FROM charges
GROUP BY ALL
ORDER BY BillingCurrency, effective DESC;
