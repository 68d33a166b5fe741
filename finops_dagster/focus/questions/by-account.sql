-- What does each account or subscription cost?
SELECT BillingCurrency, ProviderName, coalesce(SubAccountName, '(none)') AS account,
       round(sum(BilledCost), 2) AS billed, round(sum(EffectiveCost), 2) AS effective,
       round(sum(EffectiveCost) FILTER (
           x_billing_month = (SELECT max(x_billing_month) FROM focus)
       ), 2) AS last_month
FROM focus
GROUP BY ALL
ORDER BY BillingCurrency, effective DESC;
