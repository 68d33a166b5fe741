-- How much of the bill is tax, credits, refunds and adjustments?
SELECT ProviderName, BillingCurrency, ChargeCategory, ChargeClass,
       x_billing_month AS month, count(*) AS charges, round(sum(BilledCost), 2) AS billed
FROM focus
WHERE ChargeCategory NOT IN ('Usage', 'Purchase') OR ChargeClass = 'Correction'
GROUP BY ALL
ORDER BY ALL;
