-- Which services rose or fell most in the last month, against the month before?
WITH months AS (
    SELECT max(x_billing_month) AS last, last - INTERVAL 1 MONTH AS previous FROM focus
), services AS (
    SELECT BillingCurrency, ProviderName, ServiceName,
           coalesce(sum(EffectiveCost) FILTER (x_billing_month = previous), 0) AS before,
           coalesce(sum(EffectiveCost) FILTER (x_billing_month = last), 0) AS now
    FROM focus, months
    WHERE x_billing_month IN (previous, last)
    GROUP BY ALL
)
SELECT BillingCurrency, ProviderName, ServiceName, round(before, 2) AS before,
       round(now, 2) AS now, round(now - before, 2) AS change,
       round(100 * (now - before) / nullif(before, 0), 1) AS percent
FROM services
QUALIFY row_number() OVER (PARTITION BY BillingCurrency ORDER BY abs(now - before) DESC) <= 5
ORDER BY BillingCurrency, abs(services.now - services.before) DESC;
