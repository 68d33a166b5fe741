-- How much less than the list prices was paid for usage?
-- What is not used of a commitment has no list cost, so all of it lowers the rate.
WITH charges AS (
    SELECT *, CommitmentDiscountStatus IS NOT DISTINCT FROM 'Unused' AS is_unused,
           if(is_unused, 0, ListCost) AS list, if(is_unused, 0, ContractedCost) AS contracted
    FROM focus
    WHERE ChargeCategory = 'Usage' AND ChargeClass IS NULL
)
SELECT x_billing_month AS month, ProviderName, BillingCurrency, round(sum(list), 2) AS list,
       round(sum(list - contracted), 2) AS saved_by_contract,
       round(sum(contracted - EffectiveCost), 2) AS saved_by_commitments,
       round(sum(EffectiveCost), 2) AS effective,
       round(100 * (1 - sum(EffectiveCost) / nullif(sum(charges.list), 0)), 1) AS percent
FROM charges
GROUP BY ALL
ORDER BY ALL;
