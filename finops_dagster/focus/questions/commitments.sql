-- How much of the commitments was used, and how much of the usage did they cover?
-- What they could cover is all usage of the services in which one was used, at list prices.
WITH usage AS (
    SELECT x_billing_month AS month, ProviderName, BillingCurrency, ServiceName,
           CommitmentDiscountType AS commitment, CommitmentDiscountStatus AS status,
           sum(EffectiveCost) AS effective, sum(ListCost) AS list
    FROM focus
    WHERE ChargeCategory = 'Usage' AND ChargeClass IS NULL
    GROUP BY ALL
), coverable AS (
    SELECT month, ProviderName, BillingCurrency, sum(list) AS list
    FROM usage
    WHERE status IS DISTINCT FROM 'Unused'
        AND (ProviderName, ServiceName) IN (
            SELECT (ProviderName, ServiceName) FROM usage WHERE status = 'Used'
        )
    GROUP BY ALL
)
SELECT month, ProviderName, BillingCurrency, commitment,
       round(sum(effective) FILTER (status = 'Used'), 2) AS used,
       round(sum(effective) FILTER (status = 'Unused'), 2) AS unused,
       round(100 * sum(effective) FILTER (status = 'Used') / sum(effective), 1) AS percent_used,
       round(100 * sum(usage.list) FILTER (status = 'Used') / any_value(coverable.list), 1)
           AS percent_covered
FROM usage LEFT JOIN coverable USING (month, ProviderName, BillingCurrency)
WHERE commitment IS NOT NULL
GROUP BY ALL
ORDER BY ALL;
