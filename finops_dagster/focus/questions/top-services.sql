-- Which services cost most in the last month?
-- The ranking is by currency, because amounts in different currencies are never added up.
SELECT BillingCurrency, ProviderName, ServiceName, round(sum(BilledCost), 2) AS billed,
       round(sum(EffectiveCost), 2) AS effective,
       round(100 * sum(EffectiveCost) / sum(sum(EffectiveCost)) OVER (
           PARTITION BY BillingCurrency
       ), 1) AS percent
FROM focus
WHERE x_billing_month = (SELECT max(x_billing_month) FROM focus)
GROUP BY BillingCurrency, ProviderName, ServiceName
QUALIFY row_number() OVER (PARTITION BY BillingCurrency ORDER BY sum(EffectiveCost) DESC) <= 5
ORDER BY BillingCurrency, effective DESC;
