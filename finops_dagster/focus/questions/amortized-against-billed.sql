-- How much was billed in each month, and how much is the amortized cost?
-- What a purchase of a commitment bills, the charges that use it have as EffectiveCost.
SELECT x_billing_month AS month, ProviderName, BillingCurrency,
       round(sum(BilledCost), 2) AS billed,
       round(sum(EffectiveCost), 2) AS amortized,
       round(sum(BilledCost) FILTER (EffectiveCost = 0), 2) AS commitments_bought,
       round(sum(EffectiveCost) FILTER (BilledCost = 0), 2) AS commitments_used_or_lost
FROM focus
GROUP BY ALL
ORDER BY ALL;
