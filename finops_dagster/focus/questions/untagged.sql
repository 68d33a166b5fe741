-- Which services have the highest cost without a tag in the last month?
-- Tags that AWS sets itself, such as aws:createdBy, do not count.
WITH charges AS (
    SELECT BillingCurrency, ProviderName, ServiceName, EffectiveCost,
           len(list_filter(map_keys(Tags), lambda key: NOT starts_with(key, 'aws:'))) AS tags
    FROM focus
    WHERE x_billing_month = (SELECT max(x_billing_month) FROM focus)
        AND ChargeCategory IN ('Usage', 'Purchase')
), services AS (
    SELECT BillingCurrency, ProviderName, ServiceName, sum(EffectiveCost) AS effective,
           sum(EffectiveCost) FILTER (coalesce(tags, 0) = 0) AS untagged
    FROM charges
    GROUP BY ALL
)
SELECT BillingCurrency, ProviderName, ServiceName, round(effective, 2) AS effective,
       round(untagged, 2) AS untagged, round(100 * untagged / effective, 1) AS percent
FROM services
WHERE untagged > 0
QUALIFY row_number() OVER (PARTITION BY BillingCurrency ORDER BY untagged DESC) <= 5
ORDER BY BillingCurrency, untagged DESC;
