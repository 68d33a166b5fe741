-- How much was billed in each month, and how much is the amortized cost?
-- A commitment is billed when it is paid, and amortized over what it covers in its whole term.
SELECT x_billing_month AS month, ProviderName, BillingCurrency,
       round(sum(BilledCost), 2) AS billed,
       round(sum(EffectiveCost), 2) AS amortized,
       round(sum(BilledCost) FILTER (EffectiveCost = 0), 2) AS commitments_bought,
       round(sum(EffectiveCost) FILTER (BilledCost = 0), 2) AS commitments_used_or_lost
FROM focus
GROUP BY ALL
ORDER BY ALL;
